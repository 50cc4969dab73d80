/** `run`: start a run from a run file, and follow it unless told not to. */
import { type Command } from 'commander';

import { type RunPlan, type RunStatus } from '../../../workflows/contract.js';
import { CliError } from '../cli-error.js';
import { contextOf, untilInterrupted, withSession } from '../command-context.js';
import { RunFollower } from '../follow-run.js';
import { requireUp } from '../installation.js';
import { bold, data, dataJson, type OutputFormat, progress } from '../output.js';
import { runFileJsonSchema } from '../run-file-schema.js';
import { RunProgress } from '../run-progress.js';
import { preparePlan, startRun } from '../start-run.js';

interface RunFlags {
  data?: string;
  detach?: boolean;
  set: string[];
  printSchema?: boolean;
}

export function addRunCommand(program: Command): void {
  program
    .command('run')
    .description('start a run and follow it to its end')
    .argument('[file]', 'run file (YAML)')
    .option('--data <dir>', 'data folder instead of the file\'s "data"')
    .option('--detach', 'print the run id and do not follow')
    .option('--set <key=value>', 'set a value of the run file, such as tune.steps=100 (may be repeated)', collect, [])
    .option('--print-schema', 'print the JSON Schema of run files and exit')
    .action(async (file: string | undefined, flags: RunFlags, command: Command) => {
      if (flags.printSchema) {
        dataJson(runFileJsonSchema());
        return;
      }
      if (file === undefined) {
        throw new CliError('badInput', 'expected a run file: collimate run FILE (examples: deploy/examples)');
      }
      const { home, output } = contextOf(command);
      requireUp(home);
      const plan = await preparePlan(home, { file, dataFolder: flags.data, settings: flags.set });
      await withSession(home, async (session, table) => {
        const { signal, release } = untilInterrupted();
        const view = new RunProgress();
        const follower = new RunFollower({
          session,
          controllerAddress: table.addresses.controller,
          runId: plan.runId,
          signal,
          onEvent: view.event,
          onStatus: view.status,
          onContact: view.contact,
        });
        try {
          await startRun(session, plan);
          progress(`run ${bold(plan.runId)} started`);
          if (flags.detach) {
            if (output === 'json') dataJson({ runId: plan.runId });
            else data(plan.runId);
            return;
          }
          const status = await follower.untilOver();
          view.end();
          concludeFollow(plan, status, output);
        } finally {
          follower.close();
          release();
        }
      });
    });
}

function collect(value: string, previous: string[]): string[] {
  return [...previous, value];
}

/** What a follow ends with: the result on stdout and the exit code of the run's state. */
export function concludeFollow(plan: Pick<RunPlan, 'runId'>, status: RunStatus | null, output: OutputFormat): void {
  if (status === null) {
    progress(`left; the run goes on: collimate watch ${plan.runId}`);
    return;
  }
  if (output === 'json') dataJson(status);
  else if (status.result !== null) {
    data(`run         ${status.runId}`);
    data(`digest      ${status.result.resultDigest}`);
    data(`numerics    ${status.result.numericsClass}`);
    if (status.result.generation !== null) data(`generation  ${status.result.generation}`);
  }
  throwUnlessDone(status);
}

export function throwUnlessDone(status: RunStatus): void {
  if (status.state === 'failed') {
    throw new CliError('runFailed', `run ${status.runId} failed: ${status.failure ?? 'no reason given'}`);
  }
  if (status.state === 'cancelled') throw new CliError('cancelled', `run ${status.runId} was cancelled`);
}
