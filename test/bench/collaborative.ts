/**
 * DCCF against LightGCN and popularity, trained by the same code on a split that others use: Recall and NDCG at 20 and 40, full
 * ranking, training items left out.
 *
 *   npm run bench:collaborative -- --data DIR [--epochs 40] [--batch 4096] [--rate 0.002] [--decay 2.5e-5] [--contrast 0.1] [--threads 2] [--models lightgcn,dccf]
 *
 * DIR has train.txt.gz, valid.txt.gz and test.txt.gz; one user a line: its number, then those of its items.
 *
 * 1. Validation events are for choosing the settings above; both parts are printed, so that the choice can be seen.
 */
import { readFileSync } from 'node:fs';
import { mkdir, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { gunzipSync } from 'node:zlib';

import { runNativeJob } from '../../orchestrator/cli/native-job.js';
import { int64 } from '../../orchestrator/recommender/dataset.js';
import { SafetensorsFile, writeSafetensors } from '../../orchestrator/recommender/safetensors.js';
import { type JsonObject } from '../../workflows/contract.js';

const { values } = parseArgs({
  options: {
    data: { type: 'string' },
    epochs: { type: 'string', default: '40' },
    batch: { type: 'string', default: '4096' },
    rate: { type: 'string', default: '0.002' },
    decay: { type: 'string', default: '2.5e-5' },
    contrast: { type: 'string', default: '0.1' },
    threads: { type: 'string', default: '2' },
    models: { type: 'string', default: 'lightgcn,dccf' },
  },
});
const CUTOFFS = [20, 40];
const DIM = 32;

/** Items by user. */
type Part = Map<number, number[]>;

function readPart(folder: string, name: string): Part {
  const text = gunzipSync(readFileSync(join(folder, `${name}.txt.gz`))).toString('utf8');
  const rows = text.split('\n').filter(Boolean);
  return new Map(
    rows.map((row) => {
      const [user = 0, ...items] = row.trim().split(/\s+/).map(Number);
      return [user, [...new Set(items)].sort((a, b) => a - b)];
    }),
  );
}

const largest = (numbers: Iterable<number>): number => {
  let most = -1;
  for (const number of numbers) most = Math.max(most, number);
  return most;
};

type Score = (user: number, scores: Float32Array) => void;

/** Mean over the users of `part` of Recall@k and NDCG@k; equal scores rank by item. */
function quality(train: Part, part: Part, items: number, score: Score): string {
  const scores = new Float32Array(items);
  const deepest = Math.max(...CUTOFFS);
  const recall = CUTOFFS.map(() => 0);
  const ndcg = CUTOFFS.map(() => 0);
  let users = 0;
  for (const [user, wanted] of part) {
    if (wanted.length === 0) continue;
    users += 1;
    score(user, scores);
    for (const item of train.get(user) ?? []) scores[item] = -Infinity;
    const top = bestOf(scores, deepest);
    const found = new Set(wanted);
    CUTOFFS.forEach((k, at) => {
      let hits = 0;
      let gain = 0;
      let ideal = 0;
      for (let place = 0; place < k; place += 1) {
        const discount = 1 / Math.log2(place + 2);
        if (place < wanted.length) ideal += discount;
        if (!found.has(top[place] ?? -1)) continue;
        hits += 1;
        gain += discount;
      }
      recall[at] = (recall[at] ?? 0) + hits / wanted.length;
      ndcg[at] = (ndcg[at] ?? 0) + gain / ideal;
    });
  }
  const mean = (sums: number[]): string => sums.map((sum) => (sum / users).toFixed(4)).join(' / ');
  return `Recall ${mean(recall)}  NDCG ${mean(ndcg)}  (${String(users)} users)`;
}

/** The `count` best items, best first: a short sorted list that each score is held against. */
function bestOf(scores: Float32Array, count: number): number[] {
  const items: number[] = [];
  const held: number[] = [];
  for (let item = 0; item < scores.length; item += 1) {
    const score = scores[item] ?? -Infinity;
    if (held.length === count && score <= (held[count - 1] ?? 0)) continue;
    let place = held.length;
    while (place > 0 && (held[place - 1] ?? 0) < score) place -= 1;
    held.splice(place, 0, score);
    items.splice(place, 0, item);
    if (held.length > count) {
      held.pop();
      items.pop();
    }
  }
  return items;
}

if (values.data === undefined) throw new Error('--data: expected the folder of train, valid and test.txt.gz');
const none: Part = new Map();
const parts = Object.fromEntries(['train', 'valid', 'test'].map((name) => [name, readPart(values.data ?? '', name)]));
const { train = none, valid = none, test = none } = parts;
const every = Object.values(parts);
const users = 1 + largest(every.flatMap((part) => [...part.keys()]));
const items = 1 + largest(every.flatMap((part) => [...part.values()].map((row) => largest(row))));
const degree = new Float32Array(items);
for (const row of train.values()) for (const item of row) degree[item] = (degree[item] ?? 0) + 1;

const report = (name: string, score: Score): void => {
  console.log(`${name.padEnd(12)} valid  ${quality(train, valid, items, score)}`);
  console.log(`${''.padEnd(12)} test   ${quality(train, test, items, score)}`);
};
console.log(`${String(users)} users, ${String(items)} items; at ${CUTOFFS.join(' / ')}`);
report('popularity', (_, scores) => scores.set(degree));

const folder = await mkdtemp(join(tmpdir(), 'collimate-bench-'));
try {
  const edges = [...train].sort(([a], [b]) => a - b).flatMap(([user, row]) => row.map((item) => [user, item] as const));
  const graph = join(folder, 'graph.safetensors');
  await writeSafetensors(graph, {
    users: { shape: [edges.length], data: Int32Array.from(edges, ([user]) => user) },
    items: { shape: [edges.length], data: Int32Array.from(edges, ([, item]) => item) },
    counts: { shape: [2], data: int64([users, items]) },
  });
  const common = {
    ...{ dim: DIM, layers: 2, temperature: 1, contrastRowsMax: 1024, seed: 1 },
    ...{ epochs: Number(values.epochs), batchSize: Number(values.batch) },
    ...{ learningRate: Number(values.rate), weightDecay: Number(values.decay) },
  };
  const recipes: Record<string, JsonObject> = {
    lightgcn: { ...common, intents: 0, intentWeight: 0, contrastWeight: 0 },
    dccf: { ...common, intents: 128, intentWeight: 5e-3, contrastWeight: Number(values.contrast) },
  };
  for (const name of values.models.split(',')) {
    const recipe = recipes[name];
    if (recipe === undefined) throw new Error(`--models: expected lightgcn or dccf, got "${name}"`);
    const outputDir = join(folder, name);
    await mkdir(outputDir);
    const started = Date.now();
    const job = { kind: 'dccf', recipe, inputs: { graph }, outputDir, threads: Number(values.threads) };
    const { outputs } = await runNativeJob(job);
    const file = await SafetensorsFile.open(outputs['embeddings'] ?? '');
    const [ofUsers, ofItems] = [file.f32('users', [users, DIM]).data, file.f32('items', [items, DIM]).data];
    report(name, (user, scores) => {
      for (let item = 0; item < items; item += 1) {
        let sum = 0;
        for (let c = 0; c < DIM; c += 1) sum += (ofUsers[user * DIM + c] ?? 0) * (ofItems[item * DIM + c] ?? 0);
        scores[item] = sum;
      }
    });
    console.log(`${''.padEnd(12)} trained and scored in ${String(Math.round((Date.now() - started) / 1000))} s`);
  }
} finally {
  await rm(folder, { recursive: true });
}
