/**
 * The run: one child workflow per stage, in order; pause, resume and status for people.
 *
 * 1. The run's workflow id is its run id. A stage's is `<run id>/<stage>`.
 * 2. Status answers from this workflow's own state, with every native worker down.
 * 3. Cancelling the run cancels the stage under way and waits until it has given its workers back.
 */
import {
  ApplicationFailure,
  ChildWorkflowCancellationType,
  CancellationScope,
  condition,
  defineQuery,
  defineSignal,
  defineUpdate,
  getExternalWorkflowHandle,
  isCancellation,
  proxyActivities,
  setHandler,
  startChild,
  type ChildWorkflowHandle,
} from '@temporalio/workflow';

import type { Activities } from './activity-contract.js';
import {
  PAUSE_UPDATE,
  RESUME_UPDATE,
  SET_PAUSED_SIGNAL,
  STATUS_QUERY,
  stageWorkflowId,
  type JobResult,
  type RunPlan,
  type RunResult,
  type RunStatus,
  type StageInput,
  type StageName,
  type StageResult,
} from './contract.js';
import { rootCause } from './stage.js';

const activities = proxyActivities<Activities>({
  startToCloseTimeout: '60 s',
  retry: { initialInterval: '200 ms', backoffCoefficient: 2, maximumInterval: '5 s' },
});

/** For what waits for workers or writes much; heard of every few seconds, so that a lost one is repeated soon. */
const long = proxyActivities<Pick<Activities, 'pinRun' | 'publishGeneration'>>({
  startToCloseTimeout: '30 d',
  heartbeatTimeout: '10 s',
  retry: { initialInterval: '200 ms', backoffCoefficient: 2, maximumInterval: '5 s' },
});

const statusQuery = defineQuery<RunStatus>(STATUS_QUERY);
const pauseUpdate = defineUpdate<RunStatus>(PAUSE_UPDATE);
const resumeUpdate = defineUpdate<RunStatus>(RESUME_UPDATE);
const setPausedSignal = defineSignal<[boolean]>(SET_PAUSED_SIGNAL);

type StageWorkflow = (input: StageInput) => Promise<StageResult>;

/** Stage name to workflow type, in the order in which they run. */
const STAGE_WORKFLOWS: [StageName, string][] = [
  ['ingest', 'ingestStage'],
  ['embed', 'embedStage'],
  ['align_tokens', 'alignTokensStage'],
  ['align_tasks', 'alignTasksStage'],
  ['evaluate', 'evaluateStage'],
  ['publish', 'publishStage'],
];

export async function runWorkflow(plan: RunPlan): Promise<RunResult> {
  const stages = STAGE_WORKFLOWS.filter(([name]) => name !== 'publish' || plan.publish);
  const status: RunStatus = {
    runId: plan.runId,
    name: plan.name,
    state: 'running',
    numericsClass: plan.numericsClass,
    stages: stages.map(([name]) => ({ name, state: 'waiting', jobs: [] })),
    incidents: [],
    failure: null,
    result: null,
  };
  let current: ChildWorkflowHandle<StageWorkflow> | null = null;

  const tellStage = async (paused: boolean): Promise<void> => {
    try {
      await current?.signal(setPausedSignal, paused);
    } catch (error) {
      // The stage has just ended; the next one waits for this workflow's own state.
      if (isCancellation(error)) throw error;
    }
  };
  const setPaused = async (paused: boolean): Promise<RunStatus> => {
    status.state = paused ? 'paused' : 'running';
    await tellStage(paused);
    await activities.recordRunState(plan.runId, null, status.state);
    return status;
  };
  const refuseWhenOver = (): void => {
    if (status.state !== 'running' && status.state !== 'paused') {
      throw ApplicationFailure.nonRetryable(
        `run ${plan.runId} is ${status.state}; only a run under way can be changed`,
      );
    }
  };
  setHandler(statusQuery, () => status);
  setHandler(pauseUpdate, () => setPaused(true), { validator: refuseWhenOver });
  setHandler(resumeUpdate, () => setPaused(false), { validator: refuseWhenOver });

  // A child's own cancellation names its first execution, which is over once the stage has continued as new; by workflow id
  // the present one is reached.
  CancellationScope.current().cancelRequested.catch(async () => {
    const running = status.stages.find((stage) => stage.state === 'running');
    if (running === undefined) return;
    await CancellationScope.nonCancellable(() =>
      getExternalWorkflowHandle(stageWorkflowId(plan.runId, running.name)).cancel(),
    ).catch(() => undefined);
  });

  try {
    await activities.recordRunState(plan.runId, null, 'running');
    const pin = await long.pinRun(plan);
    status.numericsClass = pin.numericsClass;
    const jobs: Record<string, JobResult> = {};
    for (const [index, [name, workflowType]] of stages.entries()) {
      await condition(() => status.state !== 'paused');
      const stage = status.stages[index];
      if (stage === undefined) throw new Error('stage list changed under way');
      stage.state = 'running';
      await activities.recordRunState(plan.runId, name, 'running');
      const input: StageInput = { plan, pin, jobs, paused: false, carried: null };
      current = await startChild<StageWorkflow>(workflowType, {
        workflowId: stageWorkflowId(plan.runId, name),
        args: [input],
        cancellationType: ChildWorkflowCancellationType.WAIT_CANCELLATION_COMPLETED,
        parentClosePolicy: 'REQUEST_CANCEL',
      });
      // A pause that came while the child was being started.
      if (status.state === 'paused') await tellStage(true);
      const result = await current.result();
      current = null;
      Object.assign(jobs, result.jobs);
      stage.jobs = result.progress;
      status.incidents.push(...result.incidents);
      stage.state = 'done';
      await activities.recordRunState(plan.runId, name, 'done');
    }
    const generation = plan.publish ? await long.publishGeneration({ plan, jobs }) : null;
    status.result = await activities.finishRun({ plan, pin, jobs, generation });
    status.state = 'done';
    await activities.recordRunState(plan.runId, null, 'done');
    return status.result;
  } catch (error) {
    const cancelled = isCancellation(error);
    status.state = cancelled ? 'cancelled' : 'failed';
    const root = rootCause(error);
    status.failure = cancelled ? null : root instanceof Error ? root.message : String(root);
    const running = status.stages.find((stage) => stage.state === 'running');
    if (running !== undefined) {
      const partial = partialResult(error);
      running.state = status.state;
      running.jobs = partial?.progress ?? [];
      status.incidents.push(...(partial?.incidents ?? []));
    }
    await CancellationScope.nonCancellable(() => activities.recordRunState(plan.runId, null, status.state));
    throw error;
  }
}

/** What a failed stage had done and seen, from its failure's details. */
function partialResult(error: unknown): StageResult | null {
  const root = rootCause(error);
  const details = root instanceof ApplicationFailure ? (root.details?.[0] as StageResult | undefined) : undefined;
  return details?.incidents === undefined ? null : details;
}
