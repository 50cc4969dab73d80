/**
 * Everything that is heard of a run, in one place: followers, the run's event file and the metrics are fed from here.
 *
 * 1. Followers get every event of rank 0 and every non-step event of the others.
 * 2. The file gets the same, but of steps at most one a second and job: it is for people after the fact, not for plots.
 * 3. Writing the file never blocks or fails an activity; trouble is logged.
 */
import type { JobEvent__Output } from '../../proto/generated/collimate/v1/JobEvent.js';
import type { Incident, JsonObject, StageName } from '../../workflows/contract.js';
import type { ArtifactStore } from '../artifacts/store.js';
import type { Logger } from '../telemetry/logger.js';
import type { RunMetrics } from './run-metrics.js';

const FLUSH_MS = 200;
const STEP_LINE_INTERVAL_MS = 1_000;

export interface RunEntry {
  runId: string;
  stage: string;
  workerId: string;
  timeUnixSeconds: number;
  jobEvent?: JobEvent__Output;
  note?: string;
}

/** Where an event belongs; `jobId` is absent for what concerns the run as a whole. */
export interface EventScope {
  runId: string;
  stage: StageName | '';
  jobId?: string;
}

export class RunEvents {
  readonly #store: ArtifactStore;
  readonly #metrics: RunMetrics;
  readonly #log: Logger;
  readonly #followers = new Map<string, Set<(entry: RunEntry) => void>>();
  readonly #pending = new Map<string, JsonObject[]>();
  readonly #lastStepLineMs = new Map<string, number>();
  #flushTimer: NodeJS.Timeout | null = null;
  #flushing: Promise<void> = Promise.resolve();

  constructor({ store, metrics, log }: { store: ArtifactStore; metrics: RunMetrics; log: Logger }) {
    this.#store = store;
    this.#metrics = metrics;
    this.#log = log;
  }

  follow(runId: string, listener: (entry: RunEntry) => void): () => void {
    const listeners = this.#followers.get(runId) ?? new Set();
    this.#followers.set(runId, listeners.add(listener));
    return () => {
      listeners.delete(listener);
      if (listeners.size === 0) this.#followers.delete(runId);
    };
  }

  jobEvent(scope: EventScope, member: { workerId: string }, event: JobEvent__Output): void {
    this.#metrics.jobEvent(scope, event);
    if (event.step != null && event.rank !== 0) return;
    this.#tell({ ...this.#entry(scope), workerId: member.workerId, jobEvent: event });
    if (event.step != null) {
      const jobId = scope.jobId ?? '';
      const now = Date.now();
      const last = this.#lastStepLineMs.get(jobId) ?? 0;
      const isFinalStep = event.step.step === event.step.stepsTotal;
      if (now - last < STEP_LINE_INTERVAL_MS && !isFinalStep) return;
      this.#lastStepLineMs.set(jobId, now);
    }
    if (event.finished != null || event.failed != null || event.stopped != null) {
      this.#lastStepLineMs.delete(scope.jobId ?? '');
    }
    this.#write(scope, { worker: member.workerId, ...jobEventLine(event) });
  }

  note(scope: EventScope, message: string): void {
    this.#log.info({ run: scope.runId, stage: scope.stage }, message);
    this.#tell({ ...this.#entry(scope), note: message });
    this.#write(scope, { type: 'note', message });
  }

  incident(runId: string, incident: Incident): void {
    this.#metrics.incident(runId, incident);
    const worker = incident.workerId === null ? '' : ` on ${incident.workerId}`;
    const message = `incident: ${incident.cause}${worker}: ${incident.message}; going on from step ${String(incident.resumedFromStep)}`;
    this.note({ runId, stage: incident.stage }, message);
  }

  runState(runId: string, stage: StageName | null, state: string): void {
    this.#metrics.runState(runId, stage, state);
    this.note({ runId, stage: stage ?? '' }, stage === null ? `run ${state}` : `stage ${stage} ${state}`);
  }

  /** Resolves once everything heard so far is in the file. */
  async flush(): Promise<void> {
    if (this.#flushTimer !== null) clearTimeout(this.#flushTimer);
    this.#flushTimer = null;
    const batches = [...this.#pending];
    this.#pending.clear();
    this.#flushing = this.#flushing.then(async () => {
      for (const [runId, lines] of batches) {
        await this.#store.appendRunEvents(runId, lines).catch((error: unknown) => {
          this.#log.error({ err: error, run: runId }, `${String(lines.length)} event lines could not be written`);
        });
      }
    });
    await this.#flushing;
  }

  #entry(scope: EventScope): RunEntry {
    return { runId: scope.runId, stage: scope.stage, workerId: '', timeUnixSeconds: Date.now() / 1000 };
  }

  #tell(entry: RunEntry): void {
    for (const listener of this.#followers.get(entry.runId) ?? []) listener(entry);
  }

  #write(scope: EventScope, line: JsonObject): void {
    const lines = this.#pending.get(scope.runId) ?? [];
    const job = scope.jobId === undefined ? {} : { job: scope.jobId };
    lines.push({ time: new Date().toISOString(), stage: scope.stage, ...job, ...line });
    this.#pending.set(scope.runId, lines);
    this.#flushTimer ??= setTimeout(() => void this.flush(), FLUSH_MS);
  }
}

function jobEventLine(event: JobEvent__Output): JsonObject {
  const base = { epoch: event.epoch, rank: event.rank };
  if (event.step != null) {
    const { step, stepsTotal, metrics } = event.step;
    return { type: 'step', ...base, step, stepsTotal, metrics };
  }
  if (event.checkpoint != null) {
    const { step, manifestDigest, bytes, seconds } = event.checkpoint;
    return { type: 'checkpoint', ...base, step, manifestDigest, bytes, seconds };
  }
  if (event.log != null) return { type: 'log', ...base, level: event.log.level, message: event.log.message };
  if (event.stopped != null) return { type: 'stopped', ...base, step: event.stopped.step };
  if (event.failed != null) {
    return { type: 'failed', ...base, cause: event.failed.cause, message: event.failed.message };
  }
  return { type: 'finished', ...base };
}
