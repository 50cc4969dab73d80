/**
 * Leave-one-out evaluation of a model's lists beside popularity and tuned co-occurrence: full ranking over the whole catalogue,
 * items of the history (everything before the target) removed.
 */
import { cooccurrenceRanks, type CooccurrenceSettings, tuneCooccurrence } from './cooccurrence.js';
import { type Dataset, knownEventsOf, targetOf } from './dataset.js';
import { listOf, type RankedList } from './ranked-lists.js';
import { popularityRanks } from './popularity.js';
import { type CutoffMetrics, metricsOf, rankInList } from './ranking-metrics.js';
import { type EvaluateRecipe } from './recipes.js';

export type EvaluationReport = {
  /** Users with a test event. */
  users: number;
  items: number;
  model: CutoffMetrics;
  popularity: CutoffMetrics;
  cooccurrence: CutoffMetrics & { settings: CooccurrenceSettings };
};

export function evaluate(
  dataset: Dataset,
  lists: ReadonlyMap<number, RankedList>,
  recipe: EvaluateRecipe,
): EvaluationReport {
  const modelRanks: (number | null)[] = [];
  for (let user = 0; user < dataset.userCount; user += 1) {
    const target = targetOf(dataset, user, 'test');
    if (target === null) continue;
    const history = new Set(knownEventsOf(dataset, user, 'test'));
    modelRanks.push(rankInList(listOf(lists, user).items, target, history));
  }
  const settings = tuneCooccurrence(dataset, recipe.cooccurrence);
  const cooccurrence = metricsOf(cooccurrenceRanks(dataset, 'test', settings), recipe.k);
  return {
    users: modelRanks.length,
    items: dataset.itemCount,
    model: metricsOf(modelRanks, recipe.k),
    popularity: metricsOf(popularityRanks(dataset, 'test'), recipe.k),
    cooccurrence: { ...cooccurrence, settings },
  };
}
