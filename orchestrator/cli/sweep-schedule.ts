/**
 * Which run of a sweep starts next.
 *
 * 1. A run waits while another is at work on a stage that both have in common: it will be answered from the store instead of being
 *    computed twice. Runs that differ from there on go on side by side.
 * 2. With nothing under way anything may start: no order of ends and failures can leave a run waiting for ever.
 */
import { type StageName, STAGES } from '../../workflows/contract.js';

export interface UnderWay {
  prefixes: Record<StageName, string>;
  /** Stages that it has come to the end of. */
  done: ReadonlySet<StageName>;
}

/** Position in `waiting` of the first run that may start now, or -1. */
export function nextToStart(
  waiting: readonly Record<StageName, string>[],
  { underWay, parallel }: { underWay: readonly UnderWay[]; parallel: number },
): number {
  if (underWay.length >= parallel) return -1;
  return waiting.findIndex((prefixes) =>
    underWay.every((other) =>
      STAGES.every((stage) => prefixes[stage] !== other.prefixes[stage] || other.done.has(stage)),
    ),
  );
}
