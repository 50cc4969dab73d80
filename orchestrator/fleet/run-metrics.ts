/** From what is heard of runs and of the fleet to the controller's metrics. */
import type { JobEvent__Output } from '../../proto/generated/collimate/v1/JobEvent.js';
import type { Incident, RunSeconds, StageName } from '../../workflows/contract.js';
import { recoveryPhases } from '../../workflows/timeline.js';
import type { Metrics, TargetGroup } from '../telemetry/metrics.js';
import { STEP_NUMBERS } from '../telemetry/registry.js';
import type { FleetRegistry } from './registry.js';

/** Shards of the fan-out of `rank` (workflows/rank-shards.ts). */
const RANK_JOB = /\/rank\/[a-z_]+\/\d+$/;
const ENDED_STATES = new Set(['done', 'failed', 'cancelled']);

interface CodebooksSummary {
  levels: { usage: number; perplexity: number; deadCodes: number; gini: number }[];
  uniqueRateBeforeFit: number;
  relativeError: number;
  heldOut: { relativeError: number } | null;
  /** Of `align_codes` alone. */
  alignment?: Record<'before' | 'after', { recallAt1: number; recallAt10: number }>;
}

interface RankSummary {
  searchLoss: {
    prompts: number;
    givenUp: number;
    bestMissed: number | null;
    bestGap: number | null;
    overlap: number | null;
  } | null;
}

export class RunMetrics {
  readonly #metrics: Metrics;

  constructor(metrics: Metrics) {
    this.#metrics = metrics;
  }

  jobEvent(
    { runId: run, stage, jobId }: { runId: string; stage: string; jobId?: string },
    event: JobEvent__Output,
  ): void {
    const metrics = this.#metrics;
    if (event.step != null) {
      const { step, stepsTotal } = event.step;
      // Jobs also report numbers that are no metric (users ranked, lines read); they stay in the event file.
      const known = Object.entries(event.step.metrics).filter(([name]) => Object.hasOwn(STEP_NUMBERS, name));
      metrics.recordStep({ run, stage, rank: event.rank, step, stepsTotal, numbers: Object.fromEntries(known) });
    } else if (event.checkpoint != null) {
      const { step, bytes, seconds } = event.checkpoint;
      metrics.observe('collimate_checkpoint_duration_seconds', { run, stage }, seconds);
      metrics.set('collimate_checkpoint_size_bytes', { run, stage }, bytes);
      metrics.set('collimate_checkpoint_step', { run, stage }, step);
      metrics.set('collimate_checkpoint_last_success_timestamp_seconds', { run, stage }, Date.now() / 1000);
    } else if (event.rank === 0 && event.finished != null) {
      metrics.inc('collimate_jobs_total', { run, stage, outcome: 'finished' });
      if (jobId?.endsWith('/codebooks') === true || jobId?.endsWith('/align_codes') === true)
        this.#codebooks(run, event.finished.resultJson);
      if (jobId !== undefined && RANK_JOB.test(jobId)) this.#searchLoss({ run, stage }, event.finished.resultJson);
    } else if (event.failed != null) {
      metrics.inc('collimate_jobs_total', { run, stage, outcome: 'failed' });
    }
  }

  /** What the summary of job `codebooks`, or of `align_codes` after it, says of its levels (native/JOBS.md). */
  #codebooks(run: string, resultJson: string): void {
    const { summary } = JSON.parse(resultJson) as { summary: CodebooksSummary };
    for (const [index, { usage, perplexity, deadCodes, gini }] of summary.levels.entries()) {
      const level = String(index + 1);
      this.#metrics.set('collimate_codebook_usage_ratio', { run, level }, usage);
      this.#metrics.set('collimate_codebook_perplexity', { run, level }, perplexity);
      this.#metrics.set('collimate_codebook_dead_codes', { run, level }, deadCodes);
      this.#metrics.set('collimate_codebook_gini_ratio', { run, level }, gini);
    }
    this.#metrics.set('collimate_codebook_collision_ratio', { run }, 1 - summary.uniqueRateBeforeFit);
    const { heldOut, alignment } = summary;
    this.#metrics.set('collimate_codebook_error_ratio', { run, items: 'all' }, summary.relativeError);
    if (heldOut !== null) {
      this.#metrics.set('collimate_codebook_error_ratio', { run, items: 'held_out' }, heldOut.relativeError);
    }
    if (alignment === undefined) return;
    for (const moment of ['before', 'after'] as const) {
      const { recallAt1, recallAt10 } = alignment[moment];
      this.#metrics.set('collimate_alignment_recall_ratio', { run, moment, cutoff: '1' }, recallAt1);
      this.#metrics.set('collimate_alignment_recall_ratio', { run, moment, cutoff: '10' }, recallAt10);
    }
  }

  /** The means that the summary of a rank shard holds, as sums: shards add up. */
  #searchLoss(labels: { run: string; stage: string }, resultJson: string): void {
    const { summary } = JSON.parse(resultJson) as { summary: RankSummary };
    if (summary.searchLoss === null) return;
    const { prompts, givenUp, bestMissed, bestGap, overlap } = summary.searchLoss;
    const metrics = this.#metrics;
    metrics.inc('collimate_search_compared_prompts_total', labels, prompts);
    metrics.inc('collimate_search_uncompared_prompts_total', labels, givenUp);
    metrics.inc('collimate_search_missed_prompts_total', labels, Math.round((bestMissed ?? 0) * prompts));
    metrics.inc('collimate_search_best_gap_total', labels, (bestGap ?? 0) * prompts);
    metrics.inc('collimate_search_overlap_total', labels, (overlap ?? 0) * prompts);
  }

  incident(run: string, { stage, cause, phases }: Incident, state: 'opened' | 'closed'): void {
    if (state === 'opened') {
      this.#metrics.inc('collimate_restarts_total', { run, stage, cause });
      return;
    }
    for (const { phase, seconds } of recoveryPhases(phases)) {
      if (seconds === null) continue;
      this.#metrics.observe('collimate_recovery_duration_seconds', { run, stage, phase }, seconds);
    }
  }

  seconds(run: string, seconds: RunSeconds): void {
    for (const [purpose, value] of Object.entries(seconds)) {
      this.#metrics.set('collimate_run_purpose_seconds', { run, purpose }, value);
    }
  }

  runState(run: string, stage: StageName | null, state: string): void {
    const metrics = this.#metrics;
    if (stage !== null) {
      metrics.setStageState({ run, stage, state });
      return;
    }
    if (state === 'running') metrics.set('collimate_run_start_timestamp_seconds', { run }, Date.now() / 1000);
    metrics.setRunState(run, state);
    if (ENDED_STATES.has(state)) metrics.removeRun(run);
  }
}

/** Keeps the fleet's gauges current. */
export function exportFleet(fleet: FleetRegistry, metrics: Metrics): void {
  const refresh = (): void => {
    const members = fleet.list();
    const leased = members.filter((member) => member.lease !== null).length;
    metrics.set('collimate_workers', { state: 'leased' }, leased);
    metrics.set('collimate_workers', { state: 'idle' }, members.length - leased);
    for (const { workerId: worker, lastSeenUnixSeconds } of members) {
      metrics.set('collimate_worker_last_seen_timestamp_seconds', { worker }, lastSeenUnixSeconds);
    }
  };
  fleet.on('changed', refresh);
  fleet.on('beat', refresh);
  fleet.on('joined', ({ workerId: worker, numericsClass: numerics_class, engineRevision: engine_revision }) => {
    metrics.set('collimate_worker_info', { worker, numerics_class, engine_revision }, 1);
  });
  fleet.on('lost', ({ workerId: worker, numericsClass: numerics_class, engineRevision: engine_revision }) => {
    metrics.inc('collimate_workers_lost_total', {});
    metrics.remove('collimate_worker_info', { worker, numerics_class, engine_revision });
    metrics.remove('collimate_worker_last_seen_timestamp_seconds', { worker });
  });
  refresh();
}

/** The workers that have joined, for Prometheus to scrape each under its name. */
export function scrapeTargets(fleet: FleetRegistry): TargetGroup[] {
  return fleet.list().flatMap(({ workerId: worker, address, metricsAddress }) => {
    if (metricsAddress === '') return [];
    const [host, port] = splitAtPort(metricsAddress);
    // A worker that listens everywhere is reached where its gRPC service is.
    const reached = WILDCARD_HOSTS.has(host) ? splitAtPort(address)[0] : host;
    return [{ targets: [`${reached}:${port}`], labels: { worker } }];
  });
}

const WILDCARD_HOSTS = new Set(['0.0.0.0', '[::]', '::']);

function splitAtPort(address: string): [host: string, port: string] {
  const colon = address.lastIndexOf(':');
  return [address.slice(0, colon), address.slice(colon + 1)];
}
