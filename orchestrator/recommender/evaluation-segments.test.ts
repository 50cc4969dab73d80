import { describe, expect, it } from 'vitest';
import { datasetFromSequences } from './dataset.js';
import { activitySegments, popularitySegments } from './evaluation-segments.js';
import { exposureOf, giniOf } from './exposure.js';
import { testUsersOf } from './source-rankings.js';

/** A user of `length` events: item 0 again and again, then `last` as the test event. */
const user = (length: number, last: number): number[] => [...new Array<number>(length - 1).fill(0), last];

describe('segments', () => {
  it('of activity are terciles of the history with their bounds, a length never split', () => {
    const dataset = datasetFromSequences([3, 3, 4, 5, 5, 5, 9, 12, 30].map((length) => user(length, 1)));
    const { groups, groupOf } = activitySegments(dataset, testUsersOf(dataset));
    expect(groups).toEqual([
      { name: 'short', eventsMin: 2, eventsMax: 3, users: 3 },
      { name: 'medium', eventsMin: 4, eventsMax: 4, users: 3 },
      { name: 'long', eventsMin: 8, eventsMax: 29, users: 3 },
    ]);
    expect([...groupOf]).toEqual([0, 0, 0, 1, 1, 1, 2, 2, 2]);
  });

  it('of popularity have about a third of the training events each', () => {
    // Training events: item 0 four times, items 1 and 2 twice, items 3 to 6 once; items 7 never.
    const dataset = datasetFromSequences([
      [0, 0, 0, 0, 9, 0],
      [1, 1, 2, 2, 9, 1],
      [3, 4, 5, 6, 9, 7],
    ]);
    const { groups, groupOf } = popularitySegments(dataset, testUsersOf(dataset));
    expect(groups.map(({ items, eventShare }) => [items, Math.round(12 * eventShare)])).toEqual([
      [1, 4],
      [2, 4],
      [7, 4],
    ]);
    expect([...groupOf]).toEqual([0, 1, 2]);
  });
});

describe('exposure', () => {
  it('counts each item within the first k of anyone', () => {
    const ranking = { ranks: [], shown: Int32Array.of(0, 1, 0, 2, 0, -1), width: 2 };
    const { coverage, gini } = exposureOf(ranking, { cutoffs: [1, 2], itemCount: 4 });
    expect(coverage).toEqual({ 1: 0.25, 2: 0.75 });
    expect(gini['1']).toBeCloseTo(0.75);
  });

  it('has Gini 0 when all are shown alike, and (n − 1) / n when one is shown only', () => {
    expect(giniOf(Float64Array.of(3, 3, 3))).toBeCloseTo(0);
    expect(giniOf(Float64Array.of(0, 0, 9, 0))).toBeCloseTo(0.75);
    expect(giniOf(Float64Array.of(0, 0))).toBe(0);
  });
});
