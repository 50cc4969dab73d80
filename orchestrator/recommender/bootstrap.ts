/**
 * Percentile bootstrap over users: how far HR@k and NDCG@k, and their differences between two sources, depend on who was asked.
 *
 * 1. A resample draws as many users as there are, with replacement; every source is scored on the same resamples, so that
 *    differences are paired.
 * 2. Draws are a function of (seed, resample): counter-based, no state.
 * 3. A resample is a count for each user; only users whose target a source ranks within the largest cut-off are gone through.
 */
import { RANDOM_SITES, RandomSequence } from './random.js';
import { gainAt } from './ranking-metrics.js';

export type Interval = { low: number; high: number };
export type CutoffIntervals = { hr: Record<string, Interval>; ndcg: Record<string, Interval> };

export interface BootstrapOptions {
  cutoffs: readonly number[];
  resamples: number;
  seed: number;
}

const LOWER = 0.025;
const TWO_32 = 4294967296;

/** Means of one source in every resample. */
export interface ResampledMeans {
  /** [cutoffs][resamples] */
  hr: Float64Array[];
  ndcg: Float64Array[];
}

/** By source. `ranks`: of the same users in the same order for every source. */
export function resampledMeans(
  ranks: ReadonlyMap<string, readonly (number | null)[]>,
  options: BootstrapOptions,
): Map<string, ResampledMeans> {
  const [first = []] = ranks.values();
  const users = first.length;
  const sources = Array.from(ranks, ([name, ofSource]) => ({
    name,
    ...hitsOf(ofSource, options),
    means: room(options),
  }));
  const counts = new Uint16Array(users);
  for (let resample = 0; resample < options.resamples; resample += 1) {
    counts.fill(0);
    const random = new RandomSequence({ seed: options.seed, site: RANDOM_SITES.bootstrap, stream: resample });
    for (let draw = 0; draw < users; draw += 1) {
      const user = Math.floor((random.u32() * users) / TWO_32);
      counts[user] = (counts[user] ?? 0) + 1;
    }
    for (const source of sources) addResample(source, { counts, resample, cutoffs: options.cutoffs });
  }
  return new Map(sources.map(({ name, means }) => [name, means]));
}

export function intervalsOf(means: ResampledMeans, cutoffs: readonly number[]): CutoffIntervals {
  return { hr: byCutoff(means.hr, cutoffs), ndcg: byCutoff(means.ndcg, cutoffs) };
}

/** Of the paired difference `a` − `b`. */
export function differenceIntervals(a: ResampledMeans, b: ResampledMeans, cutoffs: readonly number[]): CutoffIntervals {
  const minus = (left: Float64Array[], right: Float64Array[]): Float64Array[] =>
    left.map((values, c) => values.map((value, resample) => value - (right[c]?.[resample] ?? 0)));
  return intervalsOf({ hr: minus(a.hr, b.hr), ndcg: minus(a.ndcg, b.ndcg) }, cutoffs);
}

interface Hits {
  users: Int32Array;
  ranks: Int32Array;
  gains: Float64Array;
}

function hitsOf(ranks: readonly (number | null)[], { cutoffs }: BootstrapOptions): Hits {
  const largest = Math.max(...cutoffs);
  const found = ranks.flatMap((rank, user) => (rank === null || rank > largest ? [] : [{ user, rank }]));
  return {
    users: Int32Array.from(found, ({ user }) => user),
    ranks: Int32Array.from(found, ({ rank }) => rank),
    gains: Float64Array.from(found, ({ rank }) => gainAt(rank)),
  };
}

function room({ cutoffs, resamples }: BootstrapOptions): ResampledMeans {
  return {
    hr: cutoffs.map(() => new Float64Array(resamples)),
    ndcg: cutoffs.map(() => new Float64Array(resamples)),
  };
}

function addResample(
  { users, ranks, gains, means }: Hits & { means: ResampledMeans },
  { counts, resample, cutoffs }: { counts: Uint16Array; resample: number; cutoffs: readonly number[] },
): void {
  cutoffs.forEach((cutoff, c) => {
    let hits = 0;
    let gain = 0;
    for (let i = 0; i < users.length; i += 1) {
      if ((ranks[i] ?? 0) > cutoff) continue;
      const count = counts[users[i] ?? 0] ?? 0;
      hits += count;
      gain += count * (gains[i] ?? 0);
    }
    means.hr[c]?.set([hits / counts.length], resample);
    means.ndcg[c]?.set([gain / counts.length], resample);
  });
}

function byCutoff(values: Float64Array[], cutoffs: readonly number[]): Record<string, Interval> {
  return Object.fromEntries(cutoffs.map((cutoff, c) => [cutoff, percentiles(values[c] ?? new Float64Array())]));
}

function percentiles(values: Float64Array): Interval {
  const sorted = values.slice().sort();
  const at = (share: number): number => sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))] ?? 0;
  return { low: at(LOWER), high: at(1 - LOWER) };
}
