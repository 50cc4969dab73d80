/**
 * Calls to one bucket: deadlines, retries, names below the prefix.
 *
 * 1. Every try of a call has a deadline. A fault that may pass is tried again after 2^n × 100 ms, at most 5 s, times a random
 *    half to whole, until the budget is spent; then it is a StoreUnavailableError. Other faults are one at once.
 * 2. The SDK never tries again by itself, so that the budget is one.
 * 3. The first call of a process lists one key: what is wrong with bucket, credentials or region is said there, since many later
 *    calls answer no more than a status.
 */
import type { S3, ListObjectsV2CommandOutput, _Object } from '@aws-sdk/client-s3';
import { setTimeout as sleep } from 'node:timers/promises';

import type { S3Address } from './s3-address.js';
import { asUnavailable, faultOf } from './s3-errors.js';

const BACKOFF_FIRST_MS = 100;
const BACKOFF_MAX_MS = 5_000;
const CONNECT_TIMEOUT_MS = 10_000;
export const CALL_TIMEOUT_MS = 60_000;
export const RETRY_BUDGET_MS = 45_000;

export interface S3Limits {
  /** Of one try of one call, from its start to its answer. */
  callTimeoutMs?: number;
  /** From the first fault of a call to giving up. */
  retryBudgetMs?: number;
}

export type S3Call<T> = (s3: S3, signal: AbortSignal) => Promise<T>;

export class S3Connection {
  readonly address: S3Address;
  readonly callTimeoutMs: number;
  readonly #retryBudgetMs: number;
  #client: Promise<S3> | null = null;
  #opened: Promise<void> | null = null;

  constructor(address: S3Address, { callTimeoutMs = CALL_TIMEOUT_MS, retryBudgetMs = RETRY_BUDGET_MS }: S3Limits = {}) {
    this.address = address;
    this.callTimeoutMs = callTimeoutMs;
    this.#retryBudgetMs = retryBudgetMs;
  }

  /** Bucket and key of a name such as `jobs/<key>.json`, as the SDK takes them. */
  at(name: string): { Bucket: string; Key: string } {
    return { Bucket: this.address.bucket, Key: `${this.address.prefix}${name}` };
  }

  /** The same for people. */
  addressOf(name: string): string {
    return `s3://${this.address.bucket}/${this.address.prefix}${name}`;
  }

  /** `name` is what the call is about; a call may run more than once. */
  async call<T>(name: string, body: S3Call<T>): Promise<T> {
    await this.#open();
    return this.#tried(name, body);
  }

  /** Waits before the next try; throws when the fault will not pass or the budget is spent. */
  async waitAfter(error: unknown, { name, attempt, sinceMs }: { name: string; attempt: number; sinceMs: number }) {
    const fault = faultOf(error);
    if (fault === null) throw error;
    const delayMs = Math.min(BACKOFF_MAX_MS, BACKOFF_FIRST_MS * 2 ** attempt) * (0.5 + Math.random() / 2);
    if (!fault.retryable || Date.now() + delayMs > sinceMs + this.#retryBudgetMs) {
      throw asUnavailable(fault, { path: this.addressOf(name), cause: error });
    }
    await sleep(delayMs);
  }

  /** Everything below a prefix, page by page. */
  async *list(prefix: string): AsyncGenerator<_Object & { name: string }> {
    for await (const page of this.#pages(prefix, null)) {
      for (const object of page.Contents ?? []) {
        yield { ...object, name: (object.Key ?? '').slice(this.address.prefix.length) };
      }
    }
  }

  /** Last parts of the names directly below `folder`. */
  async namesIn(folder: string): Promise<{ files: string[]; folders: string[] }> {
    const names: { files: string[]; folders: string[] } = { files: [], folders: [] };
    const start = this.address.prefix.length + folder.length + 1;
    for await (const page of this.#pages(`${folder}/`, '/')) {
      names.files.push(...(page.Contents ?? []).map(({ Key = '' }) => Key.slice(start)));
      names.folders.push(...(page.CommonPrefixes ?? []).map(({ Prefix = '' }) => Prefix.slice(start, -1)));
    }
    return names;
  }

  async *#pages(prefix: string, delimiter: string | null): AsyncGenerator<ListObjectsV2CommandOutput> {
    const { Bucket, Key } = this.at(prefix);
    for (let token: string | undefined; ;) {
      const next = token === undefined ? {} : { ContinuationToken: token };
      const page = await this.call(prefix, (s3, abortSignal) =>
        s3.listObjectsV2(
          { Bucket, Prefix: Key, ...(delimiter === null ? {} : { Delimiter: delimiter }), ...next },
          { abortSignal },
        ),
      );
      yield page;
      if (page.IsTruncated !== true) return;
      token = page.NextContinuationToken;
    }
  }

  async #open(): Promise<void> {
    const { bucket, prefix } = this.address;
    this.#opened ??= this.#tried('', async (s3, abortSignal) => {
      await s3.listObjectsV2({ Bucket: bucket, Prefix: prefix, MaxKeys: 1 }, { abortSignal });
    });
    try {
      await this.#opened;
    } catch (error) {
      this.#opened = null;
      throw error;
    }
  }

  async #tried<T>(name: string, body: S3Call<T>): Promise<T> {
    let sinceMs = 0;
    for (let attempt = 0; ; attempt += 1) {
      const deadline = new AbortController();
      const timer = setTimeout(() => {
        deadline.abort();
      }, this.callTimeoutMs);
      try {
        return await body(await this.#connect(), deadline.signal);
      } catch (error) {
        if (sinceMs === 0) sinceMs = Date.now();
        await this.waitAfter(error, { name, attempt, sinceMs });
      } finally {
        clearTimeout(timer);
      }
    }
  }

  /** Loaded at the first use: whoever keeps a folder does not wait for the SDK. */
  async #connect(): Promise<S3> {
    this.#client ??= makeClient(this.address);
    return this.#client;
  }
}

async function makeClient({ endpoint, region, pathStyle }: S3Address): Promise<S3> {
  // The SDK tells everybody on Node 20 that its versions of 2027 will need 22; ours is pinned.
  process.env['AWS_SDK_JS_NODE_VERSION_SUPPORT_WARNING_DISABLED'] ??= 'true';
  const sdk = await import('@aws-sdk/client-s3');
  return new sdk.S3({
    ...(endpoint === null ? {} : { endpoint }),
    ...(region === null ? {} : { region }),
    forcePathStyle: pathStyle,
    maxAttempts: 1,
    // Every write carries the SHA-256 that we have anyway, and what is read is hashed by us.
    requestChecksumCalculation: 'WHEN_REQUIRED',
    responseChecksumValidation: 'WHEN_REQUIRED',
    requestHandler: { connectionTimeout: CONNECT_TIMEOUT_MS },
  });
}
