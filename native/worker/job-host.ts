/**
 * The worker's lease and its job runs, the present one and the last few ended ones (so that a controller that comes late
 * still hears how they ended).
 */
import { JobRun, type JobMeasure, type JobOrder, type JobRunnerOptions } from './job-runner.js';
import { Lease, same, type AttemptRef, type ReserveOutcome } from './lease.js';

const ENDED_RUNS_KEPT = 32;

export interface HostedOrder extends JobOrder {
  runId: string;
  stage: string;
}

export interface JobHostOptions extends Omit<JobRunnerOptions, 'onMeasure'> {
  onJobMeasure: (order: HostedOrder, measure: JobMeasure) => void;
  /** Told whenever the lease changes hands. */
  onLease(holder: AttemptRef | null): void;
}

export class JobHost {
  readonly #options: JobHostOptions;
  readonly #lease = new Lease();
  #runs: JobRun[] = [];

  constructor(options: JobHostOptions) {
    this.#options = options;
  }

  get holder(): AttemptRef | null {
    return this.#lease.holder;
  }

  /** Grants the lease, first tearing down an older attempt of the same job that still runs here. */
  async reserve(attempt: AttemptRef, ttlMs: number): Promise<ReserveOutcome> {
    let outcome = this.#lease.reserve(attempt, ttlMs);
    if (outcome.type === 'superseded') {
      await this.release(outcome.holder);
      outcome = this.#lease.reserve(attempt, ttlMs);
    }
    if (outcome.type === 'granted') this.#options.onLease(this.holder);
    return outcome;
  }

  async release(attempt: AttemptRef): Promise<void> {
    const run = this.find(attempt);
    if (run !== undefined && !run.events.ended) {
      run.abort();
      await run.done;
    }
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
    const jobRun = new JobRun(order, { ...this.#options, log, onMeasure });
    this.#runs = [...this.#runs, jobRun].slice(-ENDED_RUNS_KEPT);
    void jobRun.done.then(() => {
      this.#lease.release(order);
      this.#options.onLease(this.holder);
    });
    return true;
  }

  /** Ends whatever runs, without a checkpoint; for process exit. */
  async close(): Promise<void> {
    const running = this.#runs.filter((run) => !run.events.ended);
    for (const run of running) run.abort();
    await Promise.all(running.map((run) => run.done));
  }
}
