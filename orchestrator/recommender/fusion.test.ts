import { describe, expect, it } from 'vitest';
import { CooccurrenceScorer, similarityRows } from './cooccurrence.js';
import { datasetFromSequences, knownEventsOf, targetOf } from './dataset.js';
import { fitWeights, type FittedUser, fusedList, FusionSources } from './fusion.js';
import { log } from './portable-math.js';
import { RANDOM_SITES, RandomSequence } from './random.js';

const SETTINGS = { window: 5, backwardWeight: 0.5, historyDecay: 0.6 };
const FORM = { candidates: 2, cooccurrenceFloor: 1e-3, missingMargin: 1 };

const DATASET = datasetFromSequences([
  [0, 1, 2, 3, 4],
  [0, 1, 3, 2, 5],
  [1, 0, 3, 4, 2],
]);

function sourcesWith(items: number[], scores: number[]): FusionSources {
  const list = { items: Int32Array.from(items), scores: Float32Array.from(scores) };
  return new FusionSources(DATASET, FORM, { lists: new Map([['model', new Map([[0, list]])]]), settings: SETTINGS });
}

describe('candidates of a user', () => {
  const history = knownEventsOf(DATASET, 0, 'validation');
  const scorer = new CooccurrenceScorer(similarityRows(DATASET, SETTINGS), SETTINGS.historyDecay);
  const { items, features } = sourcesWith([0, 5, 4, -1], [-1, -2, -4, -1e30]).candidatesOf(0, history);

  it('are those of the lists and the best by co-occurrence, without the history', () => {
    const best = new Int32Array(2);
    const count = scorer.topInto(best, history, 2);
    expect(items).toEqual([...new Set([4, 5, ...best.subarray(0, count)])].sort((a, b) => a - b));
    expect(items.some((item) => history.includes(item))).toBe(false);
  });

  it('have the distance to the list’s best as feature, and below the last what the list lacks', () => {
    const model = new Map(items.map((item, row) => [item, features[2 * row]]));
    expect([model.get(5), model.get(4)]).toEqual([-1, -3]);
    const lacking = items.filter((item) => item !== 4 && item !== 5);
    expect(lacking.length).toBeGreaterThan(0);
    for (const item of lacking) expect(model.get(item)).toBe(-4);
  });

  it('have the logarithm of the co-occurrence score above the floor', () => {
    const scores = scorer.scoresOf(history);
    items.forEach((item, row) => expect(features[2 * row + 1]).toBe(log((scores[item] ?? 0) + 1e-3)));
  });

  it('are ranked by the weighted sum, equal ones by index', () => {
    const candidates = { items: [3, 7, 9], features: Float64Array.of(0, 1, 0, 1, 2, 0) };
    const order = (weights: number[]): number[] => fusedList(candidates, { weights, k: 2 }).map(({ item }) => item);
    expect(order([1, 0])).toEqual([9, 3]);
    expect(order([0, 1])).toEqual([3, 7]);
    expect(order([1, 3])).toEqual([3, 7]);
  });
});

describe('the fit', () => {
  const grid = [0, 0.5, 1, 2];

  /** The target's features are higher by `signal` of each source; the rest is noise. */
  function users(signal: number[]): FittedUser[] {
    return Array.from({ length: 200 }, (_, user) => {
      const random = new RandomSequence({ seed: 1, site: RANDOM_SITES.test, stream: user });
      const target = random.below(50);
      const items = Array.from({ length: 50 }, (_, item) => item);
      const features = Float64Array.from({ length: 50 * signal.length }, (_, i) => {
        const isTarget = Math.floor(i / signal.length) === target;
        return random.normal() + (isTarget ? (signal[i % signal.length] ?? 0) : 0);
      });
      return { items, features, target };
    });
  }

  it('leaves a source of noise out, and uses two that know something together', () => {
    const one = fitWeights(users([2, 0]), { sources: 2, grid });
    expect((one.weights[1] ?? 1) / (one.weights[0] ?? 0)).toBeLessThanOrEqual(0.25);
    const both = fitWeights(users([2, 2]), { sources: 2, grid });
    expect(both.weights[0]).toBe(both.weights[1]);
    expect(both.ndcg).toBeGreaterThan(1.15 * Math.max(...both.alone));
  });

  it('is at least as good as each source alone, on its users', () => {
    for (const signal of [
      [2, 0.1, 1],
      [0, 0, 3],
    ]) {
      const { ndcg, alone } = fitWeights(users(signal), { sources: 3, grid });
      expect(ndcg).toBeGreaterThanOrEqual(Math.max(...alone));
    }
  });

  it('counts a target that is no candidate as a miss', () => {
    const missed = users([3, 3]).map((user) => ({ ...user, target: -1 }));
    expect(fitWeights(missed, { sources: 2, grid }).ndcg).toBe(0);
  });
});

describe('the best by co-occurrence', () => {
  it('are those of a full sort', () => {
    const random = new RandomSequence({ seed: 2, site: RANDOM_SITES.test, stream: 0 });
    const dataset = datasetFromSequences(
      Array.from({ length: 80 }, () => Array.from({ length: 9 }, () => random.below(40))),
    );
    const scorer = new CooccurrenceScorer(similarityRows(dataset, SETTINGS), SETTINGS.historyDecay);
    for (let user = 0; user < 80; user += 1) {
      const history = knownEventsOf(dataset, user, 'test');
      const scores = scorer.scoresOf(history).slice();
      const sorted = Array.from(scores.keys())
        .filter((item) => (scores[item] ?? 0) > 0 && !history.includes(item))
        .sort((a, b) => (scores[b] ?? 0) - (scores[a] ?? 0) || a - b);
      const best = new Int32Array(7);
      const count = scorer.topInto(best, history, 7);
      expect([...best.subarray(0, count)]).toEqual(sorted.slice(0, 7));
      expect(targetOf(dataset, user, 'test')).not.toBeNull();
    }
  });
});
