/**
 * What a run is doing, asked from Temporal.
 *
 * 1. The run's own query answers for ended stages; the stage under way is asked itself and merged in.
 * 2. A run that Temporal ended without its workflow's say (terminated, timed out) is failed.
 */
import {
  type RunStatus,
  STAGE_STATUS_QUERY,
  type StageResult,
  STATUS_QUERY,
  stageWorkflowId,
} from '../../workflows/contract.js';
import { addSeconds } from '../../workflows/timeline.js';
import { type TemporalSession } from './temporal-connection.js';

const STAGE_QUERY_DEADLINE_MS = 3_000;

export async function queryRunStatus(session: TemporalSession, runId: string): Promise<RunStatus> {
  const handle = session.client.workflow.getHandle(runId);
  const described = await session.call(`run ${runId}`, () => handle.describe());
  const status = await session.call(`status of ${runId}`, () => handle.query<RunStatus>(STATUS_QUERY));
  const running = status.stages.find((stage) => stage.state === 'running' || stage.state === 'paused');
  if (running !== undefined) {
    try {
      const stageHandle = session.client.workflow.getHandle(stageWorkflowId(runId, running.name));
      const stage = await session.call(
        `stage ${running.name}`,
        () => stageHandle.query<StageResult>(STAGE_STATUS_QUERY),
        STAGE_QUERY_DEADLINE_MS,
      );
      running.jobs = stage.progress;
      status.incidents = [...status.incidents, ...stage.incidents];
      status.seconds = addSeconds(status.seconds, stage.seconds);
    } catch {
      // The stage has just begun or just ended: the run's own answer stands.
    }
  }
  const ended = described.status.name;
  if (ended === 'TERMINATED' || ended === 'TIMED_OUT') {
    status.state = 'failed';
    status.failure ??= `the workflow was ${ended.toLowerCase().replace('_', ' ')}`;
  }
  return status;
}

export function isOver(status: RunStatus): boolean {
  return status.state === 'done' || status.state === 'failed' || status.state === 'cancelled';
}
