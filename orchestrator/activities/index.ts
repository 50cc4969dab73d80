/**
 * The activities, made from what they need. Each answers or fails with a classified, non-retryable failure;
 * anything unclassified is left to Temporal's retry.
 */
import type { Activities } from '../../workflows/activity-contract.js';
import type { ActivityDependencies } from './dependencies.js';
import { gangActivities } from './gang.js';
import { jobActivities } from './jobs.js';
import { runActivities } from './run.js';

export type { ActivityDependencies } from './dependencies.js';

export function createActivities(dependencies: ActivityDependencies): Activities {
  return { ...jobActivities(dependencies), ...gangActivities(dependencies), ...runActivities(dependencies) };
}
