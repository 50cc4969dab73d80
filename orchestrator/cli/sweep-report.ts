/**
 * What a sweep found: one row for each combination, a table, and which one is best where that may be said.
 *
 * 1. The best is chosen by validation events: those that the fusion was fitted on, on which the model alone is measured too
 *    (NDCG@10). Metrics of the test events are shown and never chosen by: where a run has no validation metrics, none is named.
 * 2. Rows are read from the store alone.
 */
import { type JsonObject, type RunSeconds } from '../../workflows/contract.js';
import { type ArtifactStore } from '../artifacts/store.js';
import { FITTED_CUTOFF } from '../recommender/fusion.js';
import { formatSeconds, table } from './output.js';
import { metricName, type SweepMetric } from './sweep-file.js';
import { type SweepOutcome } from './sweep-runner.js';

/** Values of the sweep's metric, by the row's name in the run's report. */
export type RowMetrics = Record<string, number>;

export interface SweepRow {
  /** Value of each axis. */
  values: Record<string, string>;
  runId: string;
  state: SweepOutcome['state'];
  failure: string | null;
  /** On test events. */
  test: { hr: RowMetrics; ndcg: RowMetrics };
  /** The model's value of the metric on validation events; null where the run has none. */
  validation: number | null;
  /** Wall clock of the run; null where it is not known. */
  seconds: number | null;
  resultDigest: string | null;
  numericsClass: string | null;
}

export interface SweepReport {
  name: string;
  metric: SweepMetric;
  axes: string[];
  rows: SweepRow[];
  /** Run id of the row that the others are held against, as in an ablation; null: none is. */
  heldAgainst: string | null;
  /** Run id; null: not to be said. */
  best: string | null;
  /** Why no best is named, or by what it was chosen. */
  choice: string;
}

export const MODEL_ROW = 'model';
/** Of the run's report, in the order in which they are shown. */
const SHOWN_ROWS = [MODEL_ROW, 'published', 'cooccurrence', 'popularity'];

export interface SweepFindings {
  name: string;
  metric: SweepMetric;
  axes: string[];
  outcomes: SweepOutcome[];
  /** The first row is what the others are held against. */
  firstIsWhole: boolean;
}

export async function makeSweepReport(
  store: ArtifactStore,
  { name, metric, axes, outcomes, firstIsWhole }: SweepFindings,
): Promise<SweepReport> {
  const rows: SweepRow[] = [];
  for (const outcome of outcomes) {
    const metrics = await metricsOf(store, outcome);
    const seconds = await secondsOf(store, outcome.runId);
    for (const { values } of outcome.run.cells) {
      rows.push({
        values,
        runId: outcome.runId,
        state: outcome.state,
        failure: outcome.failure,
        test: {
          hr: valuesOf(metrics, { kind: 'hr', k: metric.k }),
          ndcg: valuesOf(metrics, { kind: 'ndcg', k: metric.k }),
        },
        validation: validationOf(outcome, metric),
        seconds,
        resultDigest: outcome.result?.resultDigest ?? null,
        numericsClass: outcome.result?.numericsClass ?? null,
      });
    }
  }
  const heldAgainst = firstIsWhole ? (rows[0]?.runId ?? null) : null;
  return { name, metric, axes, rows, heldAgainst, ...chooseBest(rows, metric) };
}

/** The first of equals, in the order of the sweep. */
export function chooseBest(
  rows: Pick<SweepRow, 'runId' | 'state' | 'validation'>[],
  metric: SweepMetric,
): Pick<SweepReport, 'best' | 'choice'> {
  const done = rows.filter(({ state }) => state === 'done');
  if (done.length === 0) return { best: null, choice: 'no best: no run came to its end' };
  if (done.some(({ validation }) => validation === null)) {
    return {
      best: null,
      choice:
        'no best is named: these runs have no metrics on validation events, and test events are not to be chosen by',
    };
  }
  const best = done.reduce((a, b) => ((b.validation ?? 0) > (a.validation ?? 0) ? b : a));
  return { best: best.runId, choice: `best by ${metricName(metric)} on validation events` };
}

export function describeSweep(report: SweepReport): string {
  const { axes, rows, metric, best } = report;
  const baselines = SHOWN_ROWS.filter((name) => rows.some(({ test }) => test.ndcg[name] !== undefined));
  const right = 'right' as const;
  const columns = [
    ...axes.map((title) => ({ title })),
    ...baselines.flatMap((name) => [
      { title: `${name} HR@${metric.k}`, align: right },
      { title: `NDCG@${metric.k}`, align: right },
    ]),
    ...(report.heldAgainst === null ? [] : [{ title: 'change', align: right }]),
    { title: 'validation', align: right },
    { title: 'time', align: right },
    { title: 'run' },
  ];
  const cells = rows.map((row) => [
    ...axes.map((axis) => row.values[axis] ?? ''),
    ...baselines.flatMap((name) => [fixed(row.test.hr[name]), fixed(row.test.ndcg[name])]),
    ...(report.heldAgainst === null ? [] : [changeOf(row, report)]),
    fixed(row.validation ?? undefined),
    row.seconds === null ? '-' : formatSeconds(row.seconds),
    row.state === 'done' ? `${row.runId}${row.runId === best ? '  *' : ''}` : `${row.runId} (${row.state})`,
  ]);
  return `${table(columns, cells)}\n${best === null ? '' : '* '}${report.choice}`;
}

/** Of the metric on test events, against the row that the others are held against; '' where that says nothing. */
export function changeOf(row: SweepRow, { rows, heldAgainst, metric }: SweepReport): string {
  const whole = rows.find(({ runId }) => runId === heldAgainst)?.test[metric.kind][MODEL_ROW];
  const value = row.test[metric.kind][MODEL_ROW];
  if (whole === undefined || value === undefined || row.runId === heldAgainst) return '';
  const change = value - whole;
  return `${change < 0 ? '-' : '+'}${Math.abs(change).toFixed(4)}`;
}

/** Classes of the runs; more than one means that rows differ by more than their settings. */
export function numericsClassesOf({ rows }: SweepReport): string[] {
  return [...new Set(rows.map(({ numericsClass }) => numericsClass).filter((name) => name !== null))].sort();
}

export function fixed(value: number | undefined): string {
  return value === undefined ? '-' : value.toFixed(4);
}

async function metricsOf(store: ArtifactStore, { result }: SweepOutcome): Promise<JsonObject> {
  const digest = result?.jobs['evaluate']?.outputs['metrics'];
  return digest === undefined ? {} : ((await store.readJson(digest)) as JsonObject);
}

function valuesOf(metrics: JsonObject, { kind, k }: SweepMetric): RowMetrics {
  const values = SHOWN_ROWS.map((name) => [name, numberAt(metrics, [name, kind, String(k)])] as const);
  return Object.fromEntries(values.filter((entry): entry is [string, number] => entry[1] !== null));
}

export function validationOf({ result }: Pick<SweepOutcome, 'result'>, { kind, k }: SweepMetric): number | null {
  if (kind !== 'ndcg' || k !== FITTED_CUTOFF) return null;
  return numberAt(result?.jobs['fit_fusion']?.summary, ['validation', 'ndcg', MODEL_ROW]);
}

function numberAt(value: unknown, path: string[]): number | null {
  let found = value;
  for (const key of path) {
    if (found === null || typeof found !== 'object') return null;
    found = (found as Record<string, unknown>)[key];
  }
  return typeof found === 'number' ? found : null;
}

async function secondsOf(store: ArtifactStore, runId: string): Promise<number | null> {
  const bytes = await store.readRunFile(runId, 'seconds.json');
  if (bytes === null) return null;
  const seconds = JSON.parse(bytes.toString('utf8')) as RunSeconds;
  return Object.values(seconds).reduce((sum, part) => sum + part, 0);
}
