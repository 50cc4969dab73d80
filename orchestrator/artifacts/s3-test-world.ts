/** What the tests of the S3 store share: one server for a file, and for every test a prefix and a folder of its own. */
import { execFile, spawnSync } from 'node:child_process';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';

import { expect } from 'vitest';

import { StoreUnavailableError } from './errors.js';
import { sha256Hex } from './job-key.js';
import { parseS3Address } from './s3-address.js';
import { S3ArtifactStore, type S3StoreOptions } from './s3-store.js';
import { BUCKET, S3_SERVER_REFUSAL, S3TestServer } from './s3-test-server.js';

/** The least that S3 takes. */
export const PART_BYTES = 5 << 20;

export class S3World {
  folder = '';
  prefix = '';
  #prefixes = 0;

  private constructor(
    readonly root: string,
    readonly server: S3TestServer,
  ) {}

  static async start(): Promise<S3World> {
    const root = await mkdtemp(join(tmpdir(), 'collimate-s3-'));
    return new S3World(root, await S3TestServer.start(join(root, 'server')));
  }

  async close(): Promise<void> {
    await this.server.down();
    await rm(this.root, { recursive: true, force: true });
  }

  /** To be called before each test. */
  async next(): Promise<void> {
    this.folder = await mkdtemp(join(this.root, 'test-'));
    this.prefix = this.newPrefix();
  }

  newPrefix(): string {
    this.#prefixes += 1;
    return `some/prefix/${String(this.#prefixes)}`;
  }

  /** A new client of the test's prefix; all of a test share one folder of copies. */
  open(options: S3StoreOptions & { bucket?: string; port?: number } = {}): S3ArtifactStore {
    const { bucket, port, ...rest } = options;
    const place = { ...(bucket !== undefined && { bucket }), ...(port !== undefined && { port }) };
    const cache = { folder: join(this.folder, 'cache') };
    const settings = { retryBudgetMs: 10_000, partBytes: PART_BYTES, cache, ...rest };
    return new S3ArtifactStore(parseS3Address(this.server.address(this.prefix, place)), settings);
  }

  async fileOf(bytes: Uint8Array): Promise<string> {
    const path = join(this.folder, sha256Hex(bytes));
    await writeFile(path, bytes);
    return path;
  }

  /** Where the server keeps what the store calls by this name. */
  pathOf(name: string): string {
    return this.server.pathOf(`${this.prefix}/${name}`);
  }

  /** Keys of the uploads in parts that the server knows of, of the test's prefix. */
  async uploads(): Promise<string[]> {
    const { S3 } = await import('@aws-sdk/client-s3');
    const endpoint = `http://127.0.0.1:${String(this.server.port)}`;
    const client = new S3({ endpoint, region: 'us-east-1', forcePathStyle: true });
    const { Uploads } = await client.listMultipartUploads({ Bucket: BUCKET, Prefix: `${this.prefix}/` });
    client.destroy();
    return (Uploads ?? []).map(({ Key }) => Key ?? '').filter((key) => key.startsWith(`${this.prefix}/`));
  }

  async untilUpload(): Promise<void> {
    for (const deadline = Date.now() + 20_000; (await this.uploads()).length === 0;) {
      if (Date.now() > deadline) throw new Error('no upload in parts has begun');
    }
  }
}

/** The store's refusal that the action ends with; anything else fails the test. */
export async function refusalOf(action: Promise<unknown>): Promise<StoreUnavailableError> {
  const error = await action.catch((reason: unknown) => reason);
  expect(error).toBeInstanceOf(StoreUnavailableError);
  return error as StoreUnavailableError;
}

/** A module of the build as a string literal, for processes of their own. */
export function built(name: string): string {
  return JSON.stringify(new URL(`../../dist/orchestrator/artifacts/${name}.js`, import.meta.url).href);
}

export const scriptArgs = (script: string): string[] => ['--input-type=module', '-e', script];

/** Runs a module in a process of its own; answers what it printed. */
export async function runScript(script: string, env: Record<string, string> = {}): Promise<string> {
  const { stdout } = await promisify(execFile)(process.execPath, scriptArgs(script), {
    env: { ...process.env, ...env },
    timeout: 100_000,
  });
  return stdout.trim();
}

/** Why no small disk can be mounted for a test, null when one can. */
export function mountRefusal(): string | null {
  if (S3_SERVER_REFUSAL !== null) return S3_SERVER_REFUSAL;
  if (process.platform !== 'linux' || process.getuid?.() !== 0) return 'mounting needs root on Linux';
  const probe = spawnSync('unshare', ['-m', 'mount', '-t', 'tmpfs', 'tmpfs', '/mnt'], { encoding: 'utf8' });
  return probe.status === 0 ? null : `mount is refused here: ${probe.error?.message ?? probe.stderr.trim()}`;
}
