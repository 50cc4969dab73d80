/**
 * The activities, made from what they need. Each answers or fails with a classified, non-retryable failure;
 * anything unclassified is left to Temporal's retry for a while, and is then classified as internal. Each beats while it runs.
 */
import type { Activities } from '../../workflows/activity-contract.js';
import type { ActivityDependencies } from './dependencies.js';
import { endingUnknownErrors } from './failures.js';
import { gangActivities } from './gang.js';
import { withHeartbeats } from './heartbeat.js';
import { jobActivities } from './jobs.js';
import { runActivities } from './run.js';

export type { ActivityDependencies } from './dependencies.js';

export function createActivities(dependencies: ActivityDependencies): Activities {
  const activities = {
    ...jobActivities(dependencies),
    ...gangActivities(dependencies),
    ...runActivities(dependencies),
  };
  const entries = Object.entries(activities).map(([name, activity]) => [
    name,
    withHeartbeats(endingUnknownErrors(activity as (...args: unknown[]) => Promise<unknown>)),
  ]);
  return Object.fromEntries(entries) as Activities;
}
