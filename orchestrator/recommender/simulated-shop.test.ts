import { createHash } from 'node:crypto';
import { describe, expect, it } from 'vitest';
import { cooccurrenceRanks } from './cooccurrence.js';
import { datasetFromSequences } from './dataset.js';
import { popularityRanks } from './popularity.js';
import { metricsOf } from './ranking-metrics.js';
import { defaultRecipes } from './default-recipes.js';
import { oracleMetrics } from './shop-oracle.js';
import { buildShop, itemText, NextEventProbabilities, simulateEvents } from './simulated-shop.js';

const SMALL = { seed: 11, items: 160, users: 60, eventsPerUserMin: 5, eventsPerUserMax: 12 };

function sum(values: Float64Array | null): number {
  return (values ?? new Float64Array()).reduce((total, value) => total + value, 0);
}

describe('the simulated shop', () => {
  it('is a function of its recipe', () => {
    const digest = (seed: number): string => {
      const recipe = { ...SMALL, seed };
      const shop = buildShop(recipe);
      const content = JSON.stringify([shop.items.map(itemText), simulateEvents(shop, recipe)]);
      return createHash('sha256').update(content).digest('hex');
    };
    expect(digest(11)).toBe(digest(11));
    expect(digest(11)).not.toBe(digest(12));
    // The shop is frozen: this changes only when published numbers are meant to change.
    expect(digest(11)).toBe('0da2253cea6dca5e79b8c52fb526cf6cd116e8f56cba2086dfbb6562c9e39ef2');
  });

  it('keeps to its sizes, repeats nothing and orders events by time', () => {
    const shop = buildShop(SMALL);
    const events = simulateEvents(shop, SMALL);
    expect(events.every((event, i) => i === 0 || event.time >= (events[i - 1]?.time ?? 0))).toBe(true);
    for (let user = 0; user < SMALL.users; user += 1) {
      const items = events.filter((event) => event.user === user).map((event) => event.item);
      expect(items.length).toBeGreaterThanOrEqual(SMALL.eventsPerUserMin);
      expect(items.length).toBeLessThanOrEqual(SMALL.eventsPerUserMax);
      expect(new Set(items).size).toBe(items.length);
    }
    expect(shop.items.every((item, index) => !item.companions.includes(index) && item.companions.length === 3)).toBe(
      true,
    );
  });

  it('has true probabilities: they sum to one and are zero for seen items', () => {
    const probabilities = new NextEventProbabilities(buildShop(SMALL));
    const seen = new Set([0, 3, 7]);
    const overall = probabilities.overall(5, 7, seen);
    expect(sum(overall)).toBeCloseTo(1, 12);
    expect([...seen].map((item) => overall[item])).toEqual([0, 0, 0]);
    expect(sum(probabilities.whenContinued(5, 7, seen))).toBeCloseTo(1, 12);
    expect(sum(probabilities.whenOpened(5, seen))).toBeCloseTo(1, 12);
  });

  it(
    'lets the oracle clearly beat co-occurrence, and that clearly beat popularity, at the default size',
    { timeout: 60_000 },
    () => {
      const recipe = defaultRecipes().simulate;
      const shop = buildShop(recipe);
      const events = simulateEvents(shop, recipe);
      const sequences: number[][] = shop.shoppers.map(() => []);
      for (const event of events) sequences[event.user]?.push(event.item);
      const dataset = datasetFromSequences(sequences);
      const settings = { window: 5, backwardWeight: 0.4, historyDecay: 0.4 };
      const popularity = metricsOf(popularityRanks(dataset, 'test'), [10]).hr['10'] ?? 0;
      const cooccurrence = metricsOf(cooccurrenceRanks(dataset, 'test', settings), [10]).hr['10'] ?? 0;
      const oracle = oracleMetrics(shop, events).hr['10'] ?? 0;
      expect(oracle).toBeGreaterThan(0.6);
      expect(oracle).toBeLessThan(0.7);
      expect(cooccurrence).toBeGreaterThan(5 * popularity);
      expect(oracle).toBeGreaterThan(1.5 * cooccurrence);
      expect(popularity).toBeGreaterThan(0.03);
      expect(popularity).toBeLessThan(0.06);
    },
  );

  it('refuses sizes that cannot work', () => {
    expect(() => buildShop({ ...SMALL, items: 79 })).toThrow(/expected items ≥ 80/);
    expect(() => buildShop({ ...SMALL, eventsPerUserMin: 2 })).toThrow(/eventsPerUserMin ≥ 3, got 2/);
    expect(() => buildShop({ ...SMALL, eventsPerUserMax: 100 })).toThrow(/eventsPerUserMax/);
  });
});
