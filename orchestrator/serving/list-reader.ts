/**
 * Reads the lists of the generation that is current, and follows when another one is published.
 *
 * 1. Reads are synchronous look-ups in a memory map; a swap happens between two reads, never within one.
 * 2. A new generation that cannot be opened leaves the old one in service; the reason is reported once.
 */
import { statSync } from 'node:fs';
import { join } from 'node:path';

import { isMissing } from '../artifacts/durable-file.js';
import {
  currentPath,
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
  /** Least time between two looks at CURRENT. */
  followIntervalMs?: number;
  onSwap?: (meta: GenerationMeta) => void;
  onWarning?: (message: string) => void;
}

const FOLLOW_INTERVAL_MS = 250;

export class ListReader {
  readonly #options: Required<ListReaderOptions>;
  #open: { generation: Generation; meta: GenerationMeta } | null = null;
  #lookedAtMs = -Infinity;
  /** What CURRENT looked like at the last look, so that a failing generation is reported once. */
  #seen = '';

  constructor({ followIntervalMs = FOLLOW_INTERVAL_MS, onSwap = () => undefined, onWarning = () => undefined, servingDir }: ListReaderOptions) {
    this.#options = { servingDir, followIntervalMs, onSwap, onWarning };
    this.follow();
  }

  /** The generation being served; null before the first publication. */
  get meta(): GenerationMeta | null {
    this.#followIfDue();
    return this.#open?.meta ?? null;
  }

  /** At most `k` items, best first, without those of the user's history and those of `exclude`. */
  recommend({ user, k, exclude = [] }: { user: string; k: number; exclude?: readonly string[] }): Recommendation {
    this.#followIfDue();
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

  /** Looks at CURRENT now, and switches when it names another generation. */
  follow(): void {
    this.#lookedAtMs = performance.now();
    const { servingDir, onSwap, onWarning } = this.#options;
    const look = fileLook(currentPath(servingDir));
    if (look === this.#seen) return;
    this.#seen = look;
    try {
      const current = readCurrent(servingDir);
      if (current === null || current.generation === this.#open?.meta.generation) return;
      const generation = openGeneration(join(generationsDir(servingDir), current.generation), { readOnly: true });
      const meta = generation.meta.get(META_KEY);
      if (meta === undefined) {
        void generation.root.close();
        throw new Error(`generation ${current.generation} has no description; publish again`);
      }
      const old = this.#open;
      this.#open = { generation, meta };
      void old?.generation.root.close();
      onSwap(meta);
    } catch (error) {
      onWarning(`serving stays with ${this.#open?.meta.generation ?? 'nothing'}: ${String(error)}`);
    }
  }

  async close(): Promise<void> {
    const open = this.#open;
    this.#open = null;
    this.#lookedAtMs = Infinity;
    await open?.generation.root.close();
  }

  #followIfDue(): void {
    if (performance.now() - this.#lookedAtMs >= this.#options.followIntervalMs) this.follow();
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
