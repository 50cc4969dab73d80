/**
 * Leave-one-out evaluation of a model's lists beside the dense model, popularity and tuned co-occurrence: full ranking over the whole catalogue,
 * items of the history (everything before the target) removed.
 */
import { cooccurrenceRanks, type CooccurrenceSettings, tuneCooccurrence } from './cooccurrence.js';
import { type Dataset, knownEventsOf, targetOf } from './dataset.js';
import { listOf, type RankedList } from './ranked-lists.js';
import { popularityRanks } from './popularity.js';
import { type CutoffMetrics, metricsOf, rankInList } from './ranking-metrics.js';
import { type EvaluateRecipe } from './recipes.js';

type RankedLists = ReadonlyMap<number, RankedList>;

export type EvaluationReport = {
  /** Users with a test event. */
  users: number;
  items: number;
  model: CutoffMetrics;
  /** Absent where the run has no dense model. */
  dense?: CutoffMetrics;
  popularity: CutoffMetrics;
  cooccurrence: CutoffMetrics & { settings: CooccurrenceSettings };
};

export function evaluate(
  dataset: Dataset,
  lists: { model: RankedLists; dense: RankedLists | null },
  recipe: EvaluateRecipe,
): EvaluationReport {
  const modelRanks = listRanks(dataset, lists.model);
  const settings = tuneCooccurrence(dataset, recipe.cooccurrence);
  const cooccurrence = metricsOf(cooccurrenceRanks(dataset, 'test', settings), recipe.k);
  return {
    users: modelRanks.length,
    items: dataset.itemCount,
    model: metricsOf(modelRanks, recipe.k),
    ...(lists.dense && { dense: metricsOf(listRanks(dataset, lists.dense), recipe.k) }),
    popularity: metricsOf(popularityRanks(dataset, 'test'), recipe.k),
    cooccurrence: { ...cooccurrence, settings },
  };
}

/** Of every test target in its user's list; null where the list lacks it. */
function listRanks(dataset: Dataset, lists: RankedLists): (number | null)[] {
  const ranks: (number | null)[] = [];
  for (let user = 0; user < dataset.userCount; user += 1) {
    const target = targetOf(dataset, user, 'test');
    if (target === null) continue;
    const history = new Set(knownEventsOf(dataset, user, 'test'));
    ranks.push(rankInList(listOf(lists, user).items, target, history));
  }
  return ranks;
}
