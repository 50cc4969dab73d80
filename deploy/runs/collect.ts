/**
 * Takes the result of a finished run into docs/results.json:
 * `node dist/deploy/runs/collect.js --home DIR --set-name Beauty --run-file deploy/runs/beauty.yaml [--setting key=value …] RUN`,
 * then `npm run generate`.
 *
 * 1. A configuration (set, run file, settings) that is there already is replaced in its place.
 */
import { join } from 'node:path';
import { parseArgs } from 'node:util';

import { replaceFile } from '../../orchestrator/artifacts/durable-file.js';
import { projectRoot } from '../../orchestrator/build-info.js';
import { type ArtifactStore } from '../../orchestrator/artifacts/store.js';
import { withStore } from '../../orchestrator/cli/command-context.js';
import { readFinishedRun } from '../../orchestrator/cli/finished-run.js';
import { homeAt } from '../../orchestrator/cli/home.js';
import { readRunJournal } from '../../orchestrator/cli/run-journal.js';
import { type EvaluationReport, type SourceMetrics } from '../../orchestrator/recommender/evaluation.js';
import { type Fusion } from '../../orchestrator/recommender/fusion-file.js';
import {
  commandOf,
  readResults,
  RESULT_SOURCES,
  type ResultRun,
  RESULTS_JSON,
  type ResultSource,
  type SourceResult,
} from './results.js';

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    home: { type: 'string' },
    'set-name': { type: 'string' },
    'run-file': { type: 'string' },
    setting: { type: 'string', multiple: true, default: [] },
  },
});
const [runId] = positionals;
const { 'set-name': set, 'run-file': runFile, setting: settings } = values;
if (runId === undefined || set === undefined || runFile === undefined) {
  console.error('expected --home DIR --set-name NAME --run-file FILE [--setting key=value …] RUN');
  process.exit(2);
}

const run = await withStore(homeAt(values.home), (store) => resultOf(store, { runId, set, runFile, settings }));
const results = readResults();
const place = results.runs.findIndex((other) => other.set === set && commandOf(other) === commandOf(run));
if (place < 0) results.runs.push(run);
else results.runs[place] = run;
results.runs.sort((a, b) => a.set.localeCompare(b.set));
await replaceFile(join(projectRoot(), RESULTS_JSON), `${JSON.stringify(results, null, 2)}\n`);
console.error(`${RESULTS_JSON} has ${runId}; now "npm run generate"`);

async function resultOf(
  store: ArtifactStore,
  of: { runId: string; set: string; runFile: string; settings: string[] },
): Promise<ResultRun> {
  const { result } = await readFinishedRun(store, of.runId);
  const status = await readRunJournal(store, of.runId);
  const metricsDigest = result.jobs['evaluate']?.outputs['metrics'];
  if (metricsDigest === undefined) throw new Error(`expected a run with an evaluation, got ${of.runId} without`);
  const metrics = (await store.readJson(metricsDigest)) as unknown as EvaluationReport;
  const fusion = result.jobs['fit_fusion']?.summary as Fusion | undefined;
  const sources = RESULT_SOURCES.flatMap((name): [ResultSource, SourceResult][] => {
    const source = metrics[name];
    return source === undefined ? [] : [[name, sourceResult(source)]];
  });
  return {
    set: of.set,
    runFile: of.runFile,
    settings: of.settings,
    date: new Date().toISOString().slice(0, 10),
    users: metrics.users,
    items: metrics.items,
    numericsClass: result.numericsClass,
    resultDigest: result.resultDigest,
    seconds: Object.values(status.seconds).reduce((sum, part) => sum + part, 0),
    sources: Object.fromEntries(sources),
    fusionWeights: fusion?.weights ?? null,
    validationNdcg10: fusion === undefined ? null : { ...fusion.validation.ndcg, published: fusion.validation.fused },
  };
}

function sourceResult({ hr, ndcg, intervals }: SourceMetrics): SourceResult {
  const { low, high } = intervals.ndcg['10'] ?? { low: 0, high: 0 };
  return { hr, ndcg, ndcg10Interval: { low, high } };
}
