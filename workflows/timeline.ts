/**
 * Where a stage's time goes: every moment belongs to one purpose, so that goodput and badput add up to the wall clock.
 *
 * 1. Jobs of a stage may run side by side; a moment belongs to the best of what its jobs are at (work before recovery before
 *    waiting), and to `orchestration` while no job is under way.
 * 2. Time comes in from outside (Unix milliseconds); nothing here reads a clock.
 */
import type { FailureCause, RecoveryPhases, RunSeconds, TimelineSnapshot } from './contract.js';

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

  /** Seconds by purpose up to now. Changes nothing: queries ask for it. */
  seconds(nowMs: number): RunSeconds {
    const elapsed = this.#running ? Math.max(0, nowMs - this.#lastMs) / 1000 : 0;
    return elapsed === 0 ? { ...this.#seconds } : addSeconds(this.#seconds, { [this.#best()]: elapsed });
  }

  /** `before` is added: what came before this timeline. */
  snapshot(before: RunSeconds, nowMs: number): TimelineSnapshot {
    return { seconds: addSeconds(before, this.seconds(nowMs)), purpose: this.#best(), atMs: nowMs };
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

/** What a snapshot has become if the run has been at the same purpose since. */
export function advanced({ seconds, purpose, atMs }: TimelineSnapshot, nowMs: number): RunSeconds {
  return addSeconds(seconds, { [purpose]: Math.max(0, nowMs - atMs) / 1000 });
}

/** Phases of a recovery in order, with their ends; each begins where the one before ends, the first at the last progress. */
export function recoveryPhases(phases: RecoveryPhases): { phase: string; at: number | null; seconds: number | null }[] {
  let before = phases.lastProgress;
  const ends: [string, number | null][] = [
    ['detect', phases.detected],
    ['fence', phases.fenced],
    ['reschedule', phases.rescheduled],
    ['restore', phases.restored],
    ['first_step', phases.firstStep],
  ];
  return ends.map(([phase, at]) => {
    const seconds = before === null || at === null ? null : Math.max(0, at - before) / 1000;
    before = at ?? before;
    return { phase, at, seconds };
  });
}

export function totalSeconds(seconds: RunSeconds): number {
  return Object.values(seconds).reduce((total, part) => total + part, 0);
}
