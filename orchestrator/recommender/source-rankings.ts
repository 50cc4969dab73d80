/**
 * What every source ranks for the test events: the place of each target, and the items that the user would see first.
 *
 * 1. Users are those with a test event, in user order, the same for every source.
 * 2. Ranks are by full ranking over the catalogue, items of the history removed; of a list, by the list.
 */
import { cooccurrenceRanks, CooccurrenceScorer, type CooccurrenceSettings, similarityRows } from './cooccurrence.js';
import { type Dataset, knownEventsOf, targetOf } from './dataset.js';
import { orderByCount, popularityRanks, trainingItemCounts } from './popularity.js';
import { listOf, type RankedLists, showable } from './ranked-lists.js';
import { rankInList } from './ranking-metrics.js';

export interface TestUsers {
  users: number[];
  targets: number[];
}

export interface SourceRanking {
  /** By user of TestUsers; null: the target is not ranked. */
  ranks: (number | null)[];
  /** [users, width], best first, −1 behind the end. */
  shown: Int32Array;
  width: number;
}

export function testUsersOf(dataset: Dataset): TestUsers {
  const found: TestUsers = { users: [], targets: [] };
  for (let user = 0; user < dataset.userCount; user += 1) {
    const target = targetOf(dataset, user, 'test');
    if (target === null) continue;
    found.users.push(user);
    found.targets.push(target);
  }
  return found;
}

export function listRanking(
  dataset: Dataset,
  lists: RankedLists,
  { test, width }: { test: TestUsers; width: number },
): SourceRanking {
  const shown = emptyLists(test, width);
  const ranks = test.users.map((user, row) => {
    const list = listOf(lists, user);
    const removed = new Set(knownEventsOf(dataset, user, 'test'));
    showable(list, { removed, k: width }).forEach(({ item }, place) => (shown[row * width + place] = item));
    return rankInList(list.items, test.targets[row] ?? 0, removed);
  });
  return { ranks, shown, width };
}

export function popularityRanking(
  dataset: Dataset,
  { test, width }: { test: TestUsers; width: number },
): SourceRanking {
  const order = orderByCount(trainingItemCounts(dataset));
  const shown = emptyLists(test, width);
  test.users.forEach((user, row) => {
    const removed = new Set(knownEventsOf(dataset, user, 'test'));
    let place = 0;
    for (let i = 0; i < order.length && place < width; i += 1) {
      const item = order[i] ?? 0;
      if (removed.has(item)) continue;
      shown[row * width + place] = item;
      place += 1;
    }
  });
  return { ranks: popularityRanks(dataset, 'test'), shown, width };
}

export function cooccurrenceRanking(
  dataset: Dataset,
  settings: CooccurrenceSettings,
  { test, width }: { test: TestUsers; width: number },
): SourceRanking {
  const scorer = new CooccurrenceScorer(similarityRows(dataset, settings), settings.historyDecay);
  const shown = emptyLists(test, width);
  test.users.forEach((user, row) => {
    scorer.topInto(shown.subarray(row * width, (row + 1) * width), knownEventsOf(dataset, user, 'test'), width);
  });
  return { ranks: cooccurrenceRanks(dataset, 'test', settings), shown, width };
}

function emptyLists({ users }: TestUsers, width: number): Int32Array {
  return new Int32Array(users.length * width).fill(-1);
}
