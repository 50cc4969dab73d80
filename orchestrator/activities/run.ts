/** What concerns a run as a whole: its state in metrics and logs, incidents, publication and the result record. */
import type { Activities } from '../../workflows/activity-contract.js';
import type { JobResult, RunResult } from '../../workflows/contract.js';
import { resultDigestOf } from '../artifacts/job-key.js';
import { publishGeneration } from '../serving/publish.js';
import type { ActivityDependencies } from './dependencies.js';
import { classified, classifyingStoreErrors } from './failures.js';
import { withHeartbeats } from './heartbeat.js';

type RunActivities = Pick<Activities, 'recordIncident' | 'recordRunState' | 'publishGeneration' | 'finishRun'>;

export function runActivities({ store, events, servingDir }: ActivityDependencies): RunActivities {
  return {
    recordIncident(runId, incident) {
      events.incident(runId, incident);
      return Promise.resolve();
    },

    recordRunState(runId, stage, state) {
      events.runState(runId, stage, state);
      return Promise.resolve();
    },

    async publishGeneration({ plan, jobs }) {
      const published = outputOf(jobs, 'assemble', 'published');
      // Named by content: publishing the same list again is the same generation.
      const generation = published.slice(0, 16);
      const publish = async () =>
        publishGeneration({
          servingDir,
          publishedPath: await store.localPath(published),
          cataloguePath: await store.localPath(outputOf(jobs, 'ingest', 'catalogue')),
          versions: {
            model: outputOf(jobs, 'tune', 'model'),
            catalogue: outputOf(jobs, 'ingest', 'catalogue'),
            prompt: outputOf(jobs, 'render', 'publish_prompts'),
          },
          generation,
          history: {
            datasetPath: await store.localPath(outputOf(jobs, 'ingest', 'dataset')),
            usersPath: await store.localPath(outputOf(jobs, 'ingest', 'users')),
          },
        });
      await withHeartbeats(() => classifyingStoreErrors(publish));
      events.note({ runId: plan.runId, stage: 'publish' }, `generation ${generation} published`);
      return generation;
    },

    async finishRun({ plan, pin, jobs, generation }) {
      const result: RunResult = {
        runId: plan.runId,
        numericsClass: pin.numericsClass,
        resultDigest: resultDigestOf({ jobs, published: jobs['assemble']?.outputs['published'] ?? null }),
        jobs,
        generation,
      };
      const bytes = Buffer.from(`${JSON.stringify(result, null, 2)}\n`);
      await classifyingStoreErrors(() => store.writeRunFile(plan.runId, 'result.json', bytes));
      return result;
    },
  };
}

function outputOf(jobs: Record<string, JobResult>, job: string, output: string): string {
  const digest = jobs[job]?.outputs[output];
  if (digest === undefined) throw classified('internal', `job ${job} has no output ${output}`);
  return digest;
}
