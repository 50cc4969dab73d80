/** Small records in a folder: `jobs/<key>.json`, `checkpoints/<key>/<step>.json`, and what `probe` writes. */
import { randomBytes } from 'node:crypto';
import { readdir, readFile, rm, unlink } from 'node:fs/promises';
import { dirname, join } from 'node:path';

import { createFile, isMissing, moveAside, replaceFile, syncFolder } from './durable-file.js';
import { asStoreError, StoreUnavailableError } from './errors.js';
import type { RecordSpace } from './store-parts.js';

/** A store with less room than this is of no use: the smallest checkpoint is larger. */
const PROBE_BYTES = 1 << 20;

export class RecordFolder implements RecordSpace {
  readonly #root: string;

  constructor(root: string) {
    this.#root = root;
  }

  async read(name: string): Promise<string | null> {
    const path = join(this.#root, name);
    return readFile(path, 'utf8').catch((error: unknown) => {
      if (isMissing(error)) return null;
      throw asStoreError(error, path);
    });
  }

  create(name: string, text: string): Promise<boolean> {
    return createFile(join(this.#root, name), text);
  }

  async remove(names: readonly string[]): Promise<void> {
    const folders = new Set<string>();
    for (const name of names) {
      const path = join(this.#root, name);
      await unlink(path).catch((error: unknown) => {
        if (!isMissing(error)) throw asStoreError(error, path);
      });
      folders.add(dirname(path));
    }
    for (const folder of folders) await syncFolder(folder);
  }

  async names(folder: string): Promise<string[]> {
    return readdir(join(this.#root, folder)).catch((error: unknown) => {
      if (isMissing(error)) return [];
      throw asStoreError(error, join(this.#root, folder));
    });
  }

  setAside(name: string): Promise<string | null> {
    return moveAside(join(this.#root, name), join(this.#root, 'damaged'));
  }

  async probe(): Promise<void> {
    const path = join(this.#root, 'probe', randomBytes(8).toString('hex'));
    const bytes = randomBytes(PROBE_BYTES);
    try {
      await replaceFile(path, bytes);
      const back = await readFile(path);
      if (!back.equals(bytes))
        throw Object.assign(new Error('other bytes came back than were written'), { code: 'EIO' });
      await unlink(path);
    } catch (error) {
      await rm(path, { force: true }).catch(() => undefined);
      if (error instanceof StoreUnavailableError) throw error;
      const code = (error as NodeJS.ErrnoException).code ?? 'EIO';
      throw new StoreUnavailableError({ path: this.#root, code, cause: error });
    }
  }
}
