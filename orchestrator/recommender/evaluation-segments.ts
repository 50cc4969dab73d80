/**
 * Groups of test users in which the sources are compared: by how much a user did, and by how popular the item to find is.
 *
 * 1. Activity: terciles of the history's length. A length is never split, so that groups differ in size where many users have the same.
 * 2. Popularity of the target: items in order of their training events; head, mid and tail each have about a third of the events.
 */
import { type Dataset, knownEventsOf } from './dataset.js';
import { orderByCount, trainingItemCounts } from './popularity.js';
import { type TestUsers } from './source-rankings.js';

export type ActivityGroup = { name: string; eventsMin: number; eventsMax: number; users: number };
export type PopularityGroup = { name: string; items: number; eventShare: number; users: number };

export interface Segments<Group> {
  groups: Group[];
  /** By row of TestUsers, the index of its group. */
  groupOf: Uint8Array;
}

const ACTIVITY_NAMES = ['short', 'medium', 'long'] as const;
const POPULARITY_NAMES = ['head', 'mid', 'tail'] as const;

export function activitySegments(dataset: Dataset, { users }: TestUsers): Segments<ActivityGroup> {
  const lengths = Int32Array.from(users, (user) => knownEventsOf(dataset, user, 'test').length);
  const sorted = lengths.slice().sort();
  const upper = (third: number): number => sorted[Math.ceil((third * sorted.length) / 3) - 1] ?? 0;
  const [first, second] = [upper(1), upper(2)];
  const groupOf = Uint8Array.from(lengths, (length) => (length <= first ? 0 : length <= second ? 1 : 2));
  const groups = ACTIVITY_NAMES.map((name, group) => {
    const own = lengths.filter((_, row) => groupOf[row] === group).sort();
    return { name, eventsMin: own[0] ?? 0, eventsMax: own.at(-1) ?? 0, users: own.length };
  });
  return { groups, groupOf };
}

export function popularitySegments(dataset: Dataset, { targets }: TestUsers): Segments<PopularityGroup> {
  const counts = trainingItemCounts(dataset);
  const total = Math.max(
    1,
    counts.reduce((sum, count) => sum + count, 0),
  );
  const groupOfItem = new Uint8Array(dataset.itemCount);
  const groups = POPULARITY_NAMES.map((name) => ({ name, items: 0, eventShare: 0, users: 0 }));
  let before = 0;
  for (const item of orderByCount(counts)) {
    // Whole numbers are compared: a share would round.
    const group = Math.min(2, Math.floor((3 * before) / total));
    groupOfItem[item] = group;
    const own = groups[group];
    if (own !== undefined) {
      own.items += 1;
      own.eventShare += (counts[item] ?? 0) / total;
    }
    before += counts[item] ?? 0;
  }
  const groupOf = Uint8Array.from(targets, (item) => groupOfItem[item] ?? 0);
  for (const group of groupOf) {
    const own = groups[group];
    if (own !== undefined) own.users += 1;
  }
  return { groups, groupOf };
}
