/**
 * Examples for people: some test users with their history, what was ranked for them, and what they did next, by title.
 *
 * 1. Users are evenly spaced among those of the first shard of test prompts: nobody chose them.
 * 2. Lists are those that were evaluated, items of the history left out.
 */
import { type Dataset, knownEventsOf, readDataset, targetOf } from '../recommender/dataset.js';
import { parseJson, readLines } from '../recommender/files.js';
import { type RankedLists, readRankedLists, showable } from '../recommender/ranked-lists.js';
import { SafetensorsFile } from '../recommender/safetensors.js';
import { type RunOutputs } from './run-outputs.js';

export interface ExampleUser {
  user: string;
  /** Titles, oldest first; `earlier` more lie before them. */
  history: string[];
  earlier: number;
  truth: string;
  lists: ExampleList[];
}

export interface ExampleList {
  name: string;
  titles: string[];
  /** From 1; null when the list lacks it. */
  rankOfTruth: number | null;
}

const USERS = 6;
const HISTORY_SHOWN = 8;
const LIST_SHOWN = 10;

/** Job and name of the lists that are shown, where the run has them. */
const SOURCES = [
  { job: 'fuse/test', name: 'published' },
  { job: 'rank/test_prompts/0', name: 'model' },
];

export async function readExamples(outputs: RunOutputs): Promise<ExampleUser[]> {
  const dataset = await outputs.read('ingest', 'dataset', async (path) =>
    readDataset(await SafetensorsFile.open(path), 'dataset'),
  );
  const model = await listsOf(outputs, 'rank/test_prompts/0');
  if (dataset === null || model === null) return [];
  const ranked = [...model.keys()];
  const chosen = Array.from({ length: USERS }, (_, i) => ranked[Math.floor((i * ranked.length) / USERS)] ?? -1);
  const users = [...new Set(chosen)].filter((user) => user >= 0 && targetOf(dataset, user, 'test') !== null);
  const sources: { name: string; lists: RankedLists }[] = [];
  for (const { job, name } of SOURCES) {
    const lists = await listsOf(outputs, job);
    if (lists !== null) sources.push({ name, lists });
  }
  const rows = users.map((user) => exampleOf(dataset, user, sources));
  const shown = new Set(
    rows.flatMap(({ history, truth, lists }) => [...history, truth, ...lists.flatMap((list) => list.items)]),
  );
  const titles = await fieldByLine(outputs, { output: 'catalogue', field: 'title', lines: shown });
  const names = await fieldByLine(outputs, { output: 'users', field: 'user', lines: new Set(users) });
  const titleOf = (item: number): string => titles.get(item) ?? `item ${item}`;
  return rows.map(({ user, history, earlier, truth, lists }) => ({
    user: names.get(user) ?? `user ${user}`,
    history: history.map(titleOf),
    earlier,
    truth: titleOf(truth),
    lists: lists.map(({ name, items, rankOfTruth }) => ({ name, titles: items.map(titleOf), rankOfTruth })),
  }));
}

interface ExampleRow {
  user: number;
  history: number[];
  earlier: number;
  truth: number;
  lists: { name: string; items: number[]; rankOfTruth: number | null }[];
}

function exampleOf(dataset: Dataset, user: number, sources: { name: string; lists: RankedLists }[]): ExampleRow {
  const known = [...knownEventsOf(dataset, user, 'test')];
  const truth = targetOf(dataset, user, 'test') ?? -1;
  const lists = sources.flatMap(({ name, lists: ofSource }) => {
    const list = ofSource.get(user);
    if (list === undefined) return [];
    const items = showable(list, { removed: new Set(known), k: list.items.length }).map(({ item }) => item);
    const place = items.indexOf(truth);
    return [{ name, items: items.slice(0, LIST_SHOWN), rankOfTruth: place < 0 ? null : place + 1 }];
  });
  const history = known.slice(-HISTORY_SHOWN);
  return { user, history, earlier: known.length - history.length, truth, lists };
}

function listsOf(outputs: RunOutputs, job: string): Promise<RankedLists | null> {
  return outputs.read(job, 'lists', (path) => readRankedLists({ lists_0: path }));
}

/** A text field of some lines (from 0) of an NDJSON file of job `ingest`. */
async function fieldByLine(
  outputs: RunOutputs,
  { output, field, lines }: { output: string; field: string; lines: ReadonlySet<number> },
): Promise<Map<number, string>> {
  const found = await outputs.read('ingest', output, async (path) => {
    const values = new Map<number, string>();
    for await (const { number, text } of readLines(path)) {
      if (!lines.has(number - 1)) continue;
      const value = (parseJson(text) as Record<string, unknown> | undefined)?.[field];
      if (typeof value === 'string') values.set(number - 1, value);
    }
    return values;
  });
  return found ?? new Map<number, string>();
}
