/**
 * The dataset: every user's item indices, oldest first, and the leave-one-out split.
 *
 * 1. Users and items are dense 0-based indices; every item has at least one event, so that the item count is the largest index + 1.
 * 2. A user with n ≥ 3 events has its last event as test, the one before as validation and the rest as training; users with
 *    fewer events are training only.
 */
import { BadInputError } from './domain-job.js';
import { type SafetensorsFile, type Tensor } from './safetensors.js';

export const EVENTS_FOR_TEST_MIN = 3;

export interface Dataset {
  itemCount: number;
  userCount: number;
  /** [userCount + 1] positions in `items`. */
  userOffsets: Float64Array;
  items: Int32Array;
}

export type EvaluationPart = 'validation' | 'test';

export function datasetFromSequences(sequences: readonly (readonly number[])[]): Dataset {
  const userOffsets = new Float64Array(sequences.length + 1);
  sequences.forEach((sequence, user) => (userOffsets[user + 1] = (userOffsets[user] ?? 0) + sequence.length));
  const items = Int32Array.from(sequences.flat());
  return { itemCount: itemCountOf(items), userCount: sequences.length, userOffsets, items };
}

/** Event i is of `users[i]` and `items[i]`; a user's events keep their order. */
export function datasetFromEvents(events: { users: Uint32Array; items: Uint32Array; userCount: number }): Dataset {
  const { users, userCount } = events;
  const userOffsets = new Float64Array(userCount + 1);
  for (const user of users) userOffsets[user + 1] = (userOffsets[user + 1] ?? 0) + 1;
  for (let user = 0; user < userCount; user += 1) {
    userOffsets[user + 1] = (userOffsets[user + 1] ?? 0) + (userOffsets[user] ?? 0);
  }
  const next = userOffsets.slice();
  const items = new Int32Array(users.length);
  for (let event = 0; event < users.length; event += 1) {
    const user = users[event] ?? 0;
    const at = next[user] ?? 0;
    items[at] = events.items[event] ?? 0;
    next[user] = at + 1;
  }
  return { itemCount: itemCountOf(items), userCount, userOffsets, items };
}

export function readDataset(file: SafetensorsFile, source: string): Dataset {
  const { data: items } = file.i32('items', [-1]);
  const { data: userOffsets } = file.i64('user_offsets', [-1]);
  const ascending = userOffsets.every((offset, i) => i === 0 || offset >= (userOffsets[i - 1] ?? 0));
  if (userOffsets[0] !== 0 || userOffsets.at(-1) !== items.length || !ascending || items.some((item) => item < 0)) {
    throw new BadInputError(
      `${source}: expected ascending user_offsets from 0 to ${items.length} and item indices ≥ 0`,
    );
  }
  return { itemCount: itemCountOf(items), userCount: userOffsets.length - 1, userOffsets, items };
}

export function datasetTensors(dataset: Dataset): Record<string, Tensor> {
  return {
    user_offsets: { shape: [dataset.userOffsets.length], data: int64(dataset.userOffsets) },
    items: { shape: [dataset.items.length], data: dataset.items },
  };
}

/** A view of all events of a user, oldest first. */
export function eventsOf(dataset: Dataset, user: number): Int32Array {
  return dataset.items.subarray(dataset.userOffsets[user], dataset.userOffsets[user + 1]);
}

export function trainingEventsOf(dataset: Dataset, user: number): Int32Array {
  const events = eventsOf(dataset, user);
  return events.length < EVENTS_FOR_TEST_MIN ? events : events.subarray(0, events.length - 2);
}

/** What a model may know when it predicts the part's target: the events before it. Training-only users: all events. */
export function knownEventsOf(dataset: Dataset, user: number, part: EvaluationPart): Int32Array {
  const events = eventsOf(dataset, user);
  if (events.length < EVENTS_FOR_TEST_MIN) return events;
  return events.subarray(0, events.length - (part === 'test' ? 1 : 2));
}

/** The item to predict, or null for training-only users. */
export function targetOf(dataset: Dataset, user: number, part: EvaluationPart): number | null {
  const events = eventsOf(dataset, user);
  if (events.length < EVENTS_FOR_TEST_MIN) return null;
  return events[events.length - (part === 'test' ? 1 : 2)] ?? null;
}

/** Distinct (user, item) pairs of the training part, sorted by user, then item. */
export function trainingGraphTensors(dataset: Dataset): Record<string, Tensor> {
  const users = new Int32Array(dataset.items.length);
  const items = new Int32Array(dataset.items.length);
  let pairs = 0;
  for (let user = 0; user < dataset.userCount; user += 1) {
    let before = -1;
    for (const item of trainingEventsOf(dataset, user).slice().sort()) {
      if (item === before) continue;
      before = item;
      users[pairs] = user;
      items[pairs] = item;
      pairs += 1;
    }
  }
  return {
    users: { shape: [pairs], data: users.slice(0, pairs) },
    items: { shape: [pairs], data: items.slice(0, pairs) },
    counts: { shape: [2], data: int64([dataset.userCount, dataset.itemCount]) },
  };
}

export function int64(values: ArrayLike<number>): BigInt64Array {
  const whole = new BigInt64Array(values.length);
  for (let i = 0; i < values.length; i += 1) whole[i] = BigInt(values[i] ?? 0);
  return whole;
}

function itemCountOf(items: Int32Array): number {
  let largest = -1;
  for (const item of items) if (item > largest) largest = item;
  return largest + 1;
}
