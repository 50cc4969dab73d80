/**
 * The worker's lease and its job runs, the present one and the last few ended ones (so that a controller that comes late
 * still hears how they ended), and the parked session that the next attempt goes on with.
 *
 * 1. A parked session keeps the lease: the worker belongs to its job until the job's next gang forms or lets it go.
 * 2. A session that nobody comes back for ends by itself, so a run that was terminated blocks no worker for ever.
 */
import {
  discard,
  JobRun,
  type JobMeasure,
  type JobOrder,
  type JobRunnerOptions,
  type ParkedSession,
} from './job-runner.js';
import { isOf, Lease, same, type AttemptRef, type ReserveOutcome } from './lease.js';

const ENDED_RUNS_KEPT = 32;
/** Longer than any controller takes to come back, or a fleet to have enough workers again. */
const PARKED_MAX_MS = 15 * 60_000;

export interface HostedOrder extends JobOrder {
  runId: string;
  stage: string;
}

export interface JobHostOptions extends Omit<JobRunnerOptions, 'onMeasure'> {
  onJobMeasure: (order: HostedOrder, measure: JobMeasure) => void;
  /** Told whenever the lease changes hands. */
  onLease(holder: AttemptRef | null): void;
}

export type HostReserveOutcome =
  | Exclude<ReserveOutcome, { type: 'granted' } | { type: 'superseded' }>
  | { type: 'granted'; warmStep: number | null }
  | { type: 'draining' }
  | { type: 'cordoned' };

export class JobHost {
  readonly #options: JobHostOptions;
  readonly #lease = new Lease();
  #runs: JobRun[] = [];
  #parked: ParkedSession | null = null;
  #parkedTimer: NodeJS.Timeout | null = null;
  #draining = false;
  #cordoned = false;

  constructor(options: JobHostOptions) {
    this.#options = options;
  }

  get holder(): AttemptRef | null {
    return this.#lease.holder;
  }

  get isDraining(): boolean {
    return this.#draining;
  }

  get isCordoned(): boolean {
    return this.#cordoned;
  }

  /** Where the running native job is; null while none runs. */
  get progress(): JobRun['progress'] {
    for (const run of this.#runs) if (!run.events.ended) return run.progress;
    return null;
  }

  /** Grants the lease. An older attempt of the same job that still runs here is first parked, or ended when it cannot be. */
  async reserve(attempt: AttemptRef, ttlMs: number): Promise<HostReserveOutcome> {
    if (this.#draining) return { type: 'draining' };
    if (this.#cordoned && this.holder?.jobId !== attempt.jobId) return { type: 'cordoned' };
    let outcome = this.#lease.reserve(attempt, ttlMs);
    if (outcome.type === 'superseded') {
      const run = this.find(outcome.holder);
      if (run !== undefined && !run.events.ended) {
        run.park();
        await run.done;
      }
      this.#lease.release(outcome.holder);
      outcome = this.#lease.reserve(attempt, ttlMs);
    }
    // A newer call came while the older attempt was ending.
    if (outcome.type === 'superseded') return { type: 'busy', holder: outcome.holder };
    if (outcome.type !== 'granted') return outcome;
    if (this.#parked !== null && this.#parked.jobId !== attempt.jobId) await this.#dropParked();
    this.#options.onLease(this.holder);
    return { type: 'granted', warmStep: this.#parked?.session.warmStep ?? null };
  }

  /** Ends what runs or waits for this attempt, or for an older one at the same job. */
  async release(attempt: AttemptRef): Promise<void> {
    const running = this.#runs.filter((run) => isOf(run.order, attempt) && !run.events.ended);
    for (const run of running) run.abort();
    await Promise.all(running.map((run) => run.done));
    const holder = this.holder;
    const ours = holder === null || isOf(holder, attempt);
    if (this.#parked?.jobId === attempt.jobId && ours) await this.#dropParked();
    this.#lease.release(attempt);
    this.#options.onLease(this.holder);
  }

  staleness(attempt: AttemptRef): number | null {
    return this.#lease.staleness(attempt);
  }

  find(attempt: AttemptRef): JobRun | undefined {
    return this.#runs.find((run) => same(run.order, attempt));
  }

  /** False when the attempt does not hold the lease. */
  start(order: HostedOrder): boolean {
    if (!this.#lease.start(order)) return false;
    const { runId: run, stage, epoch, jobId: job } = order;
    const log = this.#options.log.child({ run, stage, epoch, job });
    const onMeasure = (measure: JobMeasure): void => {
      this.#options.onJobMeasure(order, measure);
    };
    log.info(`rank ${String(order.rank)} of ${String(order.world)} begins`);
    const jobRun = new JobRun(order, { ...this.#options, log, onMeasure }, this.#takeParked());
    this.#runs = [...this.#runs, jobRun].slice(-ENDED_RUNS_KEPT);
    void jobRun.done.then(() => {
      this.#keepParked(jobRun.parkedSession);
      if (jobRun.parkedSession === null) this.#lease.release(order);
      this.#options.onLease(this.holder);
    });
    return true;
  }

  /** Takes no new job, or takes jobs again. What runs goes on, also in the next gangs of its job. */
  cordon(cordoned: boolean): void {
    this.#cordoned = cordoned;
    if (!cordoned) this.#draining = false;
    this.#options.onLease(this.holder);
  }

  /** Takes no more work, and hands over what runs: to the other ranks, or by a checkpoint. Resolves once nothing runs any more. */
  async drain(): Promise<void> {
    this.#draining = true;
    this.#options.onLease(this.holder);
    const running = this.#runs.filter((run) => !run.events.ended);
    for (const run of running) run.preempt();
    await Promise.all(running.map((run) => run.done));
  }

  /** Ends whatever runs, without a checkpoint; for process exit. */
  async close(): Promise<void> {
    const running = this.#runs.filter((run) => !run.events.ended);
    for (const run of running) run.abort();
    await Promise.all(running.map((run) => run.done));
    await this.#dropParked();
  }

  #keepParked(parked: ParkedSession | null): void {
    if (parked === null) return;
    this.#parked = parked;
    this.#parkedTimer = setTimeout(() => {
      this.#options.log.warn({ job: parked.jobId }, 'nobody came back for a parked job; it is ended');
      const holder = this.holder;
      void this.#dropParked().then(() => {
        if (holder?.jobId === parked.jobId) this.#lease.release(holder);
        this.#options.onLease(this.holder);
      });
    }, PARKED_MAX_MS);
    this.#parkedTimer.unref();
  }

  #takeParked(): ParkedSession | null {
    if (this.#parkedTimer !== null) clearTimeout(this.#parkedTimer);
    const parked = this.#parked;
    this.#parked = null;
    return parked;
  }

  async #dropParked(): Promise<void> {
    const parked = this.#takeParked();
    if (parked === null) return;
    await discard(parked, this.#options);
  }
}
