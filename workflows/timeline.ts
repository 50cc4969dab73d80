/**
 * Where a stage's time goes: every moment belongs to one purpose, so that goodput and badput add up to the wall clock.
 *
 * 1. Jobs of a stage may run side by side; a moment belongs to the best of what its jobs are at (work before recovery before
 *    waiting), and to `orchestration` while no job is under way.
 * 2. Time comes in from outside (Unix milliseconds); nothing here reads a clock.
 */
import type { FailureCause, RunSeconds } from './contract.js';

/** `start`: leased, restoring state, forming the gang. `queue`: waiting for workers. `store`: waiting for a store that takes no writes. */
export type Purpose = 'work' | 'start' | 'queue' | 'paused' | 'store' | 'approval' | `recovery:${FailureCause}`;

const RANKS = ['work', 'recovery', 'start', 'store', 'queue', 'approval', 'paused'];
const IDLE = 'orchestration';

export class Timeline {
  readonly #seconds: RunSeconds;
  readonly #purposes = new Map<string, Purpose>();
  #lastMs: number;
  #running = true;

  constructor(seconds: RunSeconds, nowMs: number) {
    this.#seconds = { ...seconds };
    this.#lastMs = nowMs;
  }

  /** From now on the job is at this; null: it is not under way. */
  set(job: string, purpose: Purpose | null, nowMs: number): void {
    this.#settle(nowMs);
    if (purpose === null) this.#purposes.delete(job);
    else this.#purposes.set(job, purpose);
  }

  /** Until `goOn`, another timeline counts. */
  pause(nowMs: number): void {
    this.#settle(nowMs);
    this.#running = false;
  }

  goOn(nowMs: number): void {
    this.#settle(nowMs);
    this.#running = true;
  }

  /** What was counted as work turned out to be lost. */
  lose(seconds: number, to: `recovery:${FailureCause}` | `repeated:${FailureCause}`): void {
    const moved = Math.min(Math.max(0, seconds), this.#seconds['work'] ?? 0);
    if (moved === 0) return;
    this.#add('work', -moved);
    this.#add(to, moved);
  }

  /** Seconds by purpose up to now. */
  seconds(nowMs: number): RunSeconds {
    this.#settle(nowMs);
    return { ...this.#seconds };
  }

  #settle(nowMs: number): void {
    const elapsed = Math.max(0, nowMs - this.#lastMs) / 1000;
    this.#lastMs = Math.max(this.#lastMs, nowMs);
    if (elapsed > 0 && this.#running) this.#add(this.#best(), elapsed);
  }

  #best(): string {
    let best: string = IDLE;
    let bestRank = RANKS.length;
    for (const purpose of this.#purposes.values()) {
      const rank = RANKS.indexOf(purpose.split(':')[0] ?? '');
      if (rank < bestRank) [best, bestRank] = [purpose, rank];
    }
    return best;
  }

  #add(purpose: string, seconds: number): void {
    this.#seconds[purpose] = (this.#seconds[purpose] ?? 0) + seconds;
  }
}

/** The sum by purpose. */
export function addSeconds(a: RunSeconds, b: RunSeconds): RunSeconds {
  const sum = { ...a };
  for (const [purpose, seconds] of Object.entries(b)) sum[purpose] = (sum[purpose] ?? 0) + seconds;
  return sum;
}

export function totalSeconds(seconds: RunSeconds): number {
  return Object.values(seconds).reduce((total, part) => total + part, 0);
}
