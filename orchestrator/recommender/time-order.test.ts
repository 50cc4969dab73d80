import { describe, expect, it } from 'vitest';
import { orderByTime } from './time-order.js';

/** By the standard library's stable sort. */
function sortedPositions(times: number[]): number[] {
  return times.map((_, i) => i).sort((a, b) => compare(times[a] ?? 0, times[b] ?? 0));
}

const compare = (a: number, b: number): number => (a < b ? -1 : a > b ? 1 : 0);

describe('orderByTime', () => {
  it.each([
    ['nothing', []],
    ['equal times, in their order', [5, 5, 5]],
    ['zeros of both signs as equal', [0, -0, -1, 0, -0]],
    ['negative, fractional and infinite ones', [1.5, -2, Infinity, -2.25, 0.1, -Infinity, 1e300, -1e-300, 5e-324]],
    ['seconds', Array.from({ length: 2_000 }, (_, i) => 1_500_000_000 + ((i * 7919) % 1_009))],
    ['milliseconds', Array.from({ length: 2_000 }, (_, i) => 1_500_000_000_000 + ((i * 7_919_001) % 100_003))],
  ])('sorts %s', (_name, times) => {
    expect([...orderByTime(Float64Array.from(times))]).toEqual(sortedPositions(times));
  });
});
