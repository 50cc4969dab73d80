/**
 * The co-occurrence baseline: item pairs within a window of one user's events, nearer pairs weigh more.
 *
 * pair(a, b) = Σ over a before b at distance d ≤ window of 1/√d, plus `backwardWeight` times the same for b before a;
 * similarity = pair / √(events of a · events of b); score of an item = Σ over the history, s steps back, of
 * historyDecay^s · similarity.
 *
 * 1. Pairs and counts come from the training part alone, as a model's parameters do; the history is everything before the target.
 * 2. Settings are chosen on validation targets alone (NDCG@10, first of equals in grid order), then applied to test.
 * 3. Equal scores rank by item index.
 */
import { type Dataset, type EvaluationPart, knownEventsOf, targetOf, trainingEventsOf } from './dataset.js';
import { trainingItemCounts } from './popularity.js';
import { metricsOf } from './ranking-metrics.js';
import { type CooccurrenceGrid } from './recipes.js';

export type CooccurrenceSettings = { window: number; backwardWeight: number; historyDecay: number };

/** Sparse similarities in rows: `columns` and `values` of row a lie at `offsets[a] … offsets[a + 1]`. */
export interface SimilarityRows {
  offsets: Float64Array;
  columns: Int32Array;
  values: Float64Array;
}

const TUNING_CUTOFF = 10;

export function tuneCooccurrence(dataset: Dataset, grid: CooccurrenceGrid): CooccurrenceSettings {
  let best: CooccurrenceSettings | null = null;
  let bestNdcg = -1;
  for (const window of grid.windows) {
    for (const backwardWeight of grid.backwardWeights) {
      const rows = similarityRows(dataset, { window, backwardWeight });
      for (const historyDecay of grid.historyDecays) {
        const ranks = ranksWithRows(dataset, 'validation', { rows, historyDecay });
        const ndcg = metricsOf(ranks, [TUNING_CUTOFF]).ndcg[TUNING_CUTOFF] ?? 0;
        if (ndcg > bestNdcg) {
          bestNdcg = ndcg;
          best = { window, backwardWeight, historyDecay };
        }
      }
    }
  }
  if (best === null) throw new Error('the co-occurrence grid is empty');
  return best;
}

/** Ranks of the part's targets, in user order, training-only users left out. */
export function cooccurrenceRanks(
  dataset: Dataset,
  part: EvaluationPart,
  settings: CooccurrenceSettings,
): (number | null)[] {
  const rows = similarityRows(dataset, settings);
  return ranksWithRows(dataset, part, { rows, historyDecay: settings.historyDecay });
}

export function similarityRows(
  dataset: Dataset,
  { window, backwardWeight }: Omit<CooccurrenceSettings, 'historyDecay'>,
): SimilarityRows {
  const counts = trainingItemCounts(dataset);
  const occurrences = occurrencesByItem(dataset, counts);
  const distanceWeights = Float64Array.from({ length: window + 1 }, (_, d) => (d === 0 ? 0 : 1 / Math.sqrt(d)));
  const offsets = new Float64Array(dataset.itemCount + 1);
  const columns: number[] = [];
  const values: number[] = [];
  const sums = new Float64Array(dataset.itemCount);
  for (let item = 0; item < dataset.itemCount; item += 1) {
    const touched: number[] = [];
    const add = (other: number, weight: number): void => {
      if (other === item) return;
      if (sums[other] === 0) touched.push(other);
      sums[other] = (sums[other] ?? 0) + weight;
    };
    for (let o = occurrences.offsets[item] ?? 0; o < (occurrences.offsets[item + 1] ?? 0); o += 1) {
      const events = trainingEventsOf(dataset, occurrences.users[o] ?? 0);
      const position = occurrences.positions[o] ?? 0;
      for (let d = 1; d <= window; d += 1) {
        const weight = distanceWeights[d] ?? 0;
        const after = events[position + d];
        const before = position >= d ? events[position - d] : undefined;
        if (after === undefined && before === undefined) break;
        if (after !== undefined) add(after, weight);
        if (before !== undefined && backwardWeight > 0) add(before, weight * backwardWeight);
      }
    }
    for (const other of touched) {
      columns.push(other);
      values.push((sums[other] ?? 0) / Math.sqrt((counts[item] ?? 0) * (counts[other] ?? 0)));
      sums[other] = 0;
    }
    offsets[item + 1] = columns.length;
  }
  return { offsets, columns: Int32Array.from(columns), values: Float64Array.from(values) };
}

/** Scores of one history at a time, over the items that the history touches; all others score zero. */
export class CooccurrenceScorer {
  private readonly scores: Float64Array;
  private readonly touched: Int32Array;
  private touchedCount = 0;
  /** 1 for items of the history at hand. */
  private readonly removed: Uint8Array;

  constructor(
    private readonly rows: SimilarityRows,
    private readonly historyDecay: number,
  ) {
    const itemCount = rows.offsets.length - 1;
    this.scores = new Float64Array(itemCount);
    this.touched = new Int32Array(itemCount);
    this.removed = new Uint8Array(itemCount);
  }

  /** Sum over the history, the newest event with weight 1. Valid until the next call. */
  scoresOf(history: ArrayLike<number>): Float64Array {
    for (let i = 0; i < this.touchedCount; i += 1) this.scores[this.touched[i] ?? 0] = 0;
    this.touchedCount = 0;
    let weight = 1;
    for (let i = history.length - 1; i >= 0; i -= 1) {
      this.addRow(history[i] ?? 0, weight);
      weight *= this.historyDecay;
    }
    return this.scores;
  }

  /** The same rank as `rankByScore` over all items, in time that grows with the touched items only. */
  rankOf(target: number, history: ArrayLike<number>): number | null {
    const scores = this.scoresOf(history);
    for (let i = 0; i < history.length; i += 1) this.removed[history[i] ?? 0] = 1;
    const rank = this.removed[target] === 1 ? null : this.rankAmongTouched(target, scores[target] ?? 0);
    const below = rank === null || (scores[target] ?? 0) > 0 ? 0 : this.untouchedBelow(target, history);
    for (let i = 0; i < history.length; i += 1) this.removed[history[i] ?? 0] = 0;
    return rank === null ? null : rank + below;
  }

  /**
   * The `count` best items with a score above zero, the history's left out, into the front of `items`; answers their number.
   * After it `scoresOf` of the same history holds.
   */
  topInto(items: Int32Array, history: ArrayLike<number>, count: number): number {
    const scores = this.scoresOf(history);
    for (let i = 0; i < history.length; i += 1) this.removed[history[i] ?? 0] = 1;
    let size = 0;
    for (let i = 0; i < this.touchedCount; i += 1) {
      const item = this.touched[i] ?? 0;
      const score = scores[item] ?? 0;
      if (this.removed[item] === 1 || score <= 0) continue;
      const isBefore = (other: number): boolean => {
        const others = scores[other] ?? 0;
        return others > score || (others === score && other < item);
      };
      if (size === count && isBefore(items[size - 1] ?? 0)) continue;
      let place = size === count ? size - 1 : size;
      for (; place > 0 && !isBefore(items[place - 1] ?? 0); place -= 1) items[place] = items[place - 1] ?? 0;
      items[place] = item;
      size = Math.min(size + 1, count);
    }
    for (let i = 0; i < history.length; i += 1) this.removed[history[i] ?? 0] = 0;
    return size;
  }

  private rankAmongTouched(target: number, own: number): number {
    let rank = 1;
    for (let i = 0; i < this.touchedCount; i += 1) {
      const item = this.touched[i] ?? 0;
      const score = this.scores[item] ?? 0;
      if ((score > own || (score === own && item < target)) && this.removed[item] === 0) rank += 1;
    }
    return rank;
  }

  /** Items of smaller index without any score that are not removed: they tie with a target of score zero. */
  private untouchedBelow(target: number, history: ArrayLike<number>): number {
    let below = target;
    for (let i = 0; i < this.touchedCount; i += 1) if ((this.touched[i] ?? 0) < target) below -= 1;
    for (const item of new Set(Array.from(history))) if (item < target && this.scores[item] === 0) below -= 1;
    return below;
  }

  private addRow(item: number, weight: number): void {
    const { scores, touched } = this;
    const { columns, values } = this.rows;
    const end = this.rows.offsets[item + 1] ?? 0;
    let count = this.touchedCount;
    for (let entry = this.rows.offsets[item] ?? 0; entry < end; entry += 1) {
      const other = columns[entry] ?? 0;
      const before = scores[other] ?? 0;
      if (before === 0) {
        touched[count] = other;
        count += 1;
      }
      scores[other] = before + weight * (values[entry] ?? 0);
    }
    this.touchedCount = count;
  }
}

function ranksWithRows(
  dataset: Dataset,
  part: EvaluationPart,
  { rows, historyDecay }: { rows: SimilarityRows; historyDecay: number },
): (number | null)[] {
  const ranks: (number | null)[] = [];
  const scorer = new CooccurrenceScorer(rows, historyDecay);
  for (let user = 0; user < dataset.userCount; user += 1) {
    const target = targetOf(dataset, user, part);
    if (target !== null) ranks.push(scorer.rankOf(target, knownEventsOf(dataset, user, part)));
  }
  return ranks;
}

/** Where every item occurs: for item a, entries `offsets[a] … offsets[a + 1]` of (user, position in its training events). */
function occurrencesByItem(
  dataset: Dataset,
  counts: Float64Array,
): { offsets: Float64Array; users: Int32Array; positions: Int32Array } {
  const offsets = new Float64Array(dataset.itemCount + 1);
  counts.forEach((count, item) => (offsets[item + 1] = (offsets[item] ?? 0) + count));
  const total = offsets[dataset.itemCount] ?? 0;
  const next = offsets.slice();
  const users = new Int32Array(total);
  const positions = new Int32Array(total);
  for (let user = 0; user < dataset.userCount; user += 1) {
    trainingEventsOf(dataset, user).forEach((item, position) => {
      const at = next[item] ?? 0;
      users[at] = user;
      positions[at] = position;
      next[item] = at + 1;
    });
  }
  return { offsets, users, positions };
}
