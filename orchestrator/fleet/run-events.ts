/**
 * Everything that is heard of a run, in one place: followers, the run's event file and the metrics are fed from here.
 *
 * 1. Followers get every event of rank 0 and every non-step event of the others.
 * 2. The file gets the same, but of steps at most one a second and job: it is for people after the fact, not for plots.
 * 3. Writing the file never blocks or fails an activity; trouble is logged.
 * 4. A job event is in the file once: a controller that attaches again after its restart hears the old ones again, and what
 *    the file has of them is left out.
 */
import type { JobEvent__Output } from '../../proto/generated/collimate/v1/JobEvent.js';
import type { Incident, JsonObject, RunSeconds, StageName } from '../../workflows/contract.js';
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
  /** By run, what its file had when this process first wrote to it: the last sequence of each attempt's rank. */
  readonly #alreadyWritten = new Map<string, Map<string, number>>();
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
    try {
      this.#metrics.jobEvent(scope, event);
    } catch (error) {
      // Thrown from here it would end the process, and again at every restart, since the event is told again.
      this.#log.error({ err: error, run: scope.runId }, 'metrics do not take an event');
    }
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
    if (event.finished != null || event.failed != null || event.stopped != null || event.parked != null) {
      this.#lastStepLineMs.delete(scope.jobId ?? '');
    }
    this.#write(scope, { worker: member.workerId, ...jobEventLine(event) });
  }

  note(scope: EventScope, message: string): void {
    this.#log.info({ run: scope.runId, stage: scope.stage }, message);
    this.#tell({ ...this.#entry(scope), note: message });
    this.#write(scope, { type: 'note', message });
  }

  /** Told twice: when it is seen, and when the job is past it. */
  incident(runId: string, incident: Incident, state: 'opened' | 'closed'): void {
    this.#metrics.incident(runId, incident, state);
    const scope = { runId, stage: incident.stage };
    const { id, cause, workerId, message, action } = incident;
    if (state === 'opened') {
      const worker = workerId === null ? '' : ` on ${workerId}`;
      this.note(scope, `incident ${id}: ${cause}${worker}: ${message}`);
    } else {
      this.note(scope, `incident ${id} is over: ${action}`);
    }
    this.#write(scope, { type: 'incident', state, incident: incident as unknown as JsonObject });
  }

  seconds(runId: string, seconds: RunSeconds): void {
    this.#metrics.seconds(runId, seconds);
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
        await this.#append(runId, lines).catch((error: unknown) => {
          this.#log.error({ err: error, run: runId }, `${String(lines.length)} event lines could not be written`);
        });
      }
    });
    await this.#flushing;
  }

  async #append(runId: string, lines: JsonObject[]): Promise<void> {
    let written = this.#alreadyWritten.get(runId);
    if (written === undefined) {
      written = lastSequences(await this.#store.readRunEvents(runId));
      this.#alreadyWritten.set(runId, written);
    }
    const seen = written;
    const fresh = lines.filter((line) => Number(line['sequence'] ?? Infinity) > (seen.get(sourceOf(line)) ?? 0));
    await this.#store.appendRunEvents(runId, fresh);
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

/** Whose sequence a line counts in. */
function sourceOf({ job, epoch, rank }: JsonObject): string {
  return JSON.stringify([job, epoch, rank]);
}

function lastSequences(lines: JsonObject[]): Map<string, number> {
  const last = new Map<string, number>();
  for (const line of lines) {
    const source = sourceOf(line);
    if (typeof line['sequence'] === 'number') last.set(source, Math.max(last.get(source) ?? 0, line['sequence']));
  }
  return last;
}

function jobEventLine(event: JobEvent__Output): JsonObject {
  const base = { epoch: event.epoch, rank: event.rank, sequence: event.sequence };
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
  if (event.ready != null) return { type: 'ready', ...base, step: event.ready.step };
  if (event.parked != null) {
    const { reason, step, message } = event.parked;
    return { type: 'parked', ...base, reason: reason.replace('PARK_REASON_', '').toLowerCase(), step, message };
  }
  if (event.failed != null) {
    return { type: 'failed', ...base, cause: event.failed.cause, message: event.failed.message };
  }
  return { type: 'finished', ...base };
}
