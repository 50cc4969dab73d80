/**
 * `objects/<sha256>`: files named by their content.
 *
 * 1. A path is handed out only after its bytes were hashed, once per process as long as the file does not change
 *    (inode, size, modification and change time).
 * 2. A damaged object is moved to `damaged/`, so that its name is free for the bytes that belong there.
 */
import { copyFile, open, readdir, readFile, stat, unlink, type FileHandle } from 'node:fs/promises';
import { join } from 'node:path';

import type { Digest } from '../../workflows/contract.js';
import { copyByDigest, hashChunks, isMissing, moveAside, TEMPORARY_PREFIX } from './durable-file.js';
import { asStoreError, CorruptArtifactError } from './errors.js';
import { isDigest } from './job-key.js';
import type { Amount, GarbageLimits } from './artifact-store.js';
import type { ObjectSpace } from './store-parts.js';

export class ObjectFolder implements ObjectSpace {
  readonly #folder: string;
  readonly #damaged: string;
  /** Digest to what the file looked like when it was verified. */
  readonly #verified = new Map<Digest, string>();

  constructor(root: string) {
    this.#folder = join(root, 'objects');
    this.#damaged = join(root, 'damaged');
  }

  async putFile(path: string): Promise<Digest> {
    const source = await open(path, 'r').catch((error: unknown) => {
      throw asStoreError(error, path);
    });
    try {
      return await this.#put(source);
    } finally {
      await source.close();
    }
  }

  putBytes(bytes: Uint8Array): Promise<Digest> {
    return this.#put(bytes);
  }

  async has(digest: Digest): Promise<boolean> {
    return (await this.#look(digest)) !== null;
  }

  /** Size in bytes; 0 when missing. */
  async sizeOf(digest: Digest): Promise<number> {
    const found = await stat(this.#pathOf(digest)).catch((error: unknown) => this.#absent(error));
    return found?.size ?? 0;
  }

  async localPath(digest: Digest): Promise<string> {
    const path = this.#pathOf(digest);
    const before = await this.#look(digest);
    if (before === null) throw new CorruptArtifactError({ digest, found: 'nothing' });
    if (this.#verified.get(digest) === before) return path;
    const actual = await this.#hash(path);
    if (actual === digest) {
      this.#verified.set(digest, before);
      return path;
    }
    const movedTo = await moveAside(path, this.#damaged);
    throw new CorruptArtifactError({ digest, found: `bytes with the SHA-256 ${actual}`, movedTo });
  }

  async readBytes(digest: Digest): Promise<Buffer> {
    const path = await this.localPath(digest);
    return readFile(path).catch((error: unknown) => {
      throw asStoreError(error, path);
    });
  }

  async verify(digest: Digest): Promise<void> {
    await this.localPath(digest);
  }

  /** The paths are the objects themselves: nothing to give back. */
  release(): Promise<void> {
    return Promise.resolve();
  }

  async copyTo(digest: Digest, target: string): Promise<void> {
    const path = await this.localPath(digest);
    await copyFile(path, target).catch((error: unknown) => {
      throw asStoreError(error, target);
    });
  }

  /** Removes objects and stray temporary files older than the limit, except those that `keep` holds. */
  async sweep(keep: ReadonlySet<Digest>, { olderThanSeconds, dryRun = false }: GarbageLimits): Promise<Amount> {
    const removed = { objects: 0, bytes: 0 };
    const limitMs = Date.now() - olderThanSeconds * 1000;
    for (const name of await this.#names()) {
      if (keep.has(name) || !(name.startsWith(TEMPORARY_PREFIX) || isDigest(name))) continue;
      const path = join(this.#folder, name);
      const found = await stat(path).catch((error: unknown) => this.#absent(error));
      if (found === null || found.mtimeMs > limitMs) continue;
      if (!dryRun) {
        await unlink(path).catch((error: unknown) => this.#absent(error));
        this.#verified.delete(name);
      }
      removed.objects += 1;
      removed.bytes += found.size;
    }
    return removed;
  }

  async *list(): AsyncGenerator<{ digest: Digest; bytes: number }> {
    for (const digest of await this.#names()) {
      if (!isDigest(digest)) continue;
      const found = await stat(this.#pathOf(digest)).catch((error: unknown) => this.#absent(error));
      if (found !== null) yield { digest, bytes: found.size };
    }
  }

  #names(): Promise<string[]> {
    return readdir(this.#folder).catch((error: unknown) => this.#absent(error) ?? []);
  }

  async #put(source: FileHandle | Uint8Array): Promise<Digest> {
    // Renamed over an existing object on purpose: equal bytes do no harm, and damaged ones are healed.
    const digest = await copyByDigest({ source, folder: this.#folder, pathOf: (name) => this.#pathOf(name) });
    const state = await this.#look(digest);
    if (state !== null) this.#verified.set(digest, state);
    return digest;
  }

  #pathOf(digest: Digest): string {
    if (!isDigest(digest)) throw new TypeError(`expected a SHA-256 in lower-case hex, got "${String(digest)}"`);
    return join(this.#folder, digest);
  }

  /** What the file looks like from outside; null when there is none. */
  async #look(digest: Digest): Promise<string | null> {
    const found = await stat(this.#pathOf(digest), { bigint: true }).catch((error: unknown) => this.#absent(error));
    return found === null ? null : [found.ino, found.size, found.mtimeNs, found.ctimeNs].join(':');
  }

  async #hash(path: string): Promise<Digest> {
    try {
      const file = await open(path, 'r');
      try {
        return await hashChunks(file);
      } finally {
        await file.close();
      }
    } catch (error) {
      throw asStoreError(error, path);
    }
  }

  #absent(error: unknown): null {
    if (isMissing(error)) return null;
    throw asStoreError(error, this.#folder);
  }
}
