/**
 * The worker's single lease: which attempt at which job it works for.
 *
 * 1. At most one attempt holds the lease.
 * 2. The highest epoch seen of a job is remembered for the life of the process; anything lower is stale for ever.
 * 3. A lease that no job was started under lapses by itself, so a controller that dies between reserve and start blocks nobody.
 */

export interface AttemptRef {
  jobId: string;
  epoch: number;
}

export type ReserveOutcome =
  | { type: 'granted' }
  | { type: 'stale'; currentEpoch: number }
  | { type: 'busy'; holder: AttemptRef }
  /** An older attempt of the same job holds the lease; it has to be ended first. */
  | { type: 'superseded'; holder: AttemptRef };

interface Held extends AttemptRef {
  started: boolean;
  expiresAtMs: number;
}

export class Lease {
  readonly #now: () => number;
  readonly #highestEpochs = new Map<string, number>();
  #held: Held | null = null;

  constructor(now: () => number = Date.now) {
    this.#now = now;
  }

  get holder(): AttemptRef | null {
    this.#lapse();
    return this.#held === null ? null : { jobId: this.#held.jobId, epoch: this.#held.epoch };
  }

  reserve(attempt: AttemptRef, ttlMs: number): ReserveOutcome {
    this.#lapse();
    const stale = this.staleness(attempt);
    if (stale !== null) return { type: 'stale', currentEpoch: stale };
    const held = this.#held;
    if (held !== null && !same(held, attempt)) {
      const holder = { jobId: held.jobId, epoch: held.epoch };
      return { type: held.jobId === attempt.jobId ? 'superseded' : 'busy', holder };
    }
    this.#highestEpochs.set(attempt.jobId, attempt.epoch);
    if (held === null) {
      this.#held = { ...attempt, started: false, expiresAtMs: this.#now() + ttlMs };
    } else if (!held.started) {
      held.expiresAtMs = this.#now() + ttlMs;
    }
    return { type: 'granted' };
  }

  /** The highest epoch known when it is above the attempt's; null when the attempt is current. */
  staleness(attempt: AttemptRef): number | null {
    const highest = this.#highestEpochs.get(attempt.jobId) ?? 0;
    return attempt.epoch < highest ? highest : null;
  }

  /** True when the attempt holds the lease; from now on it no longer lapses. */
  start(attempt: AttemptRef): boolean {
    this.#lapse();
    if (this.#held === null || !same(this.#held, attempt)) return false;
    this.#held.started = true;
    return true;
  }

  /** Frees the lease from this attempt, or from an older one at the same job. */
  release(attempt: AttemptRef): void {
    if (this.#held !== null && isOf(this.#held, attempt)) this.#held = null;
  }

  #lapse(): void {
    if (this.#held !== null && !this.#held.started && this.#now() >= this.#held.expiresAtMs) this.#held = null;
  }
}

export function same(a: AttemptRef, b: AttemptRef): boolean {
  return a.jobId === b.jobId && a.epoch === b.epoch;
}

/** Whether `held` is the attempt, or an older one at the same job. */
export function isOf(held: AttemptRef, attempt: AttemptRef): boolean {
  return held.jobId === attempt.jobId && held.epoch <= attempt.epoch;
}
