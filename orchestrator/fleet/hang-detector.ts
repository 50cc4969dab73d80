/**
 * Tells a frozen or stuck worker from a busy one, by signs alone: what the watch of a gang hears, and the workers' beats.
 *
 * 1. A worker is silent when nothing at all is heard of it, although it beats four times a second. One that is silent for longer
 *    than its gang takes for three steps is hung: a stopped process, a machine that is gone, a cut line.
 * 2. A worker that answers but takes no step is stuck only after many times the gang's own step time, or `stallSeconds`. One that
 *    writes the result takes none, for as long as its store needs.
 * 3. Time in which this process itself was held up proves nothing about others.
 */

export interface MemberSigns {
  workerId: string;
  rank: number;
  /** Unix milliseconds of the last event or beat; null when it has no stream now (its loss is noticed otherwise). */
  lastHeardMs: number | null;
  /** Phase of its native job; null while none runs. */
  phase: string | null;
  waitingForRank: number;
}

export interface Suspicion {
  rank: number;
  message: string;
}

const SILENT_MS = 800;
/** A gang that has not taken a step yet may do with less certainty about its pace. */
const SILENT_BEFORE_FIRST_STEP_MS = 3_000;
const SILENT_STEPS = 3;
const STUCK_STEPS = 20;
const STUCK_MS_MIN = 30_000;
/** Steps that the pace is told from. */
const PACE_STEPS = 15;
export const CHECK_INTERVAL_MS = 100;
const HELD_UP_MS = 300;

export class HangDetector {
  readonly #stallMs: number;
  readonly #durations: number[] = [];
  #lastProgressMs: number;
  #lastCheckMs: number;
  /** Nothing that was missed before this moment counts. */
  #trustedSinceMs: number;
  #hasStepped = false;

  constructor({ stallSeconds, nowMs }: { stallSeconds: number; nowMs: number }) {
    this.#stallMs = stallSeconds * 1000;
    this.#lastProgressMs = nowMs;
    this.#lastCheckMs = nowMs;
    this.#trustedSinceMs = nowMs;
  }

  /** Called when the gang's state is in place, and after each of its steps. */
  progressed(nowMs: number, { isStep }: { isStep: boolean }): void {
    if (isStep && this.#hasStepped) {
      this.#durations.push(nowMs - this.#lastProgressMs);
      if (this.#durations.length > PACE_STEPS) this.#durations.shift();
    }
    this.#hasStepped ||= isStep;
    this.#lastProgressMs = nowMs;
  }

  /** Median time of a step in milliseconds; null before two steps are done. */
  get paceMs(): number | null {
    const sorted = [...this.#durations].sort((a, b) => a - b);
    return sorted[Math.floor(sorted.length / 2)] ?? null;
  }

  check(nowMs: number, members: readonly MemberSigns[]): Suspicion | null {
    const heldUp = nowMs - this.#lastCheckMs > CHECK_INTERVAL_MS + HELD_UP_MS;
    this.#lastCheckMs = nowMs;
    if (heldUp) this.#trustedSinceMs = nowMs;
    return this.#silent(nowMs, members) ?? this.#stuck(nowMs, members);
  }

  #silent(nowMs: number, members: readonly MemberSigns[]): Suspicion | null {
    const pace = this.paceMs;
    const stalledMs = nowMs - Math.max(this.#lastProgressMs, this.#trustedSinceMs);
    if (pace === null ? stalledMs < SILENT_BEFORE_FIRST_STEP_MS : stalledMs <= SILENT_STEPS * pace) return null;
    for (const { workerId, rank, lastHeardMs } of members) {
      if (lastHeardMs === null) continue;
      const silentMs = nowMs - Math.max(lastHeardMs, this.#trustedSinceMs);
      if (silentMs <= (pace === null ? SILENT_BEFORE_FIRST_STEP_MS : SILENT_MS)) continue;
      const usual = pace === null ? '' : `, in which its gang takes ${(silentMs / Math.max(pace, 1)).toFixed(0)} steps`;
      return { rank, message: `worker ${workerId} is silent for ${seconds(silentMs)} s${usual}` };
    }
    return null;
  }

  #stuck(nowMs: number, members: readonly MemberSigns[]): Suspicion | null {
    const pace = this.paceMs;
    const limitMs = pace === null ? this.#stallMs : Math.min(this.#stallMs, Math.max(STUCK_MS_MIN, STUCK_STEPS * pace));
    const stalledMs = nowMs - Math.max(this.#lastProgressMs, this.#trustedSinceMs);
    if (stalledMs <= limitMs) return null;
    // Whoever waits in a collective waits for somebody else.
    const judged = members.filter((member) => member.phase !== null && member.phase !== 'parked');
    if (judged.some((member) => member.phase === 'finishing')) return null;
    const culprit = judged.find((member) => member.phase !== 'reducing') ?? waitedFor(judged);
    if (culprit === undefined) return null;
    const usual = pace === null ? '' : `; its steps take ${seconds(pace)} s`;
    return {
      rank: culprit.rank,
      message: `worker ${culprit.workerId} answers, but its gang took no step for ${seconds(stalledMs)} s (it is ${String(culprit.phase)})${usual}`,
    };
  }
}

function waitedFor(members: readonly MemberSigns[]): MemberSigns | undefined {
  const named = members.map((member) => member.waitingForRank).find((rank) => rank >= 0);
  return members.find((member) => member.rank === named) ?? members[0];
}

function seconds(ms: number): string {
  return (ms / 1000).toFixed(ms < 10_000 ? 2 : 0);
}
