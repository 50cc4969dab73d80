/** The popularity baseline: items by their number of training events; ties by item index. */
import { type Dataset, type EvaluationPart, knownEventsOf, targetOf, trainingEventsOf } from './dataset.js';

export function trainingItemCounts(dataset: Dataset): Float64Array {
  const counts = new Float64Array(dataset.itemCount);
  for (let user = 0; user < dataset.userCount; user += 1) {
    for (const item of trainingEventsOf(dataset, user)) counts[item] = (counts[item] ?? 0) + 1;
  }
  return counts;
}

/** Ranks of the part's targets, in user order, training-only users left out. */
export function popularityRanks(dataset: Dataset, part: EvaluationPart): (number | null)[] {
  const places = placesByCount(trainingItemCounts(dataset));
  const ranks: (number | null)[] = [];
  for (let user = 0; user < dataset.userCount; user += 1) {
    const target = targetOf(dataset, user, part);
    if (target === null) continue;
    const removed = new Set(knownEventsOf(dataset, user, part));
    let rank = places[target] ?? 0;
    for (const item of removed) if ((places[item] ?? 0) < (places[target] ?? 0)) rank -= 1;
    ranks.push(removed.has(target) ? null : rank);
  }
  return ranks;
}

/** Items by their counts, the largest first: the ranking that all users share. */
export function orderByCount(counts: Float64Array): Int32Array {
  const order = Int32Array.from({ length: counts.length }, (_, i) => i);
  return order.sort((a, b) => (counts[b] ?? 0) - (counts[a] ?? 0) || a - b);
}

/** Each item's place in that ranking, from 1. */
function placesByCount(counts: Float64Array): Int32Array {
  const order = orderByCount(counts);
  const places = new Int32Array(counts.length);
  order.forEach((item, i) => (places[item] = i + 1));
  return places;
}
