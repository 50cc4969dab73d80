/**
 * Small records in a bucket: `jobs/<key>.json`, `checkpoints/<key>/<step>.json`, and what `probe` writes.
 *
 * 1. `create` is `If-None-Match: *`. A server that ignores the condition would let two results of one job pass unseen: it is
 *    found out before the first record is written, and refused.
 * 2. A try of `create` whose answer was lost is told as "there is one already"; callers read that one and find their own.
 */
import { createHash, randomBytes } from 'node:crypto';

import { StoreUnavailableError } from './errors.js';
import { moveAside } from './s3-aside.js';
import type { S3Connection } from './s3-connection.js';
import { orNull, wasCreated } from './s3-errors.js';
import type { RecordSpace } from './store-parts.js';

const PROBE_FOLDER = 'probe';

export class S3Records implements RecordSpace {
  readonly #connection: S3Connection;
  #conditional: Promise<void> | null = null;

  constructor(connection: S3Connection) {
    this.#connection = connection;
  }

  async read(name: string): Promise<string | null> {
    return (await this.readBytes(name))?.toString('utf8') ?? null;
  }

  async readBytes(name: string): Promise<Buffer | null> {
    return this.#connection.call(name, async (s3, abortSignal) => {
      const answer = await orNull(s3.getObject(this.#connection.at(name), { abortSignal }));
      if (answer === null) return null;
      const bytes = Buffer.from((await answer.Body?.transformToByteArray()) ?? []);
      if (bytes.length === (answer.ContentLength ?? bytes.length)) return bytes;
      throw Object.assign(new Error('the answer ended early'), { code: 'ECONNRESET' });
    });
  }

  async create(name: string, text: string): Promise<boolean> {
    await this.requireConditions();
    return this.#create(name, text);
  }

  async replace(name: string, bytes: string | Uint8Array): Promise<void> {
    const body = Buffer.from(bytes as string);
    await this.#connection.call(name, (s3, abortSignal) =>
      s3.putObject({ ...this.#connection.at(name), ...checked(body) }, { abortSignal }),
    );
  }

  /** As `create`, with a mark that tells our own earlier try from somebody else's record. */
  async createMarked(name: string, text: string): Promise<boolean> {
    await this.requireConditions();
    const mark = randomBytes(16).toString('hex');
    if (await this.#create(name, text, { mark })) return true;
    const found = await this.#connection.call(name, (s3, abortSignal) =>
      orNull(s3.headObject(this.#connection.at(name), { abortSignal })),
    );
    return found?.Metadata?.['mark'] === mark;
  }

  async remove(names: readonly string[]): Promise<void> {
    for (const name of names) {
      await this.#connection.call(name, (s3, abortSignal) =>
        s3.deleteObject(this.#connection.at(name), { abortSignal }),
      );
    }
  }

  async names(folder: string): Promise<string[]> {
    const { files, folders } = await this.#connection.namesIn(folder);
    return [...files, ...folders];
  }

  setAside(name: string): Promise<string | null> {
    return moveAside(this.#connection, name);
  }

  async probe(): Promise<void> {
    await this.requireConditions();
    const name = `${PROBE_FOLDER}/${randomBytes(8).toString('hex')}`;
    const bytes = randomBytes(1024);
    await this.replace(name, bytes);
    const back = await this.readBytes(name);
    await this.remove([name]);
    if (back?.equals(bytes) === true) return;
    throw this.#unfit(
      back === null ? 'WriteLost' : 'EIO',
      back === null
        ? 'what was written is not there when it is read at once; the store needs a server that is consistent'
        : 'other bytes came back than were written; check the health of the server',
    );
  }

  /** Once per process: that the second of two writes under one name is refused. */
  async requireConditions(): Promise<void> {
    this.#conditional ??= this.#tryConditions();
    try {
      await this.#conditional;
    } catch (error) {
      this.#conditional = null;
      throw error;
    }
  }

  async #tryConditions(): Promise<void> {
    const name = `${PROBE_FOLDER}/${randomBytes(8).toString('hex')}`;
    await this.#create(name, '');
    const wrong = await this.#create(name, '');
    await this.remove([name]);
    if (!wrong) return;
    throw this.#unfit(
      'NoConditionalWrites',
      'the server takes a second write with "If-None-Match: *" under one name, so that two results of one job would pass unseen; ' +
        'use a server that has conditional writes',
    );
  }

  #create(name: string, text: string, metadata?: Record<string, string>): Promise<boolean> {
    const body = { ...checked(Buffer.from(text)), IfNoneMatch: '*', ...(metadata && { Metadata: metadata }) };
    return this.#connection.call(name, (s3, abortSignal) =>
      wasCreated(s3.putObject({ ...this.#connection.at(name), ...body }, { abortSignal })),
    );
  }

  #unfit(code: string, remedy: string): StoreUnavailableError {
    return new StoreUnavailableError({ path: this.#connection.addressOf(''), code, remedy, cause: undefined });
  }
}

function checked(bytes: Buffer): { Body: Uint8Array; ChecksumSHA256: string } {
  return { Body: bytes, ChecksumSHA256: createHash('sha256').update(bytes).digest('base64') };
}
