/**
 * Bytes into a bucket, under the name of their SHA-256.
 *
 * 1. Every request carries the SHA-256 of its bytes, so that the server refuses what was garbled on the way.
 * 2. Above one part's size an upload goes in parts, a few in flight over all uploads of the store: memory does not grow with the
 *    object. A failed upload is aborted; of a killed process it stays until `collectGarbage`.
 * 3. A file that changes while it is read is never stored under the name of what it was.
 */
import { createHash } from 'node:crypto';
import type { FileHandle } from 'node:fs/promises';

import type { CompletedPart } from '@aws-sdk/client-s3';

import type { Digest } from '../../workflows/contract.js';
import { hashChunks } from './durable-file.js';
import { Slots } from './parallel.js';
import type { S3Connection } from './s3-connection.js';
import { orNull } from './s3-errors.js';

export const PART_BYTES = 16 << 20;
const PARTS_IN_FLIGHT = 4;
/** Of the S3 interface. */
const PARTS_MAX = 10_000;

export interface Upload {
  name: string;
  file: FileHandle;
  size: number;
  digest: Digest;
}

export class S3Uploader {
  readonly #connection: S3Connection;
  readonly #partBytes: number;
  readonly #slots = new Slots(PARTS_IN_FLIGHT);

  constructor(connection: S3Connection, { partBytes = PART_BYTES }: { partBytes?: number } = {}) {
    this.#connection = connection;
    this.#partBytes = partBytes;
  }

  async putFile(file: FileHandle, nameOf: (digest: Digest) => string): Promise<Digest> {
    const { size } = await file.stat();
    if (size <= this.#partBytes) {
      await this.#slots.acquire();
      try {
        // Not readFile(): the file may have grown, and the bound on memory is one part.
        const bytes = await readPart(file, 0, size);
        return await this.#putWhole(bytes, nameOf);
      } finally {
        this.#slots.release();
      }
    }
    const digest = await hashChunks(file);
    await this.#putParts({ name: nameOf(digest), file, size, digest });
    return digest;
  }

  async putBytes(bytes: Uint8Array, nameOf: (digest: Digest) => string): Promise<Digest> {
    return this.#putWhole(bytes, nameOf);
  }

  async #putWhole(bytes: Uint8Array, nameOf: (digest: Digest) => string): Promise<Digest> {
    const digest = createHash('sha256').update(bytes).digest('hex');
    const name = nameOf(digest);
    await this.#connection.call(name, (s3, abortSignal) =>
      s3.putObject({ ...this.#connection.at(name), Body: bytes, ChecksumSHA256: base64Of(digest) }, { abortSignal }),
    );
    return digest;
  }

  async #putParts(upload: Upload): Promise<void> {
    const place = this.#connection.at(upload.name);
    const { UploadId } = await this.#connection.call(upload.name, (s3, abortSignal) =>
      s3.createMultipartUpload({ ...place, ChecksumAlgorithm: 'SHA256' }, { abortSignal }),
    );
    const id = { ...place, UploadId };
    try {
      const Parts = await this.#sendParts(upload, id);
      await this.#connection.call(upload.name, async (s3, abortSignal) => {
        await s3
          .completeMultipartUpload({ ...id, MultipartUpload: { Parts } }, { abortSignal })
          .catch(async (error: unknown) => {
            // The answer to an earlier try may have been lost: then the upload is no more, and the object is there.
            const done =
              (error as Error).name === 'NoSuchUpload' && (await orNull(s3.headObject(place, { abortSignal })));
            if (done === false || done?.ContentLength !== upload.size) throw error;
          });
      });
    } catch (error) {
      await this.#connection
        .call(upload.name, (s3, abortSignal) => s3.abortMultipartUpload(id, { abortSignal }))
        // The first error is the one to report; collectGarbage finds the rest.
        .catch(() => undefined);
      throw error;
    }
  }

  async #sendParts(
    { name, file, size, digest }: Upload,
    id: ReturnType<S3Connection['at']> & { UploadId: string | undefined },
  ) {
    const whole = createHash('sha256');
    const partBytes = Math.max(this.#partBytes, Math.ceil(size / PARTS_MAX));
    const sending: Promise<CompletedPart>[] = [];
    let failed: unknown = null;
    for (let offset = 0, number = 1; offset < size && failed === null; offset += partBytes, number += 1) {
      await this.#slots.acquire();
      try {
        const bytes = await readPart(file, offset, Math.min(partBytes, size - offset));
        whole.update(bytes);
        const ChecksumSHA256 = createHash('sha256').update(bytes).digest('base64');
        const part = this.#connection
          .call(name, (s3, abortSignal) =>
            s3.uploadPart({ ...id, PartNumber: number, Body: bytes, ChecksumSHA256 }, { abortSignal }),
          )
          .then(({ ETag }) => ({ PartNumber: number, ETag, ChecksumSHA256 }))
          .finally(() => {
            this.#slots.release();
          });
        part.catch((error: unknown) => {
          failed ??= error;
        });
        sending.push(part);
      } catch (error) {
        this.#slots.release();
        failed ??= error;
      }
    }
    // All have ended before the upload is aborted: a part that arrives later would be kept and paid for.
    const ends = await Promise.allSettled(sending);
    if (failed !== null) throw failed as Error;
    if (whole.digest('hex') !== digest) throw changed(digest);
    return ends.flatMap((end) => (end.status === 'fulfilled' ? [end.value] : []));
  }
}

async function readPart(file: FileHandle, offset: number, length: number): Promise<Uint8Array> {
  const bytes = Buffer.allocUnsafe(length);
  for (let filled = 0; filled < length;) {
    const { bytesRead } = await file.read(bytes, filled, length - filled, offset + filled);
    if (bytesRead === 0) throw changed(`${String(offset + length)} bytes`);
    filled += bytesRead;
  }
  return bytes;
}

function changed(expected: string): Error {
  return new Error(
    `put: the file changed while it was being stored (expected ${expected}); store it again once it is whole`,
  );
}

export function base64Of(digest: Digest): string {
  return Buffer.from(digest, 'hex').toString('base64');
}
