import { existsSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import { CooccurrenceScorer, cooccurrenceRanks, similarityRows, tuneCooccurrence } from './cooccurrence.js';
import { datasetFromSequences } from './dataset.js';
import { ingest } from './ingest.js';
import { popularityRanks } from './popularity.js';
import { RANDOM_SITES, RandomSequence } from './random.js';
import { metricsOf, rankByScore } from './ranking-metrics.js';

const SHARED = fileURLToPath(new URL('../../../shared/data/', import.meta.url));

describe('co-occurrence', () => {
  it('weighs pairs by distance and direction and normalises by item counts', () => {
    // Training parts: [0, 1, 2] and [1, 0]; the two last events of each are targets.
    const dataset = datasetFromSequences([
      [0, 1, 2, 3, 3],
      [1, 0, 3, 3],
    ]);
    const rows = similarityRows(dataset, { window: 2, backwardWeight: 0.5 });
    const scores = new CooccurrenceScorer(rows, 0.5).scoresOf([2, 0]);
    // From 0 (weight 1): 1 after it at distance 1 (1) and before it (0.5), counts 2 and 2; 2 after it at distance 2, counts 2 and 1.
    const fromZero = { one: 1.5 / 2, two: Math.SQRT1_2 / Math.SQRT2 };
    // From 2 (weight 0.5): 1 before it at distance 1, 0 before it at distance 2, both backward.
    const fromTwo = { one: 0.5 / Math.SQRT2, zero: (0.5 * Math.SQRT1_2) / Math.SQRT2 };
    expect(scores[1]).toBeCloseTo(fromZero.one + 0.5 * fromTwo.one, 12);
    expect(scores[2]).toBeCloseTo(fromZero.two, 12);
    expect(scores[0]).toBeCloseTo(0.5 * fromTwo.zero, 12);
    expect(scores[3]).toBe(0);
  });

  it('ranks as a full ranking by score would, ties and zero scores included', () => {
    const random = new RandomSequence({ seed: 3, site: RANDOM_SITES.test, stream: 0 });
    const sequences = Array.from({ length: 40 }, () => [...random.permutation(30)].slice(0, 3 + random.below(5)));
    const dataset = datasetFromSequences(sequences);
    const scorer = new CooccurrenceScorer(similarityRows(dataset, { window: 3, backwardWeight: 0.7 }), 0.6);
    for (const sequence of sequences) {
      const history = sequence.slice(0, -1);
      for (let target = 0; target < dataset.itemCount; target += 1) {
        const full = rankByScore(scorer.scoresOf(history), target, new Set(history));
        expect(scorer.rankOf(target, history)).toBe(full);
      }
    }
  });

  it('tunes on validation targets only', () => {
    const random = new RandomSequence({ seed: 4, site: RANDOM_SITES.test, stream: 0 });
    const sequences = Array.from({ length: 50 }, () => [...random.permutation(20)].slice(0, 8));
    const otherTests = sequences.map((sequence) => [...sequence.slice(0, -1), random.below(20)]);
    const grid = { windows: [1, 4], backwardWeights: [0, 1], historyDecays: [0.3, 1] };
    expect(tuneCooccurrence(datasetFromSequences(sequences), grid)).toEqual(
      tuneCooccurrence(datasetFromSequences(otherTests), grid),
    );
  });
});

/** Published rows of HR@5, NDCG@5, HR@10, NDCG@10; equal scores rank in another order there, hence the tolerance. */
const REFERENCES = [
  {
    name: 'amazon14_beauty',
    popularity: [0.0075, 0.0041, 0.0115, 0.0055],
    rows: [
      { settings: { window: 20, backwardWeight: 1, historyDecay: 0.8 }, expected: [0.0538, 0.0385, 0.0736, 0.0448] },
      { settings: { window: 20, backwardWeight: 0.7, historyDecay: 0.6 }, expected: [0.0587, 0.0428, 0.0784, 0.0492] },
    ],
  },
  {
    name: 'amazon18_scientific',
    popularity: [0.0158, 0.014, 0.0245, 0.0167],
    rows: [
      { settings: { window: 20, backwardWeight: 1, historyDecay: 0.8 }, expected: [0.0844, 0.0694, 0.1064, 0.0764] },
    ],
  },
];
const TOLERANCE = 0.0007;

describe.each(REFERENCES)('references on $name (skipped without ../shared)', ({ name, popularity, rows }) => {
  const interactions = `${SHARED}${name}/sequences.txt.gz`;
  it.skipIf(!existsSync(interactions))('are reproduced', { timeout: 60_000 }, async () => {
    const recipe = { format: 's3rec' as const, minEventsPerUser: 1, minEventsPerItem: 1, columns: null };
    const { dataset } = await ingest({ interactions, items: null }, recipe);
    const rowOf = (ranks: (number | null)[]): number[] => {
      const { hr, ndcg } = metricsOf(ranks, [5, 10]);
      return [hr['5'], ndcg['5'], hr['10'], ndcg['10']].map((value) => value ?? 0);
    };
    const distance = (measured: number[], expected: number[]): number =>
      Math.max(...measured.map((value, i) => Math.abs(value - (expected[i] ?? 0))));
    expect(distance(rowOf(popularityRanks(dataset, 'test')), popularity)).toBeLessThan(0.0001);
    for (const { settings, expected } of rows) {
      expect(distance(rowOf(cooccurrenceRanks(dataset, 'test', settings)), expected)).toBeLessThan(TOLERANCE);
    }
  });
});
