/**
 * The activities, made from what they need. Each answers or fails with a classified, non-retryable failure;
 * anything unclassified is left to Temporal's retry for a while, and is then classified as internal.
 *
 * All are heard of while they run: what a process has taken that is frozen or cut off is repeated within seconds.
 */
import type { Activities } from '../../workflows/activity-contract.js';
import type { ActivityDependencies } from './dependencies.js';
import { endingUnknownErrors } from './failures.js';
import { gangActivities } from './gang.js';
import { withHeartbeats } from './heartbeat.js';
import { jobActivities } from './jobs.js';
import { runActivities } from './run.js';

export type { ActivityDependencies } from './dependencies.js';

/** Those with heartbeats of their own. */
const BEATING: ReadonlySet<string> = new Set<keyof Activities>([
  'acquireGang',
  'awaitGang',
  'awaitStore',
  'pinRun',
  'publishGeneration',
]);

export function createActivities(dependencies: ActivityDependencies): Activities {
  const activities = {
    ...jobActivities(dependencies),
    ...gangActivities(dependencies),
    ...runActivities(dependencies),
  };
  const entries = Object.entries(activities).map(([name, activity]) => {
    const run = endingUnknownErrors(activity as (...args: unknown[]) => Promise<unknown>);
    return [name, BEATING.has(name) ? run : (...args: unknown[]) => withHeartbeats(() => run(...args))];
  });
  return Object.fromEntries(entries) as Activities;
}
