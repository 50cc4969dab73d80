/**
 * One list out of several sources: score(item) = Σ over sources of weight · feature.
 *
 * 1. Candidates are the items of every list, and the best by co-occurrence; the history is left out.
 * 2. A list's scores are log-probabilities. Its feature is the score less that of the list's best item; an item that the list
 *    lacks gets that of the list's last item less `missingMargin`: it scored no more than the last.
 * 3. Co-occurrence scores every item: its feature is log(score + cooccurrenceFloor), nothing is missing.
 * 4. Weights are chosen on validation events alone (NDCG@10): coordinate by coordinate over the grid, from each source alone and
 *    from all at one; the first of equals. So on these users the fused list is at least as good as each source's candidates.
 * 5. Equal scores rank by item index.
 */
import { CooccurrenceScorer, type CooccurrenceSettings, similarityRows } from './cooccurrence.js';
import { type Dataset } from './dataset.js';
import { log } from './portable-math.js';
import { listOf, type RankedLists } from './ranked-lists.js';
import { gainAt } from './ranking-metrics.js';
import { type FusionRecipe } from './recipes.js';

export type FusionForm = Pick<FusionRecipe, 'candidates' | 'cooccurrenceFloor' | 'missingMargin'>;

export interface UserCandidates {
  items: number[];
  /** [items, sources] in the order of `FusionSources.names`. */
  features: Float64Array;
}

/** NDCG at this is what weights are chosen by. */
export const FITTED_CUTOFF = 10;
const ROUNDS_MAX = 5;

/** Sources of one part's users: lists by name, and co-occurrence. */
export class FusionSources {
  readonly names: string[];
  private readonly lists: [string, RankedLists][];
  private readonly scorer: CooccurrenceScorer;
  private readonly best: Int32Array;

  /** `lists` has the model's under `model`. */
  constructor(
    dataset: Dataset,
    private readonly form: FusionForm,
    { lists, settings }: { lists: ReadonlyMap<string, RankedLists>; settings: CooccurrenceSettings },
  ) {
    this.lists = [...lists];
    this.names = [...this.lists.map(([name]) => name), 'cooccurrence'];
    this.scorer = new CooccurrenceScorer(similarityRows(dataset, settings), settings.historyDecay);
    this.best = new Int32Array(form.candidates);
  }

  candidatesOf(user: number, history: Int32Array): UserCandidates {
    const { candidates, cooccurrenceFloor } = this.form;
    const removed = new Set(history);
    const scores = this.lists.map(([, lists]) => this.listScores(lists, user, removed));
    const found = new Set(scores.flatMap((ofList) => [...ofList.byItem.keys()]));
    const count = this.scorer.topInto(this.best, history, candidates);
    for (let i = 0; i < count; i += 1) found.add(this.best[i] ?? 0);
    const items = [...found].sort((a, b) => a - b);
    const cooccurrence = this.scorer.scoresOf(history);
    const width = this.names.length;
    const features = new Float64Array(items.length * width);
    items.forEach((item, row) => {
      scores.forEach(({ byItem, missing }, source) => {
        features[row * width + source] = byItem.get(item) ?? missing;
      });
      features[row * width + width - 1] = log((cooccurrence[item] ?? 0) + cooccurrenceFloor);
    });
    return { items, features };
  }

  private listScores(
    lists: RankedLists,
    user: number,
    removed: ReadonlySet<number>,
  ): { byItem: Map<number, number>; missing: number } {
    const list = listOf(lists, user);
    const byItem = new Map<number, number>();
    let best: number | null = null;
    let last = 0;
    list.items.forEach((item, place) => {
      if (item < 0 || byItem.has(item)) return;
      const score = list.scores[place] ?? 0;
      best ??= score;
      last = score - best;
      if (!removed.has(item)) byItem.set(item, last);
    });
    return { byItem, missing: last - this.form.missingMargin };
  }
}

/** The best candidates first, at most `k`. */
export function fusedList(
  { items, features }: UserCandidates,
  { weights, k }: { weights: readonly number[]; k: number },
): { item: number; score: number }[] {
  const scored = items.map((item, row) => ({ item, score: weightedSum(features, row, weights) }));
  return scored.sort((a, b) => b.score - a.score || a.item - b.item).slice(0, k);
}

/** What the fit needs of a user: the candidates, and which of them is the target (−1: none). */
export interface FittedUser extends UserCandidates {
  target: number;
}

export interface FittedWeights {
  weights: number[];
  ndcg: number;
  tried: number;
  /** NDCG@10 of each source alone. */
  alone: number[];
}

export function fitWeights(
  users: readonly FittedUser[],
  { sources, grid }: { sources: number; grid: readonly number[] },
): FittedWeights {
  let tried = 0;
  const score = (weights: readonly number[]): number => {
    tried += 1;
    return ndcgOf(users, weights);
  };
  const alone = Array.from({ length: sources }, (_, source) => unit(sources, source));
  const starts = [...alone, new Array<number>(sources).fill(1)];
  let best: { weights: number[]; ndcg: number } = { weights: alone[0] ?? [], ndcg: -1 };
  for (const start of starts) {
    const climbed = climb(start, grid, score);
    if (climbed.ndcg > best.ndcg) best = climbed;
  }
  const ofAlone = alone.map(score);
  return { ...best, tried, alone: ofAlone };
}

/** Coordinate by coordinate, to the first round that changes nothing. */
function climb(
  start: readonly number[],
  grid: readonly number[],
  score: (weights: readonly number[]) => number,
): { weights: number[]; ndcg: number } {
  let weights = [...start];
  let ndcg = score(weights);
  for (let round = 0; round < ROUNDS_MAX; round += 1) {
    const before = ndcg;
    for (let source = 0; source < weights.length; source += 1) {
      for (const value of grid) {
        const changed = weights.map((weight, i) => (i === source ? value : weight));
        if (value === weights[source] || changed.every((weight) => weight === 0)) continue;
        const its = score(changed);
        if (its > ndcg) [weights, ndcg] = [changed, its];
      }
    }
    if (ndcg === before) break;
  }
  return { weights, ndcg };
}

function ndcgOf(users: readonly FittedUser[], weights: readonly number[]): number {
  let gain = 0;
  for (const { features, target } of users) {
    if (target < 0) continue;
    const own = weightedSum(features, target, weights);
    const rows = features.length / weights.length;
    let rank = 1;
    for (let row = 0; row < rows && rank <= FITTED_CUTOFF; row += 1) {
      const score = weightedSum(features, row, weights);
      // Candidates are in the order of their item index.
      if (score > own || (score === own && row < target)) rank += 1;
    }
    if (rank <= FITTED_CUTOFF) gain += gainAt(rank);
  }
  return users.length === 0 ? 0 : gain / users.length;
}

function weightedSum(features: Float64Array, row: number, weights: readonly number[]): number {
  let sum = 0;
  for (let source = 0; source < weights.length; source += 1) {
    sum += (weights[source] ?? 0) * (features[row * weights.length + source] ?? 0);
  }
  return sum;
}

function unit(length: number, place: number): number[] {
  return Array.from({ length }, (_, i) => (i === place ? 1 : 0));
}
