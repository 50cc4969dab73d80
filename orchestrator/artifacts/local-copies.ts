/**
 * This machine's copies of a remote store's objects: `objects/<sha256>`, shared by all processes that use the folder.
 *
 * 1. A copy appears whole, under the SHA-256 of its bytes, and is hashed once more by every process that first uses it.
 * 2. A process uses a copy under a name of its own, `in-use/<host>~<pid>~<random>/<sha256>`, a hard link: whoever makes room can take the
 *    shared name away but never the bytes from under a user. Links of dead processes are swept.
 * 3. Room is made when the copies exceed the limit: the least recently used go first, those in use never. So the limit may be
 *    exceeded by what is in use. On a disk that is full before that, all that is not in use goes.
 */
import { randomBytes } from 'node:crypto';
import { rmSync } from 'node:fs';
import { link, mkdir, open, readdir, rm, stat, unlink, utimes } from 'node:fs/promises';
import { homedir, hostname } from 'node:os';
import { join } from 'node:path';

import type { Digest } from '../../workflows/contract.js';
import { copyByDigest, hashChunks, isMissing, TEMPORARY_PREFIX } from './durable-file.js';
import { asStoreError, StoreAddressError } from './errors.js';

const BYTES_MAX = 64 * 2 ** 30;
/** Of temporary files, and of the links of another machine's processes, which cannot be asked. */
const STALE_MS = 24 * 3_600_000;

export interface LocalCopiesOptions {
  folder?: string;
  bytesMax?: number;
}

class OtherBytesError extends Error {}

export class LocalCopies {
  readonly #objects: string;
  readonly #users: string;
  readonly #mine: string;
  readonly #bytesMax: number;
  /** How often each copy was handed out and not yet given back. */
  readonly #pins = new Map<Digest, number>();
  /** Digest to what the file looked like when it was verified. The change time is left out: links of others change it. */
  readonly #verified = new Map<Digest, string>();

  constructor({ folder = defaultFolder(), bytesMax = defaultBytesMax() }: LocalCopiesOptions = {}) {
    this.#objects = join(folder, 'objects');
    this.#users = join(folder, 'in-use');
    const user = [hostname(), String(process.pid), randomBytes(4).toString('hex')].join('~');
    this.#mine = join(this.#users, user);
    this.#bytesMax = bytesMax;
  }

  /** Path of a verified copy that stays until it is released; null when there is none. */
  async pin(digest: Digest): Promise<string | null> {
    const path = join(this.#mine, digest);
    try {
      if (!this.#pins.has(digest)) await this.#link(digest, path);
      const now = new Date();
      const { ino, size, mtimeNs, mtime } = await stat(path, { bigint: true });
      const state = [ino, size, mtimeNs].join(':');
      if (this.#verified.get(digest) !== state) {
        if ((await hashFile(path)) !== digest) return await this.#drop(digest, path);
        this.#verified.set(digest, state);
      }
      // Explicitly: most file systems are mounted so that reading does not set it. Rounding the other time would change the state.
      await utimes(path, now, mtime).catch(() => undefined);
      const after = await stat(path, { bigint: true });
      this.#verified.set(digest, [after.ino, after.size, after.mtimeNs].join(':'));
      this.#pins.set(digest, (this.#pins.get(digest) ?? 0) + 1);
      return path;
    } catch (error) {
      if (isMissing(error)) return await this.#drop(digest, path);
      throw asStoreError(error, path);
    }
  }

  /** Keeps the bytes when they are the right ones; answers their digest. */
  async add(digest: Digest, chunks: AsyncIterable<Uint8Array>): Promise<Digest> {
    let actual = '';
    const pathOf = (name: Digest): string => {
      actual = name;
      if (name !== digest) throw new OtherBytesError();
      return join(this.#objects, digest);
    };
    try {
      await copyByDigest({ source: chunks, folder: this.#objects, pathOf });
    } catch (error) {
      if (!(error instanceof OtherBytesError)) throw error;
    }
    return actual;
  }

  async release(digests: readonly Digest[]): Promise<void> {
    for (const digest of digests) {
      const left = (this.#pins.get(digest) ?? 0) - 1;
      if (left > 0) this.#pins.set(digest, left);
      else if (this.#pins.delete(digest)) await unlink(join(this.#mine, digest)).catch(() => undefined);
    }
  }

  /** Removes copies until they are below the limit, `keep` and those in use not among them. */
  async makeRoom(keep: Digest): Promise<void> {
    await this.#shrink({ bytesMax: this.#bytesMax, keep });
  }

  /** Removes every copy that is not in use: the disk is full before the limit is. Answers how many bytes that were. */
  async removeUnused(): Promise<number> {
    return this.#shrink({ bytesMax: 0, keep: '' });
  }

  async #shrink({ bytesMax, keep }: { bytesMax: number; keep: Digest }): Promise<number> {
    let removed = 0;
    try {
      await this.#sweepUsers();
      const copies = await this.#list();
      let bytes = copies.reduce((sum, { size }) => sum + size, 0);
      for (const { name, size } of copies.sort((a, b) => a.usedMs - b.usedMs)) {
        if (bytes <= bytesMax) break;
        const path = join(this.#objects, name);
        const found = await stat(path).catch(() => null);
        if (name === keep || found === null || found.nlink > 1) continue;
        // Somebody may link it now: then the bytes stay, under that name. Or make room too, and be faster.
        await rm(path, { force: true });
        bytes -= size;
        removed += size;
      }
      return removed;
    } catch (error) {
      throw asStoreError(error, this.#objects);
    }
  }

  async #link(digest: Digest, path: string): Promise<void> {
    await mkdir(this.#mine, { recursive: true });
    atExit.add(this.#mine);
    await link(join(this.#objects, digest), path).catch((error: unknown) => {
      if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
    });
  }

  /** There is no copy, or none to be trusted. */
  async #drop(digest: Digest, path: string): Promise<null> {
    this.#verified.delete(digest);
    this.#pins.delete(digest);
    for (const name of [path, join(this.#objects, digest)]) await rm(name, { force: true });
    return null;
  }

  async #list(): Promise<{ name: string; size: number; usedMs: number }[]> {
    const copies: { name: string; size: number; usedMs: number }[] = [];
    const names = await readdir(this.#objects).catch((error: unknown) => {
      if (isMissing(error)) return [];
      throw error;
    });
    for (const name of names) {
      const path = join(this.#objects, name);
      const found = await stat(path).catch((error: unknown) => {
        if (isMissing(error)) return null;
        throw error;
      });
      if (found === null) continue;
      if (!name.startsWith(TEMPORARY_PREFIX)) copies.push({ name, size: found.size, usedMs: found.atimeMs });
      else if (Date.now() - found.mtimeMs > STALE_MS) await rm(path, { force: true });
    }
    return copies;
  }

  async #sweepUsers(): Promise<void> {
    for (const user of await readdir(this.#users).catch(() => [])) {
      const path = join(this.#users, user);
      if (!(await isInUse(user, path))) await rm(path, { recursive: true, force: true });
    }
  }
}

async function isInUse(user: string, path: string): Promise<boolean> {
  const [host, pid] = user.split('~');
  if (host !== hostname()) {
    const found = await stat(path).catch(() => null);
    return found !== null && Date.now() - found.mtimeMs < STALE_MS;
  }
  try {
    process.kill(Number(pid), 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM';
  }
}

async function hashFile(path: string): Promise<Digest> {
  const file = await open(path, 'r');
  try {
    return await hashChunks(file);
  } finally {
    await file.close();
  }
}

/** COLLIMATE_STORE_CACHE, or a folder below the one that the operating system has for such things. */
function defaultFolder(): string {
  const given = process.env['COLLIMATE_STORE_CACHE'];
  if (given !== undefined && given !== '') return given;
  const base =
    process.platform === 'darwin'
      ? join(homedir(), 'Library', 'Caches')
      : (process.env['XDG_CACHE_HOME'] ?? join(homedir(), '.cache'));
  return join(base, 'collimate', 'store');
}

function defaultBytesMax(): number {
  const given = process.env['COLLIMATE_STORE_CACHE_GB'];
  if (given === undefined || given === '') return BYTES_MAX;
  const gigabytes = Number(given);
  if (!(gigabytes > 0)) {
    throw new StoreAddressError(`COLLIMATE_STORE_CACHE_GB: expected a number above 0, got "${given}"`);
  }
  return gigabytes * 2 ** 30;
}

/** Links of this process, which go with it. */
const atExit = new Set<string>();
process.once('exit', () => {
  for (const folder of atExit) rmSync(folder, { recursive: true, force: true });
});
