/**
 * The runs of a sweep, resolved: which plan each combination stands for, and under which id it runs.
 *
 * 1. The id of a run is a digest of everything that can change its result (and of the engine), so that the same sweep, started again
 *    anywhere on the same store, finds the runs that it has: going on after a crash needs nothing else.
 * 2. Combinations that come to the same plan are one run.
 * 3. A sweep publishes nothing unless its settings say so: what is served must not depend on which run ends last.
 * 4. Everything is checked before anything is stored.
 */
import { dirname } from 'node:path';

import { type Digest, type RunPlan, type StageName, STAGES } from '../../workflows/contract.js';
import { canonicalJson, sha256Hex } from '../artifacts/job-key.js';
import { readBuildInfo } from '../build-info.js';
import { CliError } from './cli-error.js';
import { loadRunFile } from './run-file.js';
import { type PlanStore, type ResolvedRun, resolveRun, storeInputs } from './run-plan.js';
import { cellsOf, type Settings, type Sweep, type SweepCell, type SweepMetric } from './sweep-file.js';

/** A run of a sweep waits for its turn among the others, not for workers that are missing. */
const WAIT_SECONDS = 7 * 24 * 3600;
const MESSAGES_MAX = 10;
const METRIC_K = 10;

export interface SweepRun {
  /** Combinations that it stands for; the first one names it. */
  cells: SweepCell[];
  /** `runId` is that of the first attempt. */
  plan: RunPlan;
}

export interface ResolvedSweep {
  sweep: Sweep;
  cells: { cell: SweepCell; run: ResolvedRun }[];
  metric: SweepMetric;
}

export function resolveSweep(sweep: Sweep, runsMax: number): ResolvedSweep {
  const cells: ResolvedSweep['cells'] = [];
  const messages = new Set<string>();
  for (const cell of cellsOf(sweep, runsMax)) {
    try {
      cells.push({ cell, run: resolveCell(sweep, cell) });
    } catch (error) {
      if (!(error instanceof CliError) || error.exit !== 'badInput') throw error;
      messages.add(error.message);
    }
  }
  if (messages.size > 0) {
    const shown = [...messages].slice(0, MESSAGES_MAX);
    const left = messages.size - shown.length;
    throw new CliError('badInput', [...shown, ...(left > 0 ? [`(${left} more)`] : [])].join('\n'));
  }
  return { sweep, cells, metric: metricFor(sweep, cells) };
}

/** `put` is called once for each file. */
export async function storeSweep({ sweep, cells }: ResolvedSweep, store: PlanStore): Promise<SweepRun[]> {
  const stored = new Map<string, Promise<Digest>>();
  const putOnce = (path: string): Promise<Digest> => {
    const digest = stored.get(path) ?? store.putFile(path);
    stored.set(path, digest);
    return digest;
  };
  const runs = new Map<string, SweepRun>();
  for (const { cell, run } of cells) {
    const plan = await storeInputs(run, { putFile: putOnce, readRunFile: (...file) => store.readRunFile(...file) });
    plan.runId = `${sweep.name}-${identityOf(plan).slice(0, 12)}`;
    const same = runs.get(plan.runId);
    if (same === undefined) runs.set(plan.runId, { cells: [cell], plan });
    else same.cells.push(cell);
  }
  return [...runs.values()];
}

/** Digest of a run's plan up to and including each stage: runs with equal ones share the jobs of the stages so far. */
export function stagePrefixes(plan: RunPlan): Record<StageName, string> {
  const { recipes, inputs, baseFiles, earlierIds = null, numericsClass, rankShardPrompts, publish } = plan;
  const {
    simulate,
    ingest,
    dccf,
    textVectors,
    codebooks,
    rqvae = null,
    alignment = null,
    rank,
    evaluate,
    assemble,
    ...tuned
  } = recipes;
  // `tuned` is render, tune and whatever recipes come later. One that is counted too early costs a shared job that is made twice.
  const added: Record<StageName, unknown> = {
    ingest: [numericsClass, inputs, simulate, ingest],
    embed: [dccf, textVectors],
    align_tokens: [codebooks, rqvae, alignment, earlierIds],
    align_tasks: [tuned, baseFiles],
    evaluate: [rank, rankShardPrompts, evaluate],
    publish: [publish, assemble],
  };
  let before = '';
  const prefixes = STAGES.map((stage) => {
    before = sha256Hex(canonicalJson([before, added[stage]]));
    return [stage, before] as const;
  });
  return Object.fromEntries(prefixes) as Record<StageName, string>;
}

function resolveCell(sweep: Sweep, cell: SweepCell): ResolvedRun {
  const all: Settings = { publish: false, ...cell.settings };
  const texts = Object.entries(all).map(([path, value]) => `${path}=${JSON.stringify(value)}`);
  const loaded = loadRunFile(sweep.base, texts, `${sweep.file}: setting `);
  const run = resolveRun(
    { ...loaded, value: { ...loaded.value, name: sweep.name } },
    { baseFolder: dirname(sweep.base) },
  );
  const { fleet } = run.plan;
  const asked = sweep.workersMax ?? (sweep.parallel > 1 ? fleet.min : fleet.max);
  run.plan.fleet = { ...fleet, max: Math.max(fleet.min, asked), waitSeconds: WAIT_SECONDS };
  return run;
}

function identityOf(plan: RunPlan): string {
  const { recipes, inputs, baseFiles, earlierIds = null, numericsClass, rankShardPrompts, publish } = plan;
  const { engineRevision } = readBuildInfo();
  return sha256Hex(
    canonicalJson({
      ...{ recipes, inputs, baseFiles, numericsClass, rankShardPrompts, publish, engineRevision },
      ...(earlierIds === null ? {} : { earlierIds }),
    }),
  );
}

/** The metric that is plotted and chosen by: the file's, else NDCG at 10 or at the largest cut-off that all runs have. */
function metricFor(sweep: Sweep, cells: ResolvedSweep['cells']): SweepMetric {
  const cutoffs = cells.map(({ run }) => run.plan.recipes.evaluate['k'] as number[]);
  const common = (cutoffs[0] ?? []).filter((k) => cutoffs.every((list) => list.includes(k)));
  if (sweep.metric !== null && !common.includes(sweep.metric.k)) {
    throw new CliError(
      'badInput',
      `${sweep.file}: metric: expected one of the cut-offs that all runs have (evaluate.k: ${common.join(', ')}), got ${sweep.metric.k}`,
    );
  }
  if (sweep.metric !== null) return sweep.metric;
  const k = common.includes(METRIC_K) ? METRIC_K : common.at(-1);
  if (k === undefined)
    throw new CliError('badInput', `${sweep.file}: expected a cut-off in evaluate.k that all runs have`);
  return { kind: 'ndcg', k };
}
