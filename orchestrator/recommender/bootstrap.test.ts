import { describe, expect, it } from 'vitest';
import { differenceIntervals, intervalsOf, resampledMeans } from './bootstrap.js';
import { RANDOM_SITES, RandomSequence } from './random.js';
import { metricsOf } from './ranking-metrics.js';

const CUTOFFS = [1, 10];
const options = { cutoffs: CUTOFFS, resamples: 1000, seed: 5 };

/** 400 users, a fifth of them found at rank 1. */
const some = Array.from({ length: 400 }, (_, user) => (user % 5 === 0 ? 1 : null));

function meansOf(ranks: Record<string, (number | null)[]>, seed = 5): ReturnType<typeof resampledMeans> {
  return resampledMeans(new Map(Object.entries(ranks)), { ...options, seed });
}

describe('resampled means', () => {
  it('are those of metricsOf on the users drawn', () => {
    const ranks = Array.from({ length: 60 }, (_, user) => (user % 3 === 0 ? null : (user % 14) + 1));
    const own = meansOf({ a: ranks }).get('a');
    const random = new RandomSequence({ seed: 5, site: RANDOM_SITES.bootstrap, stream: 7 });
    const drawn = ranks.map(() => ranks[Math.floor((random.u32() * 60) / 4294967296)] ?? null);
    const { hr, ndcg } = metricsOf(drawn, CUTOFFS);
    expect(own?.hr.map((values) => values[7])).toEqual(CUTOFFS.map((k) => hr[k]));
    expect(own?.ndcg[1]?.[7]).toBeCloseTo(ndcg['10'] ?? 0, 12);
  });

  it('spread as a share of so many users does: ±1.96 √(p(1−p)/n)', () => {
    const own = meansOf({ some }).get('some');
    const { low, high } = intervalsOf(own ?? { hr: [], ndcg: [] }, CUTOFFS).hr['1'] ?? { low: 0, high: 0 };
    const half = 1.96 * Math.sqrt((0.2 * 0.8) / 400);
    expect(Math.abs(0.2 - half - low)).toBeLessThan(0.006);
    expect(Math.abs(0.2 + half - high)).toBeLessThan(0.006);
  });

  it('are a function of the seed', () => {
    expect(meansOf({ some })).toEqual(meansOf({ some }));
    expect(meansOf({ some }, 6)).not.toEqual(meansOf({ some }));
  });
});

describe('differences', () => {
  const [none, exact] = [{ low: 0, high: 0 }, some.map((rank) => rank)];

  it('are paired: a source less itself is exactly zero, whoever is drawn', () => {
    const means = meansOf({ some, exact });
    const [a, b] = [means.get('some'), means.get('exact')];
    if (!a || !b) throw new Error('no means');
    expect(differenceIntervals(a, b, CUTOFFS)).toEqual({ hr: { 1: none, 10: none }, ndcg: { 1: none, 10: none } });
  });

  it('of a source that finds everything that the other does, and more, lie above zero', () => {
    const more = some.map((rank, user) => rank ?? (user % 5 === 1 ? 2 : null));
    const means = meansOf({ some, more });
    const [a, b] = [means.get('more'), means.get('some')];
    if (!a || !b) throw new Error('no means');
    expect(differenceIntervals(a, b, CUTOFFS).hr['10']?.low).toBeGreaterThan(0.1);
    expect(differenceIntervals(a, b, CUTOFFS).hr['1']).toEqual(none);
  });
});
