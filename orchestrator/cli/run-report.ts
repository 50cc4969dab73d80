/**
 * What a finished run found, read back from the artifact store: metrics beside their baselines, one user's list by title.
 *
 * 1. Only the store is read: the report can be made again at any time after the run.
 */
import { readFile } from 'node:fs/promises';

import { type Digest, type Json, type JsonObject, type RunResult } from '../../workflows/contract.js';
import { type ArtifactStore } from '../artifacts/store.js';
import { eventsOf, readDataset } from '../recommender/dataset.js';
import { SafetensorsFile } from '../recommender/safetensors.js';
import { CliError } from './cli-error.js';
import { bold, dim, table } from './output.js';

const CUTOFFS = ['5', '10'] as const;
const SHOWN_ITEMS = 10;

export interface QualityRow {
  name: string;
  hr: Record<string, number>;
  ndcg: Record<string, number>;
}

export interface UserReport {
  user: string;
  history: { item: string; title: string }[];
  list: { item: string; title: string; score: number }[];
}

export interface RunReport {
  runId: string;
  resultDigest: Digest;
  /** The model first. */
  quality: QualityRow[];
  usersEvaluated: number | null;
  user: UserReport | null;
}

export async function makeReport(store: ArtifactStore, result: RunResult): Promise<RunReport> {
  const metrics = (await store.readJson(outputOf(result, 'evaluate', 'metrics'))) as JsonObject;
  const quality = qualityRows(metrics);
  const oracle = result.jobs['simulate']?.outputs['oracle'];
  if (oracle !== undefined) {
    const row = asQuality('oracle', await store.readJson(oracle));
    if (row !== null) quality.push(row);
  }
  return {
    runId: result.runId,
    resultDigest: result.resultDigest,
    quality,
    usersEvaluated: typeof metrics['users'] === 'number' ? metrics['users'] : null,
    user: result.jobs['assemble'] === undefined ? null : await firstUser(store, result),
  };
}

function outputOf(result: RunResult, job: string, output: string): Digest {
  const digest = result.jobs[job]?.outputs[output];
  if (digest === undefined)
    throw new CliError('notFound', `expected output "${output}" of job "${job}" in run ${result.runId}`);
  return digest;
}

const MODEL_ROWS = ['model', 'published', 'dense', 'popularity', 'cooccurrence'];

function qualityRows(metrics: JsonObject): QualityRow[] {
  return MODEL_ROWS.map((name) => asQuality(name, metrics[name])).filter((row) => row !== null);
}

function asQuality(name: string, value: Json | undefined): QualityRow | null {
  if (value === null || typeof value !== 'object' || Array.isArray(value)) return null;
  const { hr, ndcg } = value as { hr?: Record<string, number>; ndcg?: Record<string, number> };
  return hr === undefined || ndcg === undefined ? null : { name, hr, ndcg };
}

/** The first user in the order of the data: nobody chose it. */
async function firstUser(store: ArtifactStore, result: RunResult): Promise<UserReport> {
  const datasetPath = await store.localPath(outputOf(result, 'ingest', 'dataset'));
  const dataset = readDataset(await SafetensorsFile.open(datasetPath), datasetPath);
  const lines = async (job: string, output: string): Promise<string[]> =>
    (await readFile(await store.localPath(outputOf(result, job, output)), 'utf8')).split('\n');
  const catalogue = await lines('ingest', 'catalogue');
  const itemAt = (index: number): { item: string; title: string } => {
    const { item, title } = JSON.parse(catalogue[index] ?? '{}') as { item: string; title: string };
    return { item, title };
  };
  const titles = new Map(catalogue.filter(Boolean).map((_, index) => [itemAt(index).item, itemAt(index).title]));
  const [line = ''] = await lines('assemble', 'published');
  const published = JSON.parse(line) as { user: string; items: string[]; scores: number[] };
  return {
    user: published.user,
    history: [...eventsOf(dataset, 0)].map(itemAt),
    list: published.items.slice(0, SHOWN_ITEMS).map((item, index) => ({
      item,
      title: titles.get(item) ?? '',
      score: published.scores[index] ?? 0,
    })),
  };
}

/** HR and NDCG of every row, and HR@10 of the model as a multiple of each baseline's. */
export function describeQuality(rows: QualityRow[]): string {
  const model = rows.find((row) => row.name === 'model');
  const columns = [
    { title: '' },
    ...CUTOFFS.flatMap((k) => [`HR@${k}`, `NDCG@${k}`]).map((title) => ({ title, align: 'right' as const })),
    { title: 'model / this, HR@10', align: 'right' as const },
  ];
  const cells = rows.map((row) => {
    const base = row.hr['10'] ?? 0;
    const ratio = row === model || base === 0 ? '' : `${((model?.hr['10'] ?? 0) / base).toFixed(2)} x`;
    return [row.name, ...CUTOFFS.flatMap((k) => [fixed(row.hr[k]), fixed(row.ndcg[k])]), ratio];
  });
  return table(columns, cells);
}

function fixed(value: number | undefined): string {
  return value === undefined ? '-' : value.toFixed(4);
}

export function describeUser(user: UserReport): string {
  const shown = user.history.slice(-SHOWN_ITEMS);
  const left = user.history.length - shown.length;
  return [
    bold(`user ${user.user}: the last of ${user.history.length} events`),
    ...(left > 0 ? [dim(`  (${left} earlier ones)`)] : []),
    ...shown.map(({ item, title }) => `  ${item.padEnd(10)} ${title}`),
    bold('and the list for this user'),
    ...user.list.map(
      ({ item, title, score }, index) =>
        `  ${String(index + 1).padStart(2)}. ${score.toFixed(3).padStart(8)}  ${item.padEnd(10)} ${title}`,
    ),
  ].join('\n');
}
