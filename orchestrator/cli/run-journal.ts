/**
 * What the store knows of a run without any server: its files and events, as a status.
 *
 * 1. Of a run that has ended everything that people ask for is here: state, reason, incidents, seconds, result.
 * 2. A run that has not ended is shown as it was last heard of.
 */
import {
  type Incident,
  type JsonObject,
  type RunPlan,
  type RunResult,
  type RunSeconds,
  type RunStatus,
  STAGES,
  type StageName,
  type StageState,
} from '../../workflows/contract.js';
import { FAILURE_NOTE } from '../activities/run-notes.js';
import { type ArtifactStore } from '../artifacts/store.js';
import { requireRun } from './run-log.js';

const INCIDENT_FILE = /^incident-.*\.json$/;

/** Throws `notFound` when the store has no such run. */
export async function readRunJournal(store: ArtifactStore, runId: string): Promise<RunStatus> {
  await requireRun(store, runId);
  const read = async <T>(name: string): Promise<T | null> => {
    const bytes = await store.readRunFile(runId, name);
    return bytes === null ? null : (JSON.parse(bytes.toString('utf8')) as T);
  };
  const plan = await read<RunPlan>('plan.json');
  const result = await read<RunResult>('result.json');
  const names = (await store.listRunFiles(runId)).filter((name) => INCIDENT_FILE.test(name));
  const incidents = (await Promise.all(names.map((name) => read<Incident>(name)))).filter((found) => found !== null);
  const { state, failure, stages } = statesIn(await store.readRunEvents(runId));
  return {
    runId,
    name: plan?.name ?? runId,
    state,
    numericsClass: result?.numericsClass ?? plan?.numericsClass ?? null,
    fleet: plan?.fleet ?? { min: 0, max: 0, spares: 0 },
    stages: [...stages].map(([name, stageState]) => ({ name, state: stageState, jobs: [] })),
    incidents: incidents.sort((a, b) => a.phases.detected - b.phases.detected),
    seconds: (await read<RunSeconds>('seconds.json')) ?? {},
    failure,
    result,
  };
}

/** States by what the events say last; a stage that is not named as ended ended with its run. */
function statesIn(events: JsonObject[]): Pick<RunStatus, 'state' | 'failure'> & { stages: Map<StageName, StageState> } {
  let state: RunStatus['state'] = 'running';
  let failure: string | null = null;
  const stages = new Map<StageName, StageState>();
  for (const { type, message } of events) {
    if (type !== 'note' || typeof message !== 'string') continue;
    const run = /^run (running|paused|waiting_for_approval|done|failed|cancelled)$/.exec(message)?.[1];
    if (run !== undefined) state = run as RunStatus['state'];
    if (message.startsWith(FAILURE_NOTE)) failure = message.slice(FAILURE_NOTE.length);
    const [, stage, stageState] = /^stage (\w+) (running|done)$/.exec(message) ?? [];
    if (isStage(stage)) stages.set(stage, stageState as StageState);
  }
  if (state === 'failed' || state === 'cancelled') {
    for (const [stage, stageState] of stages) if (stageState === 'running') stages.set(stage, state);
  }
  return { state, failure: state === 'failed' ? failure : null, stages };
}

function isStage(name: string | undefined): name is StageName {
  return (STAGES as readonly (string | undefined)[]).includes(name);
}
