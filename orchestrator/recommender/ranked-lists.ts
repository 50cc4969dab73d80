/** Ranked lists of many shards, merged: one list a user, each user once. */
import { BadInputError } from './domain-job.js';
import { SafetensorsFile } from './safetensors.js';

export interface RankedList {
  /** Best first; −1 behind the end. */
  items: Int32Array;
  scores: Float32Array;
}

/** One list a user. */
export type RankedLists = ReadonlyMap<number, RankedList>;

const NAMED_LIST_INPUT = /^(\w+)_lists_\d+$/;

/** Reads the inputs `<prefix>0`, `<prefix>1`, … in that order. `inputs`: input name to path. */
export async function readRankedLists(
  inputs: Record<string, string>,
  prefix = 'lists_',
): Promise<Map<number, RankedList>> {
  const shardNumber = (name: string): number => Number(name.slice(prefix.length));
  const shards = Object.keys(inputs)
    .filter((name) => name.startsWith(prefix) && /^\d+$/.test(name.slice(prefix.length)))
    .sort((a, b) => shardNumber(a) - shardNumber(b));
  if (shards.length === 0) {
    throw new BadInputError(`expected inputs ${prefix}0, ${prefix}1, …, got none; run the ranking first`);
  }
  const lists = new Map<number, RankedList>();
  for (const name of shards) {
    const file = await SafetensorsFile.open(inputs[name] ?? '');
    const { data: users } = file.i32('users', [-1]);
    const { data: items, shape } = file.i32('items', [users.length, -1]);
    const width = shape[1] ?? 0;
    const { data: scores } = file.f32('scores', [users.length, width]);
    users.forEach((user, row) => {
      if (lists.has(user)) throw new BadInputError(`${name}: expected each user in one list, got user ${user} twice`);
      const [begin, end] = [row * width, (row + 1) * width];
      lists.set(user, { items: items.subarray(begin, end), scores: scores.subarray(begin, end) });
    });
  }
  return lists;
}

/** Of every source that has inputs `<source>_lists_<shard>`, in the order of their names. */
export async function readNamedLists(inputs: Record<string, string>): Promise<Map<string, RankedLists>> {
  const names = Object.keys(inputs).flatMap((name) => NAMED_LIST_INPUT.exec(name)?.[1] ?? []);
  const lists = new Map<string, RankedLists>();
  for (const name of [...new Set(names)].sort()) lists.set(name, await readRankedLists(inputs, `${name}_lists_`));
  return lists;
}

/** The list of a user that must have one. */
export function listOf(lists: RankedLists, user: number): RankedList {
  const list = lists.get(user);
  if (list === undefined) {
    throw new BadInputError(`lists: expected a list for user ${user}, got none; every rank shard must be an input`);
  }
  return list;
}

/** Items of a list that a user may be shown, best first: not removed, no repeats, at most `k`. */
export function showable(
  list: RankedList,
  { removed, k }: { removed: ReadonlySet<number>; k: number },
): { item: number; score: number }[] {
  const shown = new Map<number, number>();
  list.items.forEach((item, i) => {
    if (item >= 0 && shown.size < k && !removed.has(item) && !shown.has(item)) shown.set(item, list.scores[i] ?? 0);
  });
  return Array.from(shown, ([item, score]) => ({ item, score }));
}
