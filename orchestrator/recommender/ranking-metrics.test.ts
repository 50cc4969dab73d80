import { describe, expect, it } from 'vitest';
import { metricsOf, rankByScore, rankInList } from './ranking-metrics.js';

describe('metrics', () => {
  it('are hits and discounted gains over all users, misses included', () => {
    const { hr, ndcg } = metricsOf([1, 3, null, 12], [1, 10]);
    expect(hr).toEqual({ 1: 0.25, 10: 0.5 });
    expect(ndcg['10']).toBeCloseTo((1 + 1 / Math.log2(4)) / 4, 12);
    expect(metricsOf([], [5]).hr['5']).toBe(0);
  });
});

describe('ranks', () => {
  it('break ties by item index and leave removed items out', () => {
    const scores = [1, 5, 5, 9, 0];
    expect(rankByScore(scores, 2, new Set())).toBe(3);
    expect(rankByScore(scores, 2, new Set([3, 1]))).toBe(1);
    expect(rankByScore(scores, 3, new Set([3]))).toBeNull();
  });

  it('count an item of a list once and never a seen one', () => {
    expect(rankInList([4, 4, 2, 7, -1], 7, new Set([2]))).toBe(2);
    expect(rankInList([4, 4, 2, -1, -1], 7, new Set())).toBeNull();
    expect(rankInList([4, 7], 7, new Set([7]))).toBeNull();
  });
});
