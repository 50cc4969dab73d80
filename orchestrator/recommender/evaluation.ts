/**
 * Leave-one-out evaluation of every source of lists (the model, others by name) beside popularity and tuned co-occurrence: full
 * ranking over the whole catalogue, items of the history (everything before the target) removed.
 *
 * 1. Nothing is chosen here but the co-occurrence baseline's settings, on validation events, where fusion has not chosen them.
 * 2. There is no split at one moment for all: events have an order in the dataset, and no times.
 */
import { type CutoffIntervals, differenceIntervals, intervalsOf, resampledMeans } from './bootstrap.js';
import { type CooccurrenceSettings, tuneCooccurrence } from './cooccurrence.js';
import { type Dataset } from './dataset.js';
import {
  type ActivityGroup,
  activitySegments,
  type PopularityGroup,
  popularitySegments,
  type Segments,
} from './evaluation-segments.js';
import { type Exposure, exposureOf } from './exposure.js';
import { type RankedLists } from './ranked-lists.js';
import { type CutoffMetrics, metricsOf } from './ranking-metrics.js';
import { type EvaluateRecipe } from './recipes.js';
import {
  cooccurrenceRanking,
  listRanking,
  popularityRanking,
  type SourceRanking,
  testUsersOf,
} from './source-rankings.js';

export type SourceMetrics = CutoffMetrics & {
  /** 95 %, by bootstrap over users. */
  intervals: CutoffIntervals;
  byActivity: Record<string, CutoffMetrics>;
  byPopularity: Record<string, CutoffMetrics>;
  exposure: Exposure;
};

export type EvaluationReport = {
  /** Users with a test event. */
  users: number;
  items: number;
  seed: number;
  resamples: number;
  /** Names of the sources, each a field of its own below. */
  sources: string[];
  activity: ActivityGroup[];
  popularityOfTarget: PopularityGroup[];
  /** By source, itself less co-occurrence, with the 95 % interval of the paired difference. */
  overCooccurrence: Record<string, CutoffMetrics & { intervals: CutoffIntervals }>;
  model: SourceMetrics;
  /** What is published, where lists are fused. */
  published?: SourceMetrics;
  /** The dense model, where there is one. */
  dense?: SourceMetrics;
  popularity: SourceMetrics;
  cooccurrence: SourceMetrics & { settings: CooccurrenceSettings };
};

export interface EvaluatedLists {
  model: RankedLists;
  /** Other sources of lists by name. */
  named: ReadonlyMap<string, RankedLists>;
}

const BASELINES = ['popularity', 'cooccurrence'];

/** `settings`: of co-occurrence, where they have been chosen already. */
export function evaluate(
  dataset: Dataset,
  lists: EvaluatedLists,
  { recipe, settings: chosen }: { recipe: EvaluateRecipe; settings: CooccurrenceSettings | null },
): EvaluationReport {
  const test = testUsersOf(dataset);
  const settings = chosen ?? tuneCooccurrence(dataset, recipe.cooccurrence);
  const form = { test, width: Math.max(...recipe.k) };
  const rankings = new Map<string, SourceRanking>([['model', listRanking(dataset, lists.model, form)]]);
  for (const [name, ofSource] of lists.named) rankings.set(name, listRanking(dataset, ofSource, form));
  rankings.set('popularity', popularityRanking(dataset, form));
  rankings.set('cooccurrence', cooccurrenceRanking(dataset, settings, form));

  const ranks = new Map(Array.from(rankings, ([name, ranking]) => [name, ranking.ranks]));
  const options = { cutoffs: recipe.k, resamples: recipe.resamples, seed: recipe.seed };
  const means = resampledMeans(ranks, options);
  const activity = activitySegments(dataset, test);
  const popularity = popularitySegments(dataset, test);
  const metrics: Record<string, SourceMetrics> = {};
  for (const [name, ranking] of rankings) {
    const own = means.get(name);
    if (own === undefined) throw new Error(`no resamples of ${name}`);
    metrics[name] = {
      ...metricsOf(ranking.ranks, recipe.k),
      intervals: intervalsOf(own, recipe.k),
      byActivity: metricsBySegment(ranking, activity, recipe.k),
      byPopularity: metricsBySegment(ranking, popularity, recipe.k),
      exposure: exposureOf(ranking, { cutoffs: recipe.k, itemCount: dataset.itemCount }),
    };
  }
  const overCooccurrence: EvaluationReport['overCooccurrence'] = {};
  const base = { metrics: metrics['cooccurrence'], means: means.get('cooccurrence') };
  for (const [name, own] of means) {
    const values = metrics[name];
    if (BASELINES.includes(name) || values === undefined || !base.metrics || !base.means) continue;
    overCooccurrence[name] = {
      ...difference(values, base.metrics, recipe.k),
      intervals: differenceIntervals(own, base.means, recipe.k),
    };
  }
  const {
    model,
    popularity: popular,
    cooccurrence,
    ...named
  } = metrics as Required<Pick<EvaluationReport, 'model' | 'popularity' | 'cooccurrence'>>;
  return {
    users: test.users.length,
    items: dataset.itemCount,
    seed: recipe.seed,
    resamples: recipe.resamples,
    sources: [...rankings.keys()],
    activity: activity.groups,
    popularityOfTarget: popularity.groups,
    overCooccurrence,
    model,
    ...named,
    popularity: popular,
    cooccurrence: { ...cooccurrence, settings },
  };
}

/** Few numbers of a report: HR and NDCG by source. */
export function headlinesOf(report: EvaluationReport): Record<string, CutoffMetrics | number> {
  const bySource = report as unknown as Record<string, SourceMetrics>;
  const rows = report.sources.map((name): [string, CutoffMetrics] => {
    const { hr = {}, ndcg = {} } = bySource[name] ?? {};
    return [name, { hr, ndcg }];
  });
  return { users: report.users, items: report.items, ...Object.fromEntries(rows) };
}

function metricsBySegment(
  { ranks }: SourceRanking,
  { groups, groupOf }: Segments<{ name: string }>,
  cutoffs: readonly number[],
): Record<string, CutoffMetrics> {
  return Object.fromEntries(
    groups.map(({ name }, group) => [
      name,
      metricsOf(
        ranks.filter((_, row) => groupOf[row] === group),
        cutoffs,
      ),
    ]),
  );
}

function difference(a: CutoffMetrics, b: CutoffMetrics, cutoffs: readonly number[]): CutoffMetrics {
  const minus = (metric: 'hr' | 'ndcg'): Record<string, number> =>
    Object.fromEntries(cutoffs.map((k) => [k, (a[metric][k] ?? 0) - (b[metric][k] ?? 0)]));
  return { hr: minus('hr'), ndcg: minus('ndcg') };
}
