/** `cancel`, `pause`, `resume`: changing a run that is under way. */
import { type Command } from 'commander';

import { PAUSE_UPDATE, RESUME_UPDATE, type RunStatus } from '../../../workflows/contract.js';
import { CliError, messageOf } from '../cli-error.js';
import { contextOf, withSession } from '../command-context.js';
import { data, dataJson, progress } from '../output.js';
import { isOver, queryRunStatus } from '../run-status.js';
import { setTimeout as sleep } from 'node:timers/promises';

const CANCEL_WAIT_MS = 60_000;

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
}

function addUpdateCommand(program: Command, options: { name: string; update: string; description: string }): void {
  program
    .command(options.name)
    .description(options.description)
    .argument('<run>', 'run id')
    .action(async (runId: string, _flags: unknown, command: Command) => {
      const { home, output } = contextOf(command);
      const status = await withSession(home, async (session) => {
        try {
          return await session.call(`${options.name} of ${runId}`, () =>
            session.client.workflow.getHandle(runId).executeUpdate<RunStatus, []>(options.update),
          );
        } catch (error) {
          if (!(error instanceof Error) || error.name !== 'WorkflowUpdateFailedError') throw error;
          throw new CliError('badInput', messageOf(error.cause ?? error), { cause: error });
        }
      });
      if (output === 'json') dataJson(status);
      else data(`${runId} ${status.state}`);
    });
}
