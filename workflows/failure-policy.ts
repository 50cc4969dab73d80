/**
 * What is done about a failure: each class has its own action, budget and back-off.
 *
 * 1. A pure function of what has happened so far and the failure; the state is plain JSON and lives in the workflow.
 * 2. Budgets count failures without progress: a step beyond the furthest one before resets them.
 * 3. Bad input and a second result for one key are never retried. A loss that is not finite is replayed once: computed again
 *    to the same step it is the same loss.
 */
import type { GangFailure } from './activity-contract.js';
import type { FailureCause, RetryState } from './contract.js';

/** Failures in a row without progress that are followed by another attempt. */
export const BUDGETS: Record<FailureCause, number> = {
  worker_lost: 8,
  worker_hung: 8,
  // Nobody's fault: a cluster that takes its machines back may do so all day.
  preempted: 100,
  // Where every worker is slow by turns, replacing them only costs.
  straggler: 2,
  peer_lost: 8,
  out_of_memory: 2,
  device_lost: 8,
  nan_loss: 2,
  bad_input: 0,
  // Within a stage the same object is missing again; the run makes it again (workflows/run.ts).
  corrupt_artifact: 2,
  store_unavailable: 1_000,
  nondeterminism: 0,
  internal: 2,
  no_workers: 0,
};
const BACKOFF_MS_MAX = 15_000;

export interface Decision {
  action: 'retry' | 'wait_for_store' | 'give_up';
  /** Before the next attempt. */
  waitMs: number;
  /** What is done, in words; completed by what the next gang looks like. */
  words: string;
}

export const FRESH: RetryState = { failures: {}, bestStep: 0, memorySaving: 0, nanAtStep: null };

export function decide(before: RetryState, failure: GangFailure): { state: RetryState; decision: Decision } {
  const { cause, step } = failure;
  // A straggler's gang always makes progress: its budget is for the job as a whole.
  const progressed = step > before.bestStep && cause !== 'straggler';
  const { straggler } = before.failures;
  const failures = progressed ? (straggler === undefined ? {} : { straggler }) : { ...before.failures };
  const count = (failures[cause] ?? 0) + 1;
  failures[cause] = count;
  const state: RetryState = { ...before, failures, bestStep: Math.max(before.bestStep, step) };
  const give = (words: string) => ({ state, decision: { action: 'give_up' as const, waitMs: 0, words } });
  if (cause === 'nan_loss') {
    if (before.nanAtStep === step) return give(`replayed from its checkpoint, step ${String(step + 1)} fails again`);
    state.nanAtStep = step;
  }
  const budget = BUDGETS[cause];
  if (count > budget) {
    return give(budget === 0 ? 'never retried' : `gave up after ${String(count)} in a row without progress`);
  }
  if (cause === 'out_of_memory') state.memorySaving = before.memorySaving === 0 ? 1 : 2;
  const waitMs = count > 1 ? Math.min(BACKOFF_MS_MAX, 250 * 2 ** count) : 0;
  const action = cause === 'store_unavailable' ? 'wait_for_store' : 'retry';
  return { state, decision: { action, waitMs, words: WORDS[cause] ?? '' } };
}

const WORDS: Partial<Record<FailureCause, string>> = {
  straggler: 'replaced by a free worker',
  device_lost: 'its worker ends, to be started again',
  out_of_memory: 'activations are recomputed, then one lane at a time',
  nan_loss: 'replayed once from the checkpoint',
  store_unavailable: 'waited until the store took writes again',
};

/** Whether the failed worker is better left alone while another will do. */
export function isWorkersFault(cause: FailureCause): boolean {
  return ['worker_lost', 'worker_hung', 'device_lost', 'preempted', 'straggler', 'internal'].includes(cause);
}
