/** `ls`, `status`, `watch`, `logs`: looking at runs. None of them changes one. */
import { type Command } from 'commander';

import { RUN_WORKFLOW, type RunStatus } from '../../../workflows/contract.js';
import { CliError, isAway } from '../cli-error.js';
import { contextOf, untilInterrupted, withSession, withStore } from '../command-context.js';
import { describeIncidents, describeStatus } from '../describe-status.js';
import { type FollowOptions, RunFollower } from '../follow-run.js';
import { type Home } from '../home.js';
import { data, dataJson, dataJsonLine, progress, table } from '../output.js';
import { readRunJournal } from '../run-journal.js';
import { followRunLog, printableLogLine, readRunLog, requireRun } from '../run-log.js';
import { queryRunStatus } from '../run-status.js';
import { LiveView } from '../live-view.js';
import { RunProgress } from '../run-progress.js';
import { Screen } from '../screen.js';
import { type TemporalSession } from '../temporal-connection.js';
import { concludeFollow } from './run.js';

const RUNS_MAX = 1_000;
const FRAME_MS = 250;

export interface ListedRun {
  runId: string;
  state: string;
  started: string;
  ended: string | null;
}

export function addFollowCommands(program: Command): void {
  program
    .command('ls')
    .description('list runs, newest first')
    .action(async (_flags: unknown, command: Command) => {
      const { home, output } = contextOf(command);
      const runs = await withSession(home, (session) => listRuns(session));
      if (output === 'json') dataJson(runs);
      else if (runs.length === 0) data('no runs yet');
      else {
        const rows = runs.map((run) => [run.runId, run.state, run.started, run.ended ?? '-']);
        data(table([{ title: 'RUN' }, { title: 'STATE' }, { title: 'STARTED' }, { title: 'ENDED' }], rows));
      }
    });

  program
    .command('status')
    .description('show the stages, jobs, time and incidents of a run; without servers, what the store has of it')
    .argument('<run>', 'run id')
    .option('--incidents', 'each incident: what was seen and done, how long each phase took, the last log lines')
    .action(async (runId: string, flags: { incidents?: boolean }, command: Command) => {
      const { home, output } = contextOf(command);
      const status = await statusOf(home, runId);
      if (output === 'json') dataJson(flags.incidents ? status.incidents : status);
      else data(flags.incidents ? describeIncidents(status.incidents) : describeStatus(status));
    });

  program
    .command('watch')
    .description('follow a run to its end, on a terminal as one screenful; Ctrl-C leaves it running')
    .argument('<run>', 'run id')
    .option('--plain', 'lines as on a pipe, also on a terminal')
    .action(async (runId: string, flags: { plain?: boolean }, command: Command) => {
      const { home, output } = contextOf(command);
      await withSession(home, async (session, processes) => {
        await queryRunStatus(session, runId);
        const { signal, release } = untilInterrupted();
        const live = output !== 'json' && flags.plain !== true && Screen.isThere();
        const view = live ? onScreen(runId) : output === 'json' ? asJsonLines() : asLines();
        const follower = new RunFollower({
          session,
          controllerAddress: processes.addresses.controller,
          runId,
          signal,
          onEvent: view.event,
          onStatus: view.status,
          onContact: view.contact,
        });
        try {
          const status = await follower.untilOver();
          view.end();
          concludeFollow({ runId }, status, output);
        } finally {
          view.end();
          follower.close();
          release();
        }
      });
    });

  program
    .command('logs')
    .description('print the events of a run from the artifact store; needs no server')
    .argument('<run>', 'run id')
    .option('--follow', 'go on until the run ends; Ctrl-C leaves')
    .action(async (runId: string, flags: { follow?: boolean }, command: Command) => {
      const { home, output } = contextOf(command);
      const print = (line: string): void => data(output === 'json' ? line : printableLogLine(line));
      await withStore(home, async (store) => {
        await requireRun(store, runId);
        if (!flags.follow) {
          (await readRunLog(store, runId, null)).lines.forEach(print);
          return;
        }
        const { signal, release } = untilInterrupted();
        try {
          await followRunLog({ store, runId, signal, print });
        } finally {
          release();
        }
      });
    });
}

interface RunView {
  event: NonNullable<FollowOptions['onEvent']>;
  status: NonNullable<FollowOptions['onStatus']>;
  contact: NonNullable<FollowOptions['onContact']>;
  /** May be called twice. */
  end: () => void;
}

function asJsonLines(): RunView {
  return { event: dataJsonLine, status: () => undefined, contact: () => undefined, end: () => undefined };
}

function asLines(): RunView {
  const view = new RunProgress();
  return {
    event: view.event,
    status: view.status,
    contact: view.contact,
    end: () => {
      view.end();
    },
  };
}

function onScreen(runId: string): RunView {
  const view = new LiveView(runId, Date.now());
  const screen = new Screen();
  const draw = (): void => {
    screen.draw(view.frame(Date.now(), screen.columns));
  };
  const timer = setInterval(draw, FRAME_MS);
  return {
    event: (event) => {
      view.event(event, Date.now());
    },
    status: (status) => {
      view.status(status);
    },
    contact: (reachable) => {
      view.contact(reachable);
    },
    end: () => {
      clearInterval(timer);
      draw();
    },
  };
}

/** From the servers; from the store when they do not answer, or know nothing of the run. */
async function statusOf(home: Home, runId: string): Promise<RunStatus> {
  try {
    return await withSession(home, (session) => queryRunStatus(session, runId));
  } catch (error) {
    const isUnknown = error instanceof CliError && error.exit === 'notFound';
    if (!isAway(error) && !isUnknown) throw error;
    const journal = await withStore(home, (store) => readRunJournal(store, runId)).catch(() => null);
    if (journal === null) throw error;
    progress(`${(error as CliError).message}\nThe store has this of the run:`);
    return journal;
  }
}

export async function listRuns(session: TemporalSession): Promise<ListedRun[]> {
  return session.call('list of runs', async () => {
    const runs: ListedRun[] = [];
    for await (const run of session.client.workflow.list({ query: `WorkflowType = '${RUN_WORKFLOW}'` })) {
      runs.push({
        runId: run.workflowId,
        state:
          run.status.name === 'COMPLETED'
            ? 'done'
            : run.status.name === 'CANCELLED'
              ? 'cancelled'
              : run.status.name.toLowerCase(),
        started: run.startTime.toISOString(),
        ended: run.closeTime?.toISOString() ?? null,
      });
      if (runs.length >= RUNS_MAX) break;
    }
    return runs.sort((a, b) => (a.started < b.started ? 1 : -1));
  });
}
