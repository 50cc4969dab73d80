/**
 * Taking a local installation up and down: what `collimate up`, `down` and the demo share.
 *
 * 1. One supervisor per home. A second `up` finds the first by its process table, guarded by a lock file.
 * 2. `down` ends only when every recorded process is gone; what a killed supervisor left behind is stopped as well.
 */
import { spawn } from 'node:child_process';
import { closeSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

import { CliError, hasCode } from './cli-error.js';
import {
  createHome,
  type Home,
  type ProcessRecord,
  type ProcessTable,
  readProcessTable,
  removeProcessTable,
} from './home.js';
import { lastLines } from './managed-process.js';
import { choosePort, HOST } from './ports.js';
import { isAlive, recordOf, sendSignal, stopAll, waitForEnd } from './process-control.js';
import { entryPoint } from './project-paths.js';
import { type SupervisorConfig } from './supervisor-config.js';
import { requirePrometheus } from './prometheus.js';
import { requireTemporal } from './temporal-binary.js';

const START_TIMEOUT_MS = 120_000;
const STOP_TIMEOUT_MS = 45_000;
const KILL_GRACE_MS = 10_000;

export interface UpOptions {
  workers: number;
  threads: number;
  /** 0: any free port. */
  ports: { temporal: number; ui: number; controller: number; metrics: number; prometheus: number };
  /** Also a Prometheus with targets and rules. */
  monitoring: boolean;
  /** host:port of a Temporal server that runs elsewhere; null starts one. */
  externalTemporal: string | null;
  /** Everything stops when this process ends. */
  owner: ProcessRecord | null;
}

export interface UpResult {
  table: ProcessTable;
  /** It was up before; nothing was started. */
  already: boolean;
}

export async function up(home: Home, options: UpOptions): Promise<UpResult> {
  createHome(home);
  const unlock = lock(home);
  try {
    const before = readProcessTable(home);
    if (before !== null && isAlive(before.supervisor)) {
      if (before.state !== 'ready')
        throw new CliError('badInput', `${home.root} is ${before.state}; try again in a moment`);
      return { table: before, already: true };
    }
    if (before !== null) await stopLeftOvers(home, before);
    const config = await makeConfig(home, options);
    return { table: await startSupervisor(home, config), already: false };
  } finally {
    unlock();
  }
}

async function makeConfig(home: Home, options: UpOptions): Promise<SupervisorConfig> {
  const { ports, externalTemporal } = options;
  for (const name of ['controller', 'worker'] as const) entryPoint(name);
  const taken = new Set<number>();
  const pick = async (wanted: number, option: string): Promise<number> => {
    for (;;) {
      const port = await choosePort(wanted, option);
      if (!taken.has(port)) {
        taken.add(port);
        return port;
      }
      if (wanted !== 0) throw new CliError('badInput', `expected another port for ${option}: ${port} is given twice`);
    }
  };
  const at = async (wanted: number, option: string): Promise<string> => `${HOST}:${await pick(wanted, option)}`;
  return {
    home: home.root,
    store: home.store,
    temporalBinary: externalTemporal === null ? requireTemporal().path : null,
    prometheusBinary: options.monitoring ? requirePrometheus().path : null,
    addresses: {
      temporal: externalTemporal ?? (await at(ports.temporal, '--temporal-port')),
      ui: externalTemporal === null ? await at(ports.ui, '--ui-port') : null,
      controller: await at(ports.controller, '--controller-port'),
      controllerMetrics: await at(ports.metrics, '--metrics-port'),
      serveMetrics: await at(0, '--metrics'),
      prometheus: options.monitoring ? await at(ports.prometheus, '--prometheus-port') : null,
    },
    workers: options.workers,
    threads: options.threads,
    owner: options.owner,
  };
}

async function startSupervisor(home: Home, config: SupervisorConfig): Promise<ProcessTable> {
  removeProcessTable(home);
  const logFile = join(home.logs, 'supervisor.log');
  const log = openSync(logFile, 'a');
  // Its own session: a Ctrl-C in this terminal is not meant for it.
  const child = spawn(process.execPath, [entryPoint('supervisor'), JSON.stringify(config)], {
    detached: true,
    stdio: ['ignore', log, log],
    cwd: home.root,
  });
  closeSync(log);
  child.unref();
  const supervisor = recordOf(child.pid ?? 0);
  const end = Date.now() + START_TIMEOUT_MS;
  for (;;) {
    const table = readProcessTable(home);
    if (table?.state === 'ready') return table;
    if (table?.state === 'failed') {
      removeProcessTable(home);
      throw new CliError('unreachable', table.failure ?? 'the start failed');
    }
    if (!isAlive(supervisor)) {
      throw new CliError(
        'unreachable',
        `the supervisor ended before everything was up; see ${logFile}, which ends with:\n${lastLines(logFile, 5)}`,
      );
    }
    if (Date.now() > end) {
      await stopAll([supervisor], STOP_TIMEOUT_MS);
      throw new CliError('timeout', `not everything was up within ${START_TIMEOUT_MS / 1000} s; see ${home.logs}`);
    }
    await sleep(50);
  }
}

export interface DownResult {
  /** False: nothing was running. */
  wasUp: boolean;
  stopped: number;
}

export async function down(home: Home): Promise<DownResult> {
  const table = readProcessTable(home);
  if (table === null) return { wasUp: false, stopped: 0 };
  const records = recordsOf(table);
  const running = records.filter(isAlive);
  if (sendSignal(table.supervisor, 'SIGTERM')) await waitForEnd(table.supervisor, STOP_TIMEOUT_MS);
  // The table may have changed meanwhile: a process that was being restarted is in the newer one.
  await stopLeftOvers(home, readProcessTable(home) ?? table);
  const left = records.filter(isAlive);
  if (left.length > 0) {
    const pids = left.map((record) => record.pid).join(', ');
    throw new CliError('timeout', `expected every process to end, but these run on: ${pids}; stop them by hand`);
  }
  return { wasUp: running.length > 0, stopped: running.length };
}

function recordsOf(table: ProcessTable): ProcessRecord[] {
  const { supervisor, workers, prometheus, controller, temporal } = table;
  return [supervisor, ...workers, prometheus, controller, temporal].filter((record) => record != null);
}

async function stopLeftOvers(home: Home, table: ProcessTable): Promise<void> {
  if (!(await stopAll(recordsOf(table), KILL_GRACE_MS))) {
    throw new CliError('timeout', `processes of an earlier start in ${home.root} do not end; stop them by hand`);
  }
  removeProcessTable(home);
}

/** The table of what runs now; a clear error when nothing does. */
export function requireUp(home: Home): ProcessTable {
  const table = readProcessTable(home);
  if (table === null || !isAlive(table.supervisor)) {
    throw new CliError('unreachable', `nothing is up in ${home.root}; start it with "collimate up", or choose --home`);
  }
  return table;
}

function lock(home: Home): () => void {
  const path = join(home.root, 'up.lock');
  const mine = JSON.stringify(recordOf(process.pid));
  for (let attempt = 0; attempt < 2; attempt += 1) {
    try {
      writeFileSync(path, mine, { flag: 'wx' });
      return () => rmSync(path, { force: true });
    } catch (error) {
      if (!hasCode(error, 'EEXIST')) throw error;
      const holder = readLock(path);
      if (holder !== null && isAlive(holder)) {
        throw new CliError(
          'badInput',
          `another "collimate up" (pid ${holder.pid}) is starting ${home.root}; wait for it`,
        );
      }
      rmSync(path, { force: true });
    }
  }
  throw new CliError('badInput', `${path} cannot be taken; delete it and try again`);
}

function readLock(path: string): ProcessRecord | null {
  try {
    return JSON.parse(readFileSync(path, 'utf8')) as ProcessRecord;
  } catch {
    return null;
  }
}
