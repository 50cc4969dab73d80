/**
 * The best that any model could do on the simulated shop: all unseen items ranked by the generator's own probabilities for the
 * last event of every shopper (the test event of the leave-one-out protocol). Equal probabilities rank by item index.
 */
import { type CutoffMetrics, metricsOf, rankByScore } from './ranking-metrics.js';
import { NextEventProbabilities, type Shop, type ShopEvent } from './simulated-shop.js';

export const ORACLE_CUTOFFS: readonly number[] = [1, 5, 10, 20];

export function oracleMetrics(shop: Shop, events: readonly ShopEvent[]): CutoffMetrics & { users: number } {
  const sequences: number[][] = shop.shoppers.map(() => []);
  for (const event of events) sequences[event.user]?.push(event.item);
  const probabilities = new NextEventProbabilities(shop);
  const ranks = sequences.map((sequence, user) => {
    const target = sequence.at(-1);
    const last = sequence.at(-2);
    if (target === undefined || last === undefined) return null;
    const seen = new Set(sequence.slice(0, -1));
    return rankByScore(probabilities.overall(user, last, seen), target, seen);
  });
  return { users: ranks.length, ...metricsOf(ranks, ORACLE_CUTOFFS) };
}
