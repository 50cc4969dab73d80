import { createHash } from 'node:crypto';
import { mkdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { type DomainJobKind, type JsonObject } from '../../workflows/contract.js';
import { eventsOf, knownEventsOf, readDataset, targetOf } from './dataset.js';
import { type EvaluationReport } from './evaluation.js';
import { type Fusion } from './fusion-file.js';
import { domainJobs } from './jobs.js';
import { historyHashOf, type PublishedList } from './published-lists.js';
import { defaultRecipes } from './default-recipes.js';
import { resolveRecipes } from './resolve-recipes.js';
import { SafetensorsFile, writeSafetensors } from './safetensors.js';
import { TestFolder } from './test-folder.js';

let folder: TestFolder;
beforeEach(async () => {
  folder = await TestFolder.make();
});
afterEach(() => folder.remove());

type Files = Record<string, string>;
let runs = 0;

async function run(kind: DomainJobKind, recipe: JsonObject, inputs: Files): Promise<Files> {
  runs += 1;
  const outputDir = join(folder.path, `${kind}-${runs}`);
  await mkdir(outputDir);
  const { outputs, summary } = await domainJobs[kind]({ recipe, inputs, outputDir, report: () => undefined });
  expect(JSON.parse(JSON.stringify(summary))).toEqual(summary);
  return Object.fromEntries(Object.entries(outputs).map(([name, file]) => [name, join(outputDir, file)]));
}

async function codesFor(items: number): Promise<string> {
  const path = join(folder.path, 'codes.safetensors');
  const codes = Int32Array.from({ length: items * 2 }, (_, i) =>
    i % 2 === 0 ? Math.floor(i / 2) % 16 : Math.floor(i / 32),
  );
  await writeSafetensors(path, {
    codes: { shape: [items, 2], data: codes },
    nearest: { shape: [items, 2], data: codes },
    centroids: { shape: [2, 16, 1], data: new Float32Array(32) },
  });
  return path;
}

async function listsFile(name: string, lists: { user: number; items: number[] }[], width: number): Promise<string> {
  const path = join(folder.path, `${name}.safetensors`);
  const rows = lists.flatMap(({ items }) => Array.from({ length: width }, (_, i) => items[i] ?? -1));
  await writeSafetensors(path, {
    users: { shape: [lists.length], data: Int32Array.from(lists, ({ user }) => user) },
    items: { shape: [lists.length, width], data: Int32Array.from(rows) },
    scores: { shape: [lists.length, width], data: Float32Array.from(rows, (_, i) => -0.1 * (i % width)) },
  });
  return path;
}

const RECIPES = defaultRecipes(3);
const SIMULATE = { ...RECIPES.simulate, items: 160, users: 40 };

describe('the domain jobs in a chain', () => {
  it('carry the shop from events to published lists', { timeout: 20_000 }, async () => {
    const shop = await run('simulate', SIMULATE, {});
    const data = await run('ingest', RECIPES.ingest, {
      interactions: shop['interactions'] ?? '',
      items: shop['items'] ?? '',
    });
    const dataset = readDataset(await SafetensorsFile.open(data['dataset'] ?? ''), 'dataset');
    expect(dataset.userCount).toBe(40);

    const text = await run('text_vectors', { ...RECIPES.textVectors, dim: 8 }, { catalogue: data['catalogue'] ?? '' });
    const vectors = (await SafetensorsFile.open(text['text_vectors'] ?? '')).f32('items', [dataset.itemCount, 8]);
    expect(vectors.data.every(Number.isFinite)).toBe(true);

    const rendered = await run('render', RECIPES.render, { ...data, codes: await codesFor(dataset.itemCount) });
    const vocabulary = await SafetensorsFile.open(rendered['vocabulary'] ?? '');
    const [size = 0, first = 0] = vocabulary.i64('sizes', [2]).data;
    expect(size % 8).toBe(0);
    const prompts = await SafetensorsFile.open(rendered['test_prompts'] ?? '');
    expect(prompts.i32('tokens', [-1]).data.every((token) => token >= 0 && token < size)).toBe(true);
    expect(vocabulary.i32('item_tokens', [dataset.itemCount, 2]).data.every((token) => token >= first)).toBe(true);

    // Lists that know the answer for even users and miss it for odd ones; shards in the wrong order on purpose.
    const lists = Array.from({ length: 40 }, (_, user) => {
      const [seen] = knownEventsOf(dataset, user, 'test');
      const target = targetOf(dataset, user, 'test') ?? 0;
      return { user, items: user % 2 === 0 ? [seen ?? 0, target] : [seen ?? 0] };
    });
    const inputs = {
      ...data,
      lists_1: await listsFile('late', lists.slice(20), 3),
      lists_0: await listsFile('early', lists.slice(0, 20), 4),
    };
    const evaluated = await run('evaluate', RECIPES.evaluate, inputs);
    const metrics = JSON.parse(await readFile(evaluated['metrics'] ?? '', 'utf8')) as EvaluationReport;
    expect(metrics.users).toBe(40);
    expect(metrics.model).toMatchObject({ hr: { 1: 0.5, 20: 0.5 }, ndcg: { 1: 0.5, 20: 0.5 } });
    expect(metrics.cooccurrence.hr['20']).toBeGreaterThan(0);

    // Fitted on lists that know every validation event: fused with them, the test lists keep what they know.
    const validation = lists.map(({ user }) => ({ user, items: [targetOf(dataset, user, 'validation') ?? 0] }));
    const fitted = await run(
      'fit_fusion',
      { ...RECIPES.fusion, cooccurrence: RECIPES.evaluate.cooccurrence },
      { ...data, lists_0: await listsFile('validation', validation, 1) },
    );
    const fusion = JSON.parse(await readFile(fitted['fusion'] ?? '', 'utf8')) as Fusion;
    expect(fusion.validation).toMatchObject({ users: 40, ndcg: { model: 1 }, fused: 1 });
    expect(fusion.cooccurrence).toEqual(metrics.cooccurrence.settings);
    const fused = await run('fuse', { ...RECIPES.fusion, part: 'test', topK: 20 }, { ...inputs, ...fitted });
    const both = await run('evaluate', RECIPES.evaluate, {
      ...inputs,
      ...fitted,
      published_lists_0: fused['lists'] ?? '',
    });
    const withPublished = JSON.parse(await readFile(both['metrics'] ?? '', 'utf8')) as EvaluationReport;
    expect(withPublished.sources).toEqual(['model', 'published', 'popularity', 'cooccurrence']);
    expect(withPublished.model).toEqual(metrics.model);
    expect(withPublished.published?.hr['1']).toBeGreaterThanOrEqual(0.5);
    expect(withPublished.published?.hr['20']).toBeGreaterThan(metrics.model.hr['20'] ?? 1);
    expect(withPublished.overCooccurrence['published']?.intervals.hr['1']?.low).toBeGreaterThan(0);

    const fresh = Array.from({ length: 40 }, (_, user) => ({
      user,
      items: [eventsOf(dataset, user)[0] ?? 0, 5, 5, 6, 7],
    }));
    const published = await run('assemble', { k: 2 }, { ...data, lists_0: await listsFile('fresh', fresh, 6) });
    const lines = (await readFile(published['published'] ?? '', 'utf8')).trimEnd().split('\n');
    expect(lines).toHaveLength(40);
    const catalogue = (await readFile(data['catalogue'] ?? '', 'utf8')).trimEnd().split('\n');
    const ids = catalogue.map((line) => (JSON.parse(line) as { item: string }).item);
    lines.forEach((line, user) => {
      const list = JSON.parse(line) as PublishedList;
      const history = [...eventsOf(dataset, user)];
      const expected = [5, 6, 7].filter((item) => !history.includes(item)).slice(0, 2);
      expect(list.items).toEqual(expected.map((item) => ids[item]));
      expect(list.scores).toHaveLength(expected.length);
      expect(list.historyHash).toBe(historyHashOf(history.map((item) => ids[item] ?? '')));
    });
  });

  it('write the same bytes when run again', { timeout: 20_000 }, async () => {
    const digests = async (): Promise<string[]> => {
      const shop = await run('simulate', SIMULATE, {});
      const data = await run('ingest', RECIPES.ingest, {
        interactions: shop['interactions'] ?? '',
        items: shop['items'] ?? '',
      });
      const items = readDataset(await SafetensorsFile.open(data['dataset'] ?? ''), 'dataset').itemCount;
      const text = await run('text_vectors', RECIPES.textVectors, data);
      const rendered = await run('render', RECIPES.render, { ...data, codes: await codesFor(items) });
      const files = Object.values({ ...shop, ...data, ...text, ...rendered });
      const contents = await Promise.all(files.map((path) => readFile(path)));
      return contents.map((content) => createHash('sha256').update(content).digest('hex'));
    };
    expect(await digests()).toEqual(await digests());
  });
});

describe('text vectors that a user brings', () => {
  const vectors = { shape: [3, 2], data: Float32Array.of(3, 4, 0, 0, 5, 0) };
  const dataOf = async (): Promise<Record<string, string>> =>
    run(
      'ingest',
      { ...RECIPES.ingest, format: 's3rec' },
      { interactions: await folder.write('v', 'u 7 8 9\nv 9 8\n') },
    );
  const idsOf = async (data: Record<string, string>): Promise<string[]> => {
    const lines = (await readFile(data['catalogue'] ?? '', 'utf8')).trimEnd().split('\n');
    return lines.map((line) => (JSON.parse(line) as { item: string }).item);
  };
  const rowsOf = async (path: string | undefined, ids: string[]): Promise<Record<string, number[]>> => {
    const { data, shape } = (await SafetensorsFile.open(path ?? '')).f32('items', [-1, -1]);
    expect(shape).toEqual([ids.length, 2]);
    return Object.fromEntries(ids.map((id, index) => [id, [...data.subarray(2 * index, 2 * index + 2)]]));
  };

  it('come to the order of the items, of length one, by numbers or by names', async () => {
    const data = await dataOf();
    const ids = await idsOf(data);
    const brought = join(folder.path, 'brought');
    const byNumber = { vectors, item_id: { shape: [3], data: Int32Array.of(9, 8, 1) } };
    await writeSafetensors(brought, byNumber);
    const aligned = await run('text_vectors', {}, { ...data, vectors: brought });
    const rows = await rowsOf(aligned['text_vectors'], ids);
    expect(rows['9']).toEqual([Math.fround(0.6), Math.fround(0.8)]);
    expect([rows['8'], rows['7']]).toEqual([
      [0, 0],
      [0, 0],
    ]);
    await writeSafetensors(brought, { vectors }, { items: JSON.stringify(['7', '1', '8']) });
    const named = await rowsOf((await run('text_vectors', {}, { ...data, vectors: brought }))['text_vectors'], ids);
    expect([named['7'], named['8'], named['9']]).toEqual([
      [Math.fround(0.6), Math.fround(0.8)],
      [1, 0],
      [0, 0],
    ]);
  });

  it('are refused when no id is of the catalogue, or an id comes twice', async () => {
    const data = await dataOf();
    const brought = join(folder.path, 'refused');
    await writeSafetensors(brought, { vectors, item_id: { shape: [3], data: Int32Array.of(1, 2, 3) } });
    const job = (): Promise<unknown> => run('text_vectors', {}, { ...data, vectors: brought });
    await expect(job()).rejects.toThrow(/expected ids of the catalogue such as .*7.*, got none of them but 1, 2, 3/);
    await writeSafetensors(brought, { vectors, item_id: { shape: [3], data: Int32Array.of(7, 7, 8) } });
    await expect(job()).rejects.toThrow(/expected one row an item, got 1 ids twice/);
  });
});

describe('render with every task', () => {
  it('gives examples that a tokenizer of its own reads back, with tasks and groups', { timeout: 20_000 }, async () => {
    const shop = await run('simulate', SIMULATE, {});
    const data = await run('ingest', RECIPES.ingest, {
      interactions: shop['interactions'] ?? '',
      items: shop['items'] ?? '',
    });
    const items = readDataset(await SafetensorsFile.open(data['dataset'] ?? ''), 'dataset').itemCount;
    const { tasks } = resolveRecipes({
      render: {
        tasks: { text: { weight: 1 }, query: { weight: 1 }, negative: { weight: 1 }, ranking: { weight: 0.5 } },
      },
    }).render;
    const rendered = await run('render', { ...RECIPES.render, tasks }, { ...data, codes: await codesFor(items) });
    const file = await SafetensorsFile.open(rendered['train_examples'] ?? '');
    const task = file.u8('tasks', [-1]).data;
    const { data: groups } = file.i64('groups', [task.length + 1]);
    expect(file.metadata['tasks']).toBe('sequential text query negative ranking');
    expect(new Set(task)).toEqual(new Set([0, 1, 2, 3, 4]));
    task.forEach((number, example) => {
      expect((groups[example + 1] ?? 0) - (groups[example] ?? 0)).toBe(number === 4 ? 4 : 1);
    });
    const vocabulary = await SafetensorsFile.open(rendered['vocabulary'] ?? '');
    const [size = 0] = vocabulary.i64('sizes', [2]).data;
    expect(file.i32('tokens', [-1]).data.every((token) => token >= 0 && token < size)).toBe(true);
  });

  it('refuses an unknown field of the text and a weight that is none', async () => {
    const inputs = { dataset: '', catalogue: '', codes: '' };
    await expect(run('render', { ...RECIPES.render, textOrder: ['title', 'price'] }, inputs)).rejects.toThrow(
      /render\.textOrder: expected a list of different ones of title, brand, categories, keywords, description/,
    );
    const tasks = { ...RECIPES.render.tasks, text: { weight: -1, templates: ['{title} => {item}'] } };
    await expect(run('render', { ...RECIPES.render, tasks }, inputs)).rejects.toThrow(
      /render\.tasks\.text\.weight: expected a number ≥ 0, got -1/,
    );
  });
});

describe('bad input of the domain jobs', () => {
  it('names a missing input, a missing recipe field and a wrong one', async () => {
    await expect(run('ingest', RECIPES.ingest, {})).rejects.toThrow("expected the input 'interactions', got none");
    await expect(run('simulate', { seed: 1 }, {})).rejects.toThrow(
      /simulate\.items: expected an integer ≥ 1, got nothing/,
    );
    await expect(run('ingest', { ...RECIPES.ingest, format: 'xml' }, {})).rejects.toThrow(
      /ingest\.format: expected one of collimate, s3rec, recbole, amazon, movielens, csv, ndjson, got "xml"/,
    );
    await expect(run('evaluate', { k: [10] }, {})).rejects.toThrow(/evaluate\.cooccurrence: expected an object/);
  });

  it('refuses lists that miss a user or hold one twice', async () => {
    const interactions = await folder.write('log', 'u a b c\nv a b c\n');
    const data = await run('ingest', { ...RECIPES.ingest, format: 's3rec' }, { interactions });
    const lists_0 = await listsFile('one', [{ user: 0, items: [1] }], 2);
    await expect(run('evaluate', RECIPES.evaluate, { ...data, lists_0 })).rejects.toThrow(
      /expected a list for user 1, got none/,
    );
    await expect(run('assemble', { k: 5 }, { ...data, lists_0, lists_1: lists_0 })).rejects.toThrow(/got user 0 twice/);
    await expect(run('evaluate', RECIPES.evaluate, data)).rejects.toThrow(/expected inputs lists_0/);
    const all = await listsFile(
      'all',
      [0, 1].map((user) => ({ user, items: [2] })),
      2,
    );
    const withDense = { ...data, lists_0: all, dense_lists_0: lists_0 };
    await expect(run('evaluate', RECIPES.evaluate, withDense)).rejects.toThrow(/expected a list for user 1, got none/);
  });
});
