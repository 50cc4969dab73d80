/**
 * How a source spreads what it shows over the catalogue: coverage@k, the share of items in anyone's first k; and the Gini
 * coefficient of how often each item of the catalogue is shown there (0: all alike, towards 1: a few items only).
 */
import { type SourceRanking } from './source-rankings.js';

export type Exposure = { coverage: Record<string, number>; gini: Record<string, number> };

export function exposureOf(
  { shown, width }: SourceRanking,
  { cutoffs, itemCount }: { cutoffs: readonly number[]; itemCount: number },
): Exposure {
  const exposure: Exposure = { coverage: {}, gini: {} };
  for (const k of cutoffs) {
    const counts = new Float64Array(itemCount);
    for (let i = 0; i < shown.length; i += 1) {
      const item = shown[i] ?? -1;
      if (item >= 0 && i % width < k) counts[item] = (counts[item] ?? 0) + 1;
    }
    exposure.coverage[k] = counts.filter((count) => count > 0).length / Math.max(1, itemCount);
    exposure.gini[k] = giniOf(counts);
  }
  return exposure;
}

/** 0 when nothing was counted. */
export function giniOf(counts: Float64Array): number {
  const sorted = counts.slice().sort();
  let total = 0;
  let weighted = 0;
  sorted.forEach((count, i) => {
    total += count;
    weighted += (i + 1) * count;
  });
  const n = sorted.length;
  return total === 0 ? 0 : (2 * weighted) / (n * total) - (n + 1) / n;
}
