/** What concerns a run as a whole: its state in metrics and logs, incidents, publication and the result record. */
import { setTimeout as sleep } from 'node:timers/promises';

import type { Activities } from '../../workflows/activity-contract.js';
import type { JobResult, RunResult, RunSeconds } from '../../workflows/contract.js';
import { totalSeconds } from '../../workflows/timeline.js';
import { StoreUnavailableError } from '../artifacts/errors.js';
import { resultDigestOf } from '../artifacts/job-key.js';
import { JOBS_FILE, makeRunReport, REPORT_FILE } from '../report/run-report.js';
import { publishGeneration, StalePublicationError } from '../serving/publish.js';
import type { ActivityDependencies } from './dependencies.js';
import { classified, classifyingStoreErrors } from './failures.js';
import { cancellationSignal } from './heartbeat.js';
import { FAILURE_NOTE } from './run-notes.js';
import { RunTraces } from './run-traces.js';

const STORE_POLL_MS = 1_000;
const SECONDS_FILE = 'seconds.json';

type RunActivities = Pick<
  Activities,
  | 'awaitStore'
  | 'recordIncident'
  | 'recordNote'
  | 'recordSeconds'
  | 'recordRunState'
  | 'publishGeneration'
  | 'finishRun'
  | 'writeReport'
>;

export function runActivities({ store, events, traces, servingDir }: ActivityDependencies): RunActivities {
  const runTraces = new RunTraces(traces);
  return {
    async awaitStore() {
      const signal = cancellationSignal();
      for (;;) {
        signal.throwIfAborted();
        try {
          await store.probe();
          return;
        } catch (error) {
          if (!(error instanceof StoreUnavailableError)) throw error;
        }
        await sleep(STORE_POLL_MS, undefined, { signal });
      }
    },

    async recordIncident(runId, incident, state) {
      events.incident(runId, incident, state);
      // A file of its own: whole or not there, and written twice it is the same.
      const name = `incident-${incident.id.replace(/[^A-Za-z0-9_-]/g, '.')}.json`;
      const bytes = `${JSON.stringify(incident, null, 2)}\n`;
      const write = async (): Promise<void> => {
        // A first word that comes late must not take the last one back.
        if (state === 'opened' && (await store.readRunFile(runId, name)) !== null) return;
        await store.writeRunFile(runId, name, bytes);
      };
      await classifyingStoreErrors(write).catch((error: unknown) => {
        // A full store may be the very incident: the journal must not end the run.
        if (state === 'closed') throw error;
      });
    },

    recordNote(runId, note) {
      events.note({ runId, stage: '' }, note);
      return Promise.resolve();
    },

    async recordSeconds(runId, seconds) {
      events.seconds(runId, seconds);
      const bytes = `${JSON.stringify(seconds, null, 2)}\n`;
      await classifyingStoreErrors(async () => {
        const before = await store.readRunFile(runId, SECONDS_FILE);
        // Time only grows: less of it is an older word that comes late.
        if (totalIn(before) <= totalSeconds(seconds)) await store.writeRunFile(runId, SECONDS_FILE, bytes);
      });
    },

    recordRunState(runId, stage, state, failure = null) {
      if (failure !== null) events.note({ runId, stage: '' }, `${FAILURE_NOTE}${failure}`);
      events.runState(runId, stage, state);
      runTraces.state({ runId, stage, state, failure });
      return Promise.resolve();
    },

    async publishGeneration({ plan, jobs, epoch }) {
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
          epoch,
          history: {
            datasetPath: await store.localPath(outputOf(jobs, 'ingest', 'dataset')),
            usersPath: await store.localPath(outputOf(jobs, 'ingest', 'users')),
          },
        });
      await classifyingStoreErrors(publish).catch((error: unknown) => {
        if (error instanceof StalePublicationError) throw classified('internal', error.message);
        throw error;
      });
      events.note({ runId: plan.runId, stage: 'publish' }, `generation ${generation} published`);
      return generation;
    },

    async finishRun({ plan, pin, jobs, generation }) {
      const result: RunResult = {
        runId: plan.runId,
        numericsClass: pin.numericsClass,
        engineRevision: pin.engineRevision,
        resultDigest: resultDigestOf({ jobs, published: jobs['assemble']?.outputs['published'] ?? null }),
        jobs,
        generation,
      };
      const bytes = Buffer.from(`${JSON.stringify(result, null, 2)}\n`);
      await classifyingStoreErrors(() => store.writeRunFile(plan.runId, 'result.json', bytes));
      return result;
    },

    async writeReport({ plan, status, jobs }) {
      const { runId } = plan;
      try {
        if (status.result === null) await store.writeRunFile(runId, JOBS_FILE, `${JSON.stringify(jobs)}\n`);
        // The learning curves are in the events, of which the last may not be in the file yet.
        await events.flush();
        const page = await makeRunReport(store, { plan, status, jobs: status.result?.jobs ?? jobs });
        await store.writeRunFile(runId, REPORT_FILE, page);
      } catch (error) {
        const reason = error instanceof Error ? error.message : String(error);
        events.note({ runId, stage: '' }, `no report was written: ${reason}; "collimate report ${runId}" makes it`);
      }
    },
  };
}

/** 0 when there is no such file, or it is damaged. */
function totalIn(file: Buffer | null): number {
  try {
    return file === null ? 0 : totalSeconds(JSON.parse(file.toString('utf8')) as RunSeconds);
  } catch {
    return 0;
  }
}

function outputOf(jobs: Record<string, JobResult>, job: string, output: string): string {
  const digest = jobs[job]?.outputs[output];
  if (digest === undefined) throw classified('internal', `job ${job} has no output ${output}`);
  return digest;
}
