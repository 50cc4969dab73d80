/**
 * HR@k and NDCG@k of full rankings with one relevant item a user.
 *
 * 1. Ranks start at 1; null means that the target was not ranked at all and counts as a miss at every k.
 * 2. Every user of the part is in the denominator, whether or not it got a list.
 */
import { log } from './portable-math.js';

export type CutoffMetrics = {
  /** k to HR@k, averaged over users. */
  hr: Record<string, number>;
  ndcg: Record<string, number>;
};

export function metricsOf(ranks: readonly (number | null)[], cutoffs: readonly number[]): CutoffMetrics {
  const metrics: CutoffMetrics = { hr: {}, ndcg: {} };
  for (const k of cutoffs) {
    let hits = 0;
    let gain = 0;
    for (const rank of ranks) {
      if (rank === null || rank > k) continue;
      hits += 1;
      gain += gainAt(rank);
    }
    metrics.hr[k] = ranks.length === 0 ? 0 : hits / ranks.length;
    metrics.ndcg[k] = ranks.length === 0 ? 0 : gain / ranks.length;
  }
  return metrics;
}

/** Rank of `target` among all items by score, best first; equal scores rank by item index. `removed` items do not count. */
export function rankByScore(scores: ArrayLike<number>, target: number, removed: ReadonlySet<number>): number | null {
  if (removed.has(target)) return null;
  const own = scores[target] ?? 0;
  let rank = 1;
  for (let item = 0; item < scores.length; item += 1) {
    const score = scores[item] ?? 0;
    if (score > own || (score === own && item < target)) rank += removed.has(item) ? 0 : 1;
  }
  return rank;
}

/** Rank of `target` in a list of items, best first: removed items, repeats and the −1 behind the end do not count. */
export function rankInList(list: ArrayLike<number>, target: number, removed: ReadonlySet<number>): number | null {
  const counted = new Set<number>();
  for (let i = 0; i < list.length; i += 1) {
    const item = list[i] ?? -1;
    if (item < 0 || removed.has(item) || counted.has(item)) continue;
    counted.add(item);
    if (item === target) return counted.size;
  }
  return null;
}

export function gainAt(rank: number): number {
  return rank === 1 ? 1 : Math.LN2 / log(rank + 1);
}
