/**
 * Tells the rank that all others wait for at every step: by the time that each rank computes, which is free of waiting.
 *
 * 1. Judged over many steps in a row, by medians: one slow step is nobody's fault.
 * 2. Ranks may hold unequal numbers of lanes, so up to twice the work is nothing unusual.
 */

const WINDOW_STEPS = 30;
const RATIO = 3;
/** Below this a step's time is mostly that of the machine's scheduler. */
const SECONDS_MIN = 0.02;

export interface Straggler {
  rank: number;
  message: string;
}

export class StragglerDetector {
  readonly #computeSeconds: number[][];

  constructor(world: number) {
    this.#computeSeconds = Array.from({ length: world }, () => []);
  }

  computed(rank: number, seconds: number): void {
    const window = this.#computeSeconds[rank];
    if (window === undefined) return;
    window.push(seconds);
    if (window.length > WINDOW_STEPS) window.shift();
  }

  /** Null while no rank is far behind the others, or too few steps are known. */
  find(): Straggler | null {
    if (this.#computeSeconds.length < 2) return null;
    if (this.#computeSeconds.some((window) => window.length < WINDOW_STEPS)) return null;
    const medians = this.#computeSeconds.map(median);
    const slowest = medians.indexOf(Math.max(...medians));
    const own = medians[slowest] ?? 0;
    const others = median(medians.filter((_, rank) => rank !== slowest));
    if (own < SECONDS_MIN || own < RATIO * others) return null;
    const message =
      `rank ${String(slowest)} computes for ${own.toFixed(3)} s a step, the others for ${others.toFixed(3)} s: ` +
      `they wait for it at each of the last ${String(WINDOW_STEPS)} steps`;
    return { rank: slowest, message };
  }
}

function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.floor(sorted.length / 2)] ?? 0;
}
