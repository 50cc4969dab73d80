/** Every failure class: its action, its budget, and that progress resets it. */
import { describe, expect, it } from 'vitest';

import type { GangFailure } from './activity-contract.js';
import type { FailureCause } from './contract.js';
import { decide, FRESH, isWorkersFault } from './failure-policy.js';

function failure(cause: FailureCause, step = 0): GangFailure {
  return {
    type: 'failed',
    cause,
    message: 'as told',
    workerId: 'w-1',
    rank: 1,
    step,
    lastProgressAt: null,
    detectedAt: 0,
    log: [],
  };
}

/** Failures in a row that are followed by another attempt, at most 2,000. */
function retriesOf(cause: FailureCause, stepOf: (count: number) => number = () => 0): number {
  let state = FRESH;
  for (let count = 0; count < 2_000; count++) {
    const { state: next, decision } = decide(state, failure(cause, stepOf(count)));
    if (decision.action === 'give_up') return count;
    state = next;
  }
  return 2_000;
}

describe('failure policy', () => {
  it('never retries bad input, a second result for one key, or a fleet that stays too small', () => {
    for (const cause of ['bad_input', 'nondeterminism', 'no_workers'] as const) expect(retriesOf(cause)).toBe(0);
  });

  it('gives up on a worker that is lost again and again without progress, and backs off before', () => {
    expect(retriesOf('worker_lost')).toBe(8);
    let state = FRESH;
    const waits = Array.from({ length: 8 }, () => {
      const { state: next, decision } = decide(state, failure('worker_lost'));
      state = next;
      return decision.waitMs;
    });
    expect(waits[0]).toBe(0);
    expect(waits).toEqual([...waits].sort((a, b) => a - b));
    expect(Math.max(...waits)).toBeLessThanOrEqual(15_000);
  });

  it('resets budgets with every step of progress', () => {
    expect(retriesOf('worker_lost', (count) => count + 1)).toBe(2_000);
    expect(retriesOf('internal', (count) => count + 1)).toBe(2_000);
  });

  it('replays a loss that is not finite once, and gives up where it comes again at the same step', () => {
    const first = decide(FRESH, failure('nan_loss', 40));
    expect(first.decision.action).toBe('retry');
    // The replay begins at a checkpoint and stands at step 40 again.
    const second = decide(first.state, failure('nan_loss', 40));
    expect(second.decision).toMatchObject({ action: 'give_up', words: expect.stringContaining('step 41') as string });
  });

  it('goes on without the worker whose device is lost, as without one that is lost itself', () => {
    expect(isWorkersFault('device_lost')).toBe(true);
    expect(retriesOf('device_lost', () => 0)).toBe(retriesOf('worker_lost', () => 0));
    const { decision } = decide(FRESH, failure('device_lost', 9));
    expect(decision).toMatchObject({ action: 'retry', words: 'its worker ends, to be started again' });
  });

  it('saves memory step by step', () => {
    const first = decide(FRESH, failure('out_of_memory', 3));
    expect(first.state.memorySaving).toBe(1);
    const second = decide(first.state, failure('out_of_memory', 3));
    expect(second.state.memorySaving).toBe(2);
    expect(decide(second.state, failure('out_of_memory', 3)).decision.action).toBe('give_up');
    // Progress does not give the memory back.
    expect(decide(second.state, failure('worker_lost', 90)).state.memorySaving).toBe(2);
  });

  it('replaces stragglers twice in a job, whatever progress it makes', () => {
    expect(retriesOf('straggler', (count) => 50 * count)).toBe(2);
    const first = decide(FRESH, failure('straggler', 50)).state;
    const afterwards = decide(first, failure('worker_lost', 90)).state;
    expect(afterwards.failures).toEqual({ straggler: 1, worker_lost: 1 });
  });

  it('waits for a store that takes no writes', () => {
    expect(decide(FRESH, failure('store_unavailable')).decision.action).toBe('wait_for_store');
    expect(retriesOf('store_unavailable')).toBeGreaterThan(100);
  });
});
