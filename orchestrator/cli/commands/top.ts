/** `top`: all runs and the whole fleet at a glance, drawn again every two seconds on a terminal. */
import { setTimeout as sleep } from 'node:timers/promises';

import { type Command } from 'commander';

import { type RunStatus } from '../../../workflows/contract.js';
import { totalSeconds } from '../../../workflows/timeline.js';
import { isAway, messageOf } from '../cli-error.js';
import { contextOf, untilInterrupted, withSession } from '../command-context.js';
import { ageOf, describeWorkers } from '../describe-fleet.js';
import { FleetClient } from '../fleet-client.js';
import { cut } from '../live-view.js';
import { data, dataJson, table } from '../output.js';
import { queryRunStatus } from '../run-status.js';
import { Screen } from '../screen.js';
import { type TemporalSession } from '../temporal-connection.js';
import { type ListedRun, listRuns } from './follow.js';

const EVERY_MS = 2_000;
/** Those under way are asked one by one. */
const ASKED_MAX = 20;
const ENDED_SHOWN = 5;

interface Overview {
  /** Those under way first; `status` is null for ended ones and for those beyond the first few. */
  runs: (ListedRun & { status: RunStatus | null })[];
  workers: Awaited<ReturnType<FleetClient['listWorkers']>>['workers'];
}

export function addTopCommand(program: Command): void {
  program
    .command('top')
    .description('runs and fleet at a glance, drawn again every two seconds on a terminal; once on a pipe')
    .option('--once', 'say it once and end, also on a terminal')
    .action(async (flags: { once?: boolean }, command: Command) => {
      const { home, output } = contextOf(command);
      await withSession(home, async (session, { addresses }) => {
        const fleet = new FleetClient(addresses.controller);
        const { signal, release } = untilInterrupted();
        try {
          if (flags.once === true || output === 'json' || !Screen.isThere()) {
            const overview = await overviewOf(session, fleet);
            if (output === 'json') dataJson(overview);
            else data(describeOverview(overview, Date.now()).join('\n'));
            return;
          }
          const screen = new Screen();
          while (!signal.aborted) {
            const lines = await overviewOf(session, fleet).then(
              (overview) => describeOverview(overview, Date.now()),
              (error: unknown) => {
                if (!isAway(error)) throw error;
                return [`the servers do not answer; waiting (${messageOf(error)})`];
              },
            );
            screen.draw(lines.map((line) => cut(line, screen.columns)));
            await sleep(EVERY_MS, undefined, { signal }).catch(() => undefined);
          }
        } finally {
          release();
          fleet.close();
        }
      });
    });
}

async function overviewOf(session: TemporalSession, fleet: FleetClient): Promise<Overview> {
  const [listed, { workers }] = await Promise.all([listRuns(session), fleet.listWorkers()]);
  const underWay = listed.filter(({ ended }) => ended === null);
  const ended = listed.filter((run) => run.ended !== null).slice(0, ENDED_SHOWN);
  const asked = await Promise.all(
    underWay.map(async (run, index) => ({
      ...run,
      // One that has just ended, or begun, is shown by what the list has of it.
      status: index < ASKED_MAX ? await queryRunStatus(session, run.runId).catch(() => null) : null,
    })),
  );
  return { runs: [...asked, ...ended.map((run) => ({ ...run, status: null }))], workers };
}

export function describeOverview({ runs, workers }: Overview, nowMs: number): string[] {
  const busy = workers.filter(({ lease }) => lease !== null).length;
  const underWay = runs.filter(({ ended }) => ended === null).length;
  const head = `${underWay} run${underWay === 1 ? '' : 's'} under way; ${workers.length} worker${workers.length === 1 ? '' : 's'}, ${busy} busy`;
  const columns = ['RUN', 'STATE', 'DOES', 'GOODPUT', 'INC', 'AGE'].map((title) => ({ title }));
  const rows = runs.map((run) => {
    const { runId, started, ended, status } = run;
    const age = ageOf(((ended === null ? nowMs : Date.parse(ended)) - Date.parse(started)) / 1000);
    if (status === null) return [runId, run.state, '', '', '', age];
    const stage = status.stages.find(({ state }) => state === 'running' || state === 'paused');
    const working = stage?.jobs.filter(({ step, stepsTotal, memoised }) => !memoised && step < stepsTotal) ?? [];
    const jobs = working.slice(0, 1).map(({ kind, step, stepsTotal }) => `${kind} ${percentOf(step, stepsTotal)}`);
    const total = totalSeconds(status.seconds);
    const goodput = total === 0 ? '' : percentOf(status.seconds['work'] ?? 0, total);
    return [runId, status.state, jobs[0] ?? stage?.name ?? '', goodput, String(status.incidents.length), age];
  });
  const listed = rows.length === 0 ? ['no runs yet'] : table(columns, rows).split('\n');
  return [head, '', ...listed, '', ...describeWorkers(workers, nowMs / 1000).split('\n')];
}

function percentOf(part: number, whole: number): string {
  return whole === 0 ? '' : `${Math.floor((100 * part) / whole)} %`;
}
