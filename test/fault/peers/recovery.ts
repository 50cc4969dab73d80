/**
 * What one fault cost, read from the events of one run; the same reading for Collimate and for its peers.
 *
 * 1. An attempt is what the system starts anew after a loss: an epoch of ours, a process of rank 0 of a peer. Steps are those that
 *    rank 0 tells.
 * 2. A step comes "after" the fault only when an attempt that was not there before tells it: what was under way does not count.
 * 3. New ground is the first step beyond the last one that was taken before the fault: from there on nothing is repeated.
 * 4. Training is from the first step to the end of the last, so that no system's start and end weigh in.
 */
export interface Work {
  steps: number;
  checkpointSteps: number;
  batchSequences: number;
  /** Tokens of a peer's sequence; ours have as many as their histories are long. */
  sequenceTokens: number;
}

export interface Fault {
  signal: 'SIGKILL' | 'SIGSTOP';
  /** Step of rank 0 at which its process gets the signal. */
  atStep: number;
  /** How long after the signal the run is waited for. */
  watchMs: number;
}

export interface Trace {
  startedMs: number;
  steps: { attempt: number; step: number; timeMs: number }[];
  faultMs: number | null;
  /** Whatever shows that somebody knows of the loss. */
  signs: { by: string; timeMs: number }[];
  /** Null: not within `watchMs`. */
  finishedMs: number | null;
  digest: string | null;
}

export interface Recovery {
  detectionMs: number | null;
  detectedBy: string | null;
  firstStepMs: number | null;
  newGroundMs: number | null;
  stepsRepeated: number | null;
  trainingMs: number | null;
  wallMs: number | null;
  digest: string | null;
}

export function recoveryOf(trace: Trace): Recovery {
  const { steps, faultMs, finishedMs, startedMs, digest } = trace;
  const begunMs = steps[0]?.timeMs ?? null;
  const recovery: Recovery = {
    detectionMs: null,
    detectedBy: null,
    firstStepMs: null,
    newGroundMs: null,
    stepsRepeated: null,
    trainingMs: finishedMs === null || begunMs === null ? null : finishedMs - begunMs,
    wallMs: finishedMs === null ? null : finishedMs - startedMs,
    digest,
  };
  if (faultMs === null) return recovery;
  const earlier = new Set(steps.filter(({ timeMs }) => timeMs <= faultMs).map(({ attempt }) => attempt));
  const reached = Math.max(0, ...steps.filter(({ attempt }) => earlier.has(attempt)).map(({ step }) => step));
  const after = steps.filter(({ attempt }) => !earlier.has(attempt));
  const [sign] = trace.signs.filter(({ timeMs }) => timeMs >= faultMs).toSorted((a, b) => a.timeMs - b.timeMs);
  const [first] = after;
  const beyond = after.find(({ step }) => step > reached);
  if (sign !== undefined) {
    recovery.detectionMs = sign.timeMs - faultMs;
    recovery.detectedBy = sign.by;
  }
  if (first !== undefined) {
    recovery.firstStepMs = first.timeMs - faultMs;
    recovery.stepsRepeated = Math.max(0, reached - first.step + 1);
  }
  if (beyond !== undefined) recovery.newGroundMs = beyond.timeMs - faultMs;
  return recovery;
}

export interface Spread {
  median: number;
  min: number;
  max: number;
  count: number;
}

/** Of the values that are there; null when none is. */
export function spreadOf(values: (number | null)[]): Spread | null {
  const sorted = values.filter((value) => value !== null).toSorted((a, b) => a - b);
  const [min, max] = [sorted[0], sorted.at(-1)];
  const [low, high] = [sorted[Math.floor((sorted.length - 1) / 2)], sorted[Math.floor(sorted.length / 2)]];
  if (min === undefined || max === undefined || low === undefined || high === undefined) return null;
  return { median: (low + high) / 2, min, max, count: sorted.length };
}
