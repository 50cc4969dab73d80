/**
 * Reads the lists of the generation that is current, and follows when another one is published.
 *
 * 1. Reads are synchronous look-ups in a memory map; a swap happens between two reads, never within one.
 * 2. A generation is verified before it is opened. A damaged one leaves the old one in service (at the start: the one
 *    before it); the reason is reported once.
 */
import { statSync } from 'node:fs';
import { join } from 'node:path';

import { isMissing } from '../artifacts/durable-file.js';
import {
  currentPath,
  damageOf,
  generationsDir,
  keyOf,
  META_KEY,
  openGeneration,
  readCurrent,
  type Generation,
  type GenerationMeta,
} from './generation.js';

export interface Recommendation {
  user: string;
  items: { item: string; title: string; score: number }[];
  historyHash: string;
  meta: GenerationMeta;
}

export class UnknownUserError extends Error {
  override readonly name = 'UnknownUserError';
}

export class NothingPublishedError extends Error {
  override readonly name = 'NothingPublishedError';
}

export interface ListReaderOptions {
  servingDir: string;
  /** Time between two looks at CURRENT. */
  followIntervalMs?: number;
  onSwap?: (meta: GenerationMeta) => void;
  onWarning?: (message: string) => void;
}

const FOLLOW_INTERVAL_MS = 250;

export class ListReader {
  readonly #options: Required<ListReaderOptions>;
  #open: { generation: Generation; meta: GenerationMeta } | null = null;
  /** What CURRENT looked like at the last look, so that a failing generation is reported once. */
  #seen = '';
  #following: Promise<void> = Promise.resolve();
  #timer: NodeJS.Timeout | undefined;

  private constructor(options: Required<ListReaderOptions>) {
    this.#options = options;
  }

  /** Opens the current generation, if there is one, and goes on following. */
  static async open(options: ListReaderOptions): Promise<ListReader> {
    const { servingDir, followIntervalMs = FOLLOW_INTERVAL_MS } = options;
    const { onSwap = () => undefined, onWarning = () => undefined } = options;
    const reader = new ListReader({ servingDir, followIntervalMs, onSwap, onWarning });
    await reader.follow();
    reader.#timer = setInterval(() => void reader.follow(), followIntervalMs);
    reader.#timer.unref();
    return reader;
  }

  /** The generation being served; null before the first publication. */
  get meta(): GenerationMeta | null {
    return this.#open?.meta ?? null;
  }

  /** At most `k` items, best first, without those of the user's history and those of `exclude`. */
  recommend({ user, k, exclude = [] }: { user: string; k: number; exclude?: readonly string[] }): Recommendation {
    if (this.#open === null) {
      throw new NothingPublishedError(
        `nothing has been published in ${this.#options.servingDir} yet; finish a run with "publish: true" first`,
      );
    }
    const { generation, meta } = this.#open;
    const list = generation.lists.get(keyOf(user));
    if (list === undefined) {
      throw new UnknownUserError(
        `user "${user}" has no list in generation ${meta.generation}, which holds ${String(meta.users)} users; ` +
          `check the id, or publish a run whose data has this user`,
      );
    }
    const left = new Set([...list.seen, ...exclude]);
    const items: Recommendation['items'] = [];
    for (const [rank, item] of list.items.entries()) {
      if (items.length >= k) break;
      if (left.has(item)) continue;
      items.push({ item, title: generation.titles.get(keyOf(item)) ?? '', score: list.scores[rank] ?? 0 });
    }
    return { user, items, historyHash: list.historyHash, meta };
  }

  /** Looks at CURRENT now, and switches when it names another generation. Never rejects. */
  follow(): Promise<void> {
    this.#following = this.#following.then(() => this.#follow()).catch((error: unknown) => this.#warn(String(error)));
    return this.#following;
  }

  async close(): Promise<void> {
    clearInterval(this.#timer);
    await this.#following;
    const open = this.#open;
    this.#open = null;
    await open?.generation.root.close();
  }

  async #follow(): Promise<void> {
    const { servingDir } = this.#options;
    const look = fileLook(currentPath(servingDir));
    if (look === this.#seen) return;
    this.#seen = look;
    const current = readCurrent(servingDir);
    if (current === null) return;
    if (await this.#switchTo(current.generation)) return;
    if (this.#open === null && current.previous !== null) await this.#switchTo(current.previous);
  }

  async #switchTo(name: string): Promise<boolean> {
    if (name === this.#open?.meta.generation) return true;
    const folder = join(generationsDir(this.#options.servingDir), name);
    const damage = await damageOf(folder);
    if (damage !== null) {
      this.#warn(`generation ${name} is damaged, publish it again: ${damage}`);
      return false;
    }
    const generation = openGeneration(folder, { readOnly: true });
    const meta = generation.meta.get(META_KEY);
    if (meta === undefined) {
      await generation.root.close();
      this.#warn(`generation ${name} has no description, publish it again`);
      return false;
    }
    const old = this.#open;
    this.#open = { generation, meta };
    this.#options.onSwap(meta);
    await old?.generation.root.close();
    return true;
  }

  #warn(message: string): void {
    this.#options.onWarning(`serving stays with ${this.#open?.meta.generation ?? 'nothing'}: ${message}`);
  }
}

function fileLook(path: string): string {
  try {
    const { ino, size, mtimeNs } = statSync(path, { bigint: true });
    return [ino, size, mtimeNs].join(':');
  } catch (error) {
    if (isMissing(error)) return 'missing';
    throw error;
  }
}
