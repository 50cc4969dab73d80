/**
 * `objects/<sha256>` in a bucket.
 *
 * 1. Every byte that is handed out was hashed here. A transfer that breaks goes on where it was; one that ends with other bytes
 *    is made once more, and only then the stored bytes are taken for damaged and moved aside.
 * 2. `verify` hashes what the server has, once per process as long as the server shows the same tag, size and time.
 * 3. `localPath` answers a copy of this machine; equal calls of one process share one download.
 */
import { createHash } from 'node:crypto';
import { open } from 'node:fs/promises';
import type { Readable } from 'node:stream';

import type { Digest } from '../../workflows/contract.js';
import { hashStream } from './durable-file.js';
import type { Amount, GarbageLimits } from './artifact-store.js';
import { asStoreError, CorruptArtifactError, StoreUnavailableError } from './errors.js';
import { isDigest } from './job-key.js';
import type { LocalCopies } from './local-copies.js';
import { inParallel } from './parallel.js';
import { moveAside, type CopyLimits } from './s3-aside.js';
import type { S3Connection } from './s3-connection.js';
import { orNull } from './s3-errors.js';
import { S3Uploader } from './s3-upload.js';
import type { ObjectSpace } from './store-parts.js';

const FOLDER = 'objects';
const DELETES_IN_FLIGHT = 8;

export interface S3ObjectsOptions extends CopyLimits {
  connection: S3Connection;
  copies: LocalCopies;
  partBytes?: number;
}

export class S3Objects implements ObjectSpace {
  readonly #connection: S3Connection;
  readonly #copies: LocalCopies;
  readonly #uploader: S3Uploader;
  readonly #copyLimits: CopyLimits;
  /** Digest to what the server showed of it when it was verified. */
  readonly #verified = new Map<Digest, string>();
  /** The last of the `localPath` calls for each digest. */
  readonly #fetching = new Map<Digest, Promise<unknown>>();

  constructor({ connection, copies, partBytes, ...copyLimits }: S3ObjectsOptions) {
    this.#connection = connection;
    this.#copies = copies;
    this.#uploader = new S3Uploader(connection, partBytes === undefined ? {} : { partBytes });
    this.#copyLimits = copyLimits;
  }

  // Written over an existing object on purpose: equal bytes do no harm, and damaged ones are healed.
  async putFile(path: string): Promise<Digest> {
    const file = await open(path, 'r').catch((error: unknown) => {
      throw asStoreError(error, path);
    });
    try {
      return await this.#uploader.putFile(file, nameOf);
    } finally {
      await file.close();
    }
  }

  putBytes(bytes: Uint8Array): Promise<Digest> {
    return this.#uploader.putBytes(bytes, nameOf);
  }

  async has(digest: Digest): Promise<boolean> {
    return (await this.#look(digest)) !== null;
  }

  async sizeOf(digest: Digest): Promise<number> {
    return (await this.#look(digest))?.size ?? 0;
  }

  async verify(digest: Digest): Promise<void> {
    const found = await this.#look(digest);
    if (found !== null && this.#verified.get(digest) === found.state) return;
    await this.#transfer(digest, (chunks) => hashStream(chunks));
    if (found !== null) this.#verified.set(digest, found.state);
  }

  async readBytes(digest: Digest): Promise<Buffer> {
    let bytes = Buffer.alloc(0);
    await this.#transfer(digest, async (chunks) => {
      const parts: Uint8Array[] = [];
      for await (const chunk of chunks) parts.push(chunk);
      bytes = Buffer.concat(parts);
      return createHash('sha256').update(bytes).digest('hex');
    });
    return bytes;
  }

  async copyTo(digest: Digest, path: string): Promise<void> {
    await this.#transfer(digest, async (chunks) => {
      try {
        const file = await open(path, 'w');
        try {
          return await hashStream(chunks, (chunk) => file.writeFile(chunk));
        } finally {
          await file.close();
        }
      } catch (error) {
        throw asStoreError(error, path);
      }
    });
  }

  async localPath(digest: Digest): Promise<string> {
    nameOf(digest);
    const earlier = this.#fetching.get(digest) ?? Promise.resolve();
    const path = earlier.catch(() => undefined).then(() => this.#fetch(digest));
    this.#fetching.set(digest, path);
    try {
      return await path;
    } finally {
      if (this.#fetching.get(digest) === path) this.#fetching.delete(digest);
    }
  }

  release(digests: readonly Digest[]): Promise<void> {
    return this.#copies.release(digests);
  }

  async *list(): AsyncGenerator<{ digest: Digest; bytes: number }> {
    for await (const { name, Size: bytes = 0 } of this.#connection.list(`${FOLDER}/`)) {
      const digest = name.slice(FOLDER.length + 1);
      if (isDigest(digest)) yield { digest, bytes };
    }
  }

  async sweep(keep: ReadonlySet<Digest>, { olderThanSeconds, dryRun = false }: GarbageLimits): Promise<Amount> {
    // By this machine's clock: a limit of minutes is no limit where clocks differ by as much.
    const limitMs = Date.now() - olderThanSeconds * 1000;
    const stale: { name: string; size: number }[] = [];
    for await (const { name, Size = 0, LastModified } of this.#connection.list(`${FOLDER}/`)) {
      const digest = name.slice(FOLDER.length + 1);
      if (!isDigest(digest) || keep.has(digest) || (LastModified?.getTime() ?? Infinity) > limitMs) continue;
      stale.push({ name, size: Size });
    }
    const bytes = stale.reduce((sum, { size }) => sum + size, 0);
    if (dryRun) return { objects: stale.length, bytes };
    await inParallel(stale, {
      limit: DELETES_IN_FLIGHT,
      body: ({ name }) =>
        this.#connection.call(name, (s3, abortSignal) => s3.deleteObject(this.#connection.at(name), { abortSignal })),
    });
    const uploads = await this.#abortUploadsBefore(limitMs);
    return { objects: stale.length + uploads, bytes };
  }

  /** Uploads in parts that a killed process left; answers how many. */
  async #abortUploadsBefore(limitMs: number): Promise<number> {
    const { Bucket, Key: Prefix } = this.#connection.at('');
    let count = 0;
    let marker: { KeyMarker?: string; UploadIdMarker?: string } = {};
    for (;;) {
      const page = await this.#connection.call('', (s3, abortSignal) =>
        s3.listMultipartUploads({ Bucket, Prefix, ...marker }, { abortSignal }),
      );
      for (const { Key, UploadId, Initiated } of page.Uploads ?? []) {
        if (Key === undefined || !Key.startsWith(Prefix) || (Initiated?.getTime() ?? Infinity) > limitMs) continue;
        await this.#connection.call(Key, (s3, abortSignal) =>
          // Ended or aborted by its owner meanwhile: as good.
          s3.abortMultipartUpload({ Bucket, Key, UploadId }, { abortSignal }).catch((error: unknown) => {
            if ((error as Error).name !== 'NoSuchUpload') throw error;
          }),
        );
        count += 1;
      }
      const { NextKeyMarker, NextUploadIdMarker } = page;
      if (page.IsTruncated !== true || NextKeyMarker === undefined || NextUploadIdMarker === undefined) return count;
      marker = { KeyMarker: NextKeyMarker, UploadIdMarker: NextUploadIdMarker };
    }
  }

  async #fetch(digest: Digest): Promise<string> {
    for (;;) {
      const path = await this.#copies.pin(digest);
      if (path !== null) return path;
      try {
        await this.#transfer(digest, (chunks) => this.#copies.add(digest, chunks));
        await this.#copies.makeRoom(digest);
      } catch (error) {
        const full = error instanceof StoreUnavailableError && ['ENOSPC', 'EDQUOT'].includes(error.code);
        if (!full || (await this.#copies.removeUnused()) === 0) throw error;
      }
    }
  }

  /** What the server shows of an object without sending it. */
  async #look(digest: Digest): Promise<{ state: string; size: number } | null> {
    const name = nameOf(digest);
    const found = await this.#connection.call(name, (s3, abortSignal) =>
      orNull(s3.headObject(this.#connection.at(name), { abortSignal })),
    );
    if (found === null) return null;
    const { ETag = '', ContentLength: size = 0, LastModified } = found;
    return { state: [ETag, size, LastModified?.getTime()].join(':'), size };
  }

  /** Has `take` go through the bytes, which answers their digest, until it is the right one. */
  async #transfer(digest: Digest, take: (chunks: AsyncIterable<Uint8Array>) => Promise<Digest>): Promise<void> {
    let actual = await take(this.#chunks(digest));
    if (actual !== digest) actual = await take(this.#chunks(digest));
    if (actual === digest) return;
    this.#verified.delete(digest);
    const movedTo = await moveAside(this.#connection, nameOf(digest), this.#copyLimits);
    throw new CorruptArtifactError({ digest, found: `bytes with the SHA-256 ${actual}`, movedTo });
  }

  async *#chunks(digest: Digest): AsyncGenerator<Uint8Array> {
    const name = nameOf(digest);
    const connection = this.#connection;
    let position = 0;
    let size = Infinity;
    let sinceMs = 0;
    for (let attempt = 0; position < size;) {
      const range = position === 0 ? {} : { Range: `bytes=${String(position)}-` };
      const answer = await connection.call(name, (s3, abortSignal) =>
        orNull(s3.getObject({ ...connection.at(name), ...range }, { abortSignal })),
      );
      if (answer?.Body === undefined) throw new CorruptArtifactError({ digest, found: 'nothing' });
      if (position === 0) size = answer.ContentLength ?? 0;
      try {
        for await (const chunk of untilIdle(answer.Body as Readable, connection.callTimeoutMs)) {
          position += chunk.length;
          yield chunk;
          [attempt, sinceMs] = [0, 0];
        }
        if (position < size) throw Object.assign(new Error('the answer ended early'), { code: 'ECONNRESET' });
      } catch (error) {
        if (sinceMs === 0) sinceMs = Date.now();
        await connection.waitAfter(error, { name, attempt, sinceMs });
        attempt += 1;
      }
    }
  }
}

/** The stream, which fails when nothing comes for too long while somebody waits for it. */
async function* untilIdle(stream: Readable, idleMs: number): AsyncGenerator<Uint8Array> {
  let timer: NodeJS.Timeout | undefined;
  const arm = (): void => {
    timer = setTimeout(() => {
      stream.destroy(Object.assign(new Error(`no byte for ${String(idleMs)} ms`), { code: 'ETIMEDOUT' }));
    }, idleMs);
  };
  try {
    arm();
    for await (const chunk of stream) {
      clearTimeout(timer);
      yield chunk as Uint8Array;
      arm();
    }
  } finally {
    clearTimeout(timer);
    stream.destroy();
  }
}

function nameOf(digest: Digest): string {
  if (!isDigest(digest)) throw new TypeError(`expected a SHA-256 in lower-case hex, got "${String(digest)}"`);
  return `${FOLDER}/${digest}`;
}
