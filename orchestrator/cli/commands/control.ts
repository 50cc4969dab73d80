/** `cancel`, `pause`, `resume`, `scale`, `approve`: changing a run that is under way. */
import type { WorkflowHandle } from '@temporalio/client';
import { type Command } from 'commander';

import {
  type Approval,
  APPROVE_UPDATE,
  type FleetLimits,
  PAUSE_UPDATE,
  RESUME_UPDATE,
  type RunStatus,
  SCALE_UPDATE,
} from '../../../workflows/contract.js';
import { CliError, messageOf } from '../cli-error.js';
import { contextOf, wholeNumber, withSession } from '../command-context.js';
import { describeFleet } from '../describe-status.js';
import { type Home } from '../home.js';
import { data, dataJson, progress } from '../output.js';
import { isOver, queryRunStatus } from '../run-status.js';
import { setTimeout as sleep } from 'node:timers/promises';

const CANCEL_WAIT_MS = 60_000;
const GANG_MAX = 10_000;

export function addControlCommands(program: Command): void {
  program
    .command('cancel')
    .description('cancel a run; its workers are given back')
    .argument('<run>', 'run id')
    .action(async (runId: string, _flags: unknown, command: Command) => {
      const { home, output } = contextOf(command);
      await withSession(home, async (session) => {
        const before = await queryRunStatus(session, runId);
        if (isOver(before))
          throw new CliError('badInput', `run ${runId} is ${before.state}; only a run under way can be cancelled`);
        await session.call(`cancel of ${runId}`, () => session.client.workflow.getHandle(runId).cancel());
        progress('cancellation requested; waiting until the workers are given back …');
        const end = Date.now() + CANCEL_WAIT_MS;
        let status = before;
        while (!isOver(status)) {
          if (Date.now() > end)
            throw new CliError('timeout', `run ${runId} is still ${status.state} after ${CANCEL_WAIT_MS / 1000} s`);
          await sleep(200);
          status = await queryRunStatus(session, runId);
        }
        if (output === 'json') dataJson(status);
        else data(`${runId} ${status.state}`);
      });
    });

  addUpdateCommand(program, { name: 'pause', update: PAUSE_UPDATE, description: 'pause a run at its next checkpoint' });
  addUpdateCommand(program, { name: 'resume', update: RESUME_UPDATE, description: 'let a paused run go on' });
  addScaleCommand(program);
  addApproveCommand(program);
}

interface ScaleFlags {
  min?: number;
  max?: number;
  spares?: number;
}

function addScaleCommand(program: Command): void {
  program
    .command('scale')
    .description('change how many workers a gang has; a gang under way grows or shrinks at its next step')
    .argument('<run>', 'run id')
    .option('--min <n>', 'with fewer workers a job waits', wholeNumber('--min', 1, GANG_MAX))
    .option('--max <n>', 'most workers of a gang', wholeNumber('--max', 1, GANG_MAX))
    .option('--spares <n>', 'free workers that a gang leaves alone', wholeNumber('--spares', 0, GANG_MAX))
    .action(async (runId: string, flags: ScaleFlags, command: Command) => {
      if (Object.keys(flags).length === 0) {
        throw new CliError('badInput', 'expected at least one of --min, --max and --spares');
      }
      const { home, output } = contextOf(command);
      const status = await sendUpdate(home, runId, {
        name: 'scale',
        send: (run) => run.executeUpdate<RunStatus, [Partial<FleetLimits>]>(SCALE_UPDATE, { args: [flags] }),
      });
      if (output === 'json') dataJson(status);
      else data(`${runId} ${status.state}, gangs of ${describeFleet(status)} from now on`);
    });
}

function addApproveCommand(program: Command): void {
  program
    .command('approve')
    .description('let a run publish that waits for approval, or forbid it; may be said before the run asks')
    .argument('<run>', 'run id')
    .option('--reject', 'nothing is published; the run still ends as done')
    .option('--note <text>', 'who decides and why, kept in the events of the run', '')
    .action(async (runId: string, flags: { reject?: boolean; note: string }, command: Command) => {
      const { home, output } = contextOf(command);
      const approval: Approval = { approved: flags.reject !== true, note: flags.note };
      const status = await sendUpdate(home, runId, {
        name: 'approve',
        send: (run) => run.executeUpdate<RunStatus, [Approval]>(APPROVE_UPDATE, { args: [approval] }),
      });
      if (output === 'json') dataJson(status);
      else data(`${runId} ${status.state}, publication ${approval.approved ? 'approved' : 'rejected'}`);
    });
}

function addUpdateCommand(program: Command, options: { name: string; update: string; description: string }): void {
  program
    .command(options.name)
    .description(options.description)
    .argument('<run>', 'run id')
    .action(async (runId: string, _flags: unknown, command: Command) => {
      const { home, output } = contextOf(command);
      const status = await sendUpdate(home, runId, {
        name: options.name,
        send: (run) => run.executeUpdate(options.update),
      });
      if (output === 'json') dataJson(status);
      else data(`${runId} ${status.state}`);
    });
}

/** What the run refuses is the user's to mend, with the run's own words. */
async function sendUpdate(
  home: Home,
  runId: string,
  { name, send }: { name: string; send: (run: WorkflowHandle) => Promise<RunStatus> },
): Promise<RunStatus> {
  return withSession(home, async (session) => {
    try {
      return await session.call(`${name} of ${runId}`, () => send(session.client.workflow.getHandle(runId)));
    } catch (error) {
      if (error instanceof Error && error.name === 'WorkflowUpdateFailedError') {
        throw new CliError('badInput', messageOf(error.cause ?? error), { cause: error });
      }
      if (!(error instanceof CliError) || error.exit !== 'notFound') throw error;
      // Temporal does not tell a run that is over from one that never was.
      const { state } = await queryRunStatus(session, runId);
      throw new CliError('badInput', `run ${runId} is ${state}; only a run under way can be changed`, { cause: error });
    }
  });
}
