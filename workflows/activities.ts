/** The activities as workflows call them, by how long they may take, and what their failures mean for a gang. */
import { ActivityFailure, ApplicationFailure, proxyActivities } from '@temporalio/workflow';

import type { Activities, GangFailure } from './activity-contract.js';
import type { FailureCause } from './contract.js';
import { BUDGETS } from './failure-policy.js';

/** Each beats while it runs (orchestrator/activities/heartbeat.ts): one whose host or whose answer is lost is repeated in seconds. */
const heartbeatTimeout = '5 s';
const retry = { initialInterval: '200 ms', backoffCoefficient: 2, maximumInterval: '5 s' } as const;

/** For what does something and answers. */
export const quick = proxyActivities<Activities>({ startToCloseTimeout: '10 min', heartbeatTimeout, retry });

/** For what waits for others, however long they take. */
export const waiting = proxyActivities<Activities>({ startToCloseTimeout: '30 d', heartbeatTimeout, retry });

/** An activity that failed for good becomes a failed attempt with the cause that the activity named. */
export function failureOf(error: unknown, step: number): GangFailure {
  const cause = error instanceof ActivityFailure ? error.cause : error;
  if (!(cause instanceof ApplicationFailure) || cause.type == null || !Object.hasOwn(BUDGETS, cause.type)) throw error;
  const [worker] = cause.details ?? [];
  return {
    type: 'failed',
    cause: cause.type as FailureCause,
    message: cause.message,
    workerId: typeof worker === 'string' ? worker : null,
    rank: null,
    step,
    lastProgressAt: null,
    detectedAt: Date.now(),
    log: [],
  };
}
