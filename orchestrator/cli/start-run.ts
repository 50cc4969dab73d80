/** From a run file to a workflow that runs: what `collimate run` and the demo share. */
import { dirname } from 'node:path';

import { RUN_WORKFLOW, type RunPlan, TASK_QUEUE } from '../../workflows/contract.js';
import { CliError } from './cli-error.js';
import { withStore } from './command-context.js';
import { type Home } from './home.js';
import { loadRunFile } from './run-file.js';
import { resolveRun, storeInputs } from './run-plan.js';
import { type TemporalSession } from './temporal-connection.js';

export interface PlanSource {
  file: string;
  /** Replaces the file's `data`. */
  dataFolder?: string | undefined;
  /** `key=value` settings over the file. */
  settings?: string[] | undefined;
}

/** Checks everything first, then stores the files and the plan. */
export async function preparePlan(home: Home, source: PlanSource): Promise<RunPlan> {
  const settings = source.settings ?? [];
  const loaded = loadRunFile(source.file, settings);
  const run = resolveRun(loaded, { baseFolder: dirname(source.file), dataFolder: source.dataFolder });
  return withStore(home, async (store) => {
    const plan = await storeInputs(run, store);
    await store.writeRunFile(plan.runId, 'plan.json', `${JSON.stringify(plan, null, 2)}\n`);
    return plan;
  });
}

export async function startRun(session: TemporalSession, plan: RunPlan): Promise<void> {
  try {
    await session.call(`start of ${plan.runId}`, () =>
      session.client.workflow.start(RUN_WORKFLOW, {
        taskQueue: TASK_QUEUE,
        workflowId: plan.runId,
        args: [plan],
        memo: { name: plan.name },
      }),
    );
  } catch (error) {
    if (error instanceof Error && error.name === 'WorkflowExecutionAlreadyStartedError') {
      throw new CliError('badInput', `a run ${plan.runId} exists already; try again`, { cause: error });
    }
    throw error;
  }
}
