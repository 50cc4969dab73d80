/** The popularity baseline: items by their number of training events; ties by item index. */
import { type Dataset, type EvaluationPart, knownEventsOf, targetOf, trainingEventsOf } from './dataset.js';
import { rankByScore } from './ranking-metrics.js';

export function trainingItemCounts(dataset: Dataset): Float64Array {
  const counts = new Float64Array(dataset.itemCount);
  for (let user = 0; user < dataset.userCount; user += 1) {
    for (const item of trainingEventsOf(dataset, user)) counts[item] = (counts[item] ?? 0) + 1;
  }
  return counts;
}

/** Ranks of the part's targets, in user order, training-only users left out. */
export function popularityRanks(dataset: Dataset, part: EvaluationPart): (number | null)[] {
  const counts = trainingItemCounts(dataset);
  const ranks: (number | null)[] = [];
  for (let user = 0; user < dataset.userCount; user += 1) {
    const target = targetOf(dataset, user, part);
    if (target !== null) ranks.push(rankByScore(counts, target, new Set(knownEventsOf(dataset, user, part))));
  }
  return ranks;
}
