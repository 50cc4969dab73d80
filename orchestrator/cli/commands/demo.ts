/**
 * `demo`: the whole path on real processes, from nothing to a list, and nothing left running.
 *
 * 1. It has a home of its own, emptied at the start: no result of an earlier demo can answer for this one.
 * 2. Everything is taken down on every way out; the supervisor also watches this process, so even SIGKILL leaves nothing.
 * 3. `--kill-worker` kills at step events; a kill that did not come about fails the demo.
 */
import { type Command } from 'commander';
import { rmSync } from 'node:fs';
import { basename, join, resolve } from 'node:path';

import { type RunStatus } from '../../../workflows/contract.js';
import { openStore } from '../../artifacts/store.js';
import { CliError } from '../cli-error.js';
import { contextOf, untilInterrupted, wholeNumber } from '../command-context.js';
import { RunFollower } from '../follow-run.js';
import { type Home, homeAt, type ProcessTable, readProcessTable } from '../home.js';
import { down, up } from '../installation.js';
import { bold, data, dataJson, dim, formatSeconds, type OutputFormat, progress, yellow } from '../output.js';
import { isAlive, recordOf } from '../process-control.js';
import { projectRoot } from '../project-paths.js';
import { describeQuality, describeUser, makeReport, type RunReport } from '../run-report.js';
import { RunProgress } from '../run-progress.js';
import { type PlanSource, preparePlan, startRun } from '../start-run.js';
import { NAMESPACE } from '../supervisor-config.js';
import { connectTemporal } from '../temporal-connection.js';
import { DEMO_KILLS, WorkerKiller } from '../worker-killer.js';
import { throwUnlessDone } from './run.js';

interface DemoFlags {
  data?: string;
  file?: string;
  killWorker?: boolean;
  workers: number;
  set: string[];
}

export function addDemoCommand(program: Command): void {
  program
    .command('demo')
    .description('run the whole path on the simulated shop (or on --data), show what came out, and stop everything')
    .option('--data <dir>', 'data folder instead of the simulated shop')
    .option('--file <file>', 'run file instead of the one for the demo')
    .option('--kill-worker', 'SIGKILL a worker in the codebooks and again in the middle of the tuning')
    .option('--workers <n>', 'worker processes of one thread each', wholeNumber('--workers', 1, 64), 2)
    .option(
      '--set <key=value>',
      'set a value of the run file (may be repeated)',
      (value, all: string[]) => [...all, value],
      [],
    )
    .action(async (flags: DemoFlags, command: Command) => {
      const { home: outer, output } = contextOf(command);
      const root = join(outer.root, 'demo');
      // Its own store always: the demo begins by emptying it.
      await runDemo({ ...homeAt(root), store: join(root, 'store') }, flags, output);
    });
}

async function runDemo(home: Home, flags: DemoFlags, output: OutputFormat): Promise<void> {
  const startedMs = Date.now();
  await emptyHome(home);
  const { signal, release } = untilInterrupted();
  try {
    // The plan first: bad input must not cost the start of five processes.
    const plan = await preparePlan(home, planSourceOf(flags));
    // The demo's codebooks take a tenth of a second. A checkpoint at every step, which alters no result, gives the kill time to come.
    if (flags.killWorker) plan.checkpointIntervalSteps.codebooks = 1;
    progress(`starting the Temporal server, the controller and ${flags.workers} workers …`);
    const { table } = await up(home, {
      workers: flags.workers,
      threads: 1,
      ports: { temporal: 0, ui: 0, controller: 0, metrics: 0, prometheus: 0 },
      monitoring: false,
      externalTemporal: null,
      owner: recordOf(process.pid),
    });
    stopIfInterrupted(signal);
    progress(
      dim(
        `  Temporal UI http://${table.addresses.ui ?? ''} · metrics http://${table.addresses.controllerMetrics}/metrics`,
      ),
    );
    const { status, killer } = await followDemo({ home, table, plan, flags, signal });
    if (status.result === null) throw new CliError('runFailed', `run ${plan.runId} ended without a result`);
    const report = await makeReport(openStore(home.store), status.result);
    const seconds = (Date.now() - startedMs) / 1000;
    if (output === 'json') dataJson({ ...report, incidents: status.incidents, kills: killer.kills, seconds });
    else printReport({ report, status, home, seconds });
    checkKills(killer, status);
  } finally {
    progress('stopping everything …');
    await down(home);
    release();
  }
}

async function emptyHome(home: Home): Promise<void> {
  const table = readProcessTable(home);
  if (table !== null && isAlive(table.supervisor)) {
    throw new CliError('badInput', `another demo runs in ${home.root}; wait for its end, or give another --home`);
  }
  await down(home);
  rmSync(home.root, { recursive: true, force: true });
}

function planSourceOf(flags: DemoFlags): PlanSource {
  const example = (name: string): string => join(projectRoot, 'deploy', 'examples', name);
  if (flags.data === undefined) return { file: flags.file ?? example('demo.yaml'), settings: flags.set };
  const name = basename(resolve(flags.data))
    .toLowerCase()
    .replace(/[^a-z0-9]+/g, '-')
    .replace(/^-+|-+$/g, '')
    .slice(0, 40);
  return {
    file: flags.file ?? example('scientific.yaml'),
    dataFolder: flags.data,
    settings: [`name=${name === '' ? 'data' : name}`, ...flags.set],
  };
}

interface FollowDemo {
  home: Home;
  table: ProcessTable;
  plan: Awaited<ReturnType<typeof preparePlan>>;
  flags: DemoFlags;
  signal: AbortSignal;
}

async function followDemo({
  home,
  table,
  plan,
  flags,
  signal,
}: FollowDemo): Promise<{ status: RunStatus; killer: WorkerKiller }> {
  const view = new RunProgress();
  const killer = new WorkerKiller(home, flags.killWorker ? DEMO_KILLS : [], (kill) =>
    progress(
      yellow(
        `  ! SIGKILL to worker ${kill.workerId} (pid ${kill.pid}) at step ${kill.step} of ${kill.stepsTotal} of ${kill.job}`,
      ),
    ),
  );
  const session = await connectTemporal(table.addresses.temporal, NAMESPACE);
  const follower = new RunFollower({
    session,
    controllerAddress: table.addresses.controller,
    runId: plan.runId,
    signal,
    onEvent: (event) => {
      view.event(event);
      killer.event(event);
    },
    onStatus: view.status,
    onContact: view.contact,
  });
  try {
    await startRun(session, plan);
    progress(`run ${bold(plan.runId)}`);
    const status = await follower.untilOver();
    view.end();
    if (status === null) throw new CliError('cancelled', 'the demo was interrupted');
    throwUnlessDone(status);
    return { status, killer };
  } finally {
    follower.close();
    await session.close();
  }
}

function stopIfInterrupted(signal: AbortSignal): void {
  if (signal.aborted) throw new CliError('cancelled', 'the demo was interrupted');
}

function checkKills(killer: WorkerKiller, status: RunStatus): void {
  const missed = killer.missed();
  if (missed.length > 0)
    throw new CliError(
      'runFailed',
      `expected to kill a worker in ${missed.join(' and ')}, but its job sent no step event`,
    );
  for (const kill of killer.kills) {
    if (!status.incidents.some((incident) => incident.jobKind === kill.job)) {
      throw new CliError('runFailed', `the kill in ${kill.job} came after its last step: no incident was recorded`);
    }
  }
}

interface PrintOptions {
  report: RunReport;
  status: RunStatus;
  home: Home;
  seconds: number;
}

function printReport({ report, status, home, seconds }: PrintOptions): void {
  const users = report.usersEvaluated === null ? '' : ` (full ranking, ${report.usersEvaluated} users)`;
  data('');
  data(bold(`quality on the test events${users}`));
  data(describeQuality(report.quality));
  if (report.user !== null) data(`\n${describeUser(report.user)}`);
  data('');
  if (status.incidents.length > 0) data(`incidents      ${status.incidents.length}, all recovered from`);
  data(`result digest  ${report.resultDigest}`);
  data(`numerics       ${status.numericsClass ?? '-'}`);
  data(`artifacts      ${home.store}`);
  data(`events         ${join(home.store, 'runs', report.runId, 'events.ndjson')}`);
  data(`logs           ${home.logs}`);
  data(`total time     ${formatSeconds(seconds)}`);
}
