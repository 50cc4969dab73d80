/**
 * The state home: one folder that holds everything a local installation keeps.
 *
 * `store/` artifacts, unless they are elsewhere (`store-address` then says where) · `serving/` published lists · `logs/` one file per process · `temporal.db` the durable engine's
 * state · `scratch/` workers' temporary files · `prometheus/` what was scraped, with --monitoring · `processes.json` what runs now.
 *
 * 1. `processes.json` is written by the supervisor only, and atomically.
 * 2. Processes are known by pid and start time: a recycled pid is never signalled.
 */
import { mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';

import { openStore } from '../artifacts/store.js';
import { CliError, hasCode } from './cli-error.js';

const STORE_ADDRESS = 'store-address';

export interface ProcessRecord {
  pid: number;
  /** Start time in the kernel's own units, as text; see `startMarkOf`. */
  startMark: string;
}

export interface ServedProcess extends ProcessRecord {
  address: string;
  metrics: string | null;
  restarts: number;
}

export interface WorkerProcess extends ServedProcess {
  id: string;
}

/** Null members are not running at the moment (starting, or waiting before a restart). */
export interface ProcessTable {
  state: 'starting' | 'ready' | 'failed' | 'stopping';
  /** Why the start failed; null otherwise. */
  failure: string | null;
  supervisor: ProcessRecord;
  temporal: (ProcessRecord & { restarts: number }) | null;
  controller: ServedProcess | null;
  prometheus: (ProcessRecord & { restarts: number }) | null;
  workers: WorkerProcess[];
  /** Fixed for the life of the supervisor, so that a restarted server keeps its address. */
  addresses: {
    temporal: string;
    ui: string | null;
    controller: string;
    controllerMetrics: string;
    /** Where `serve` shows its metrics, so that they are found before it runs. */
    serveMetrics: string;
    /** Null: started without --monitoring. */
    prometheus: string | null;
  };
  /** Incremented by every write, so that a reader can wait for a newer table. */
  revision: number;
}

export interface Home {
  root: string;
  /** Address of the artifact store; a path when it is in the home. */
  store: string;
  serving: string;
  logs: string;
  scratch: string;
  prometheus: string;
  temporalDb: string;
  processes: string;
}

export function homeAt(folder: string | undefined): Home {
  const root = resolve(folder ?? process.env['COLLIMATE_HOME'] ?? '.collimate');
  return {
    root,
    store: storeOf(root),
    serving: join(root, 'serving'),
    logs: join(root, 'logs'),
    scratch: join(root, 'scratch'),
    prometheus: join(root, 'prometheus'),
    temporalDb: join(root, 'temporal.db'),
    processes: join(root, 'processes.json'),
  };
}

/** COLLIMATE_STORE, else what `up --store` wrote down, else the home's own. */
function storeOf(root: string): string {
  const given = process.env['COLLIMATE_STORE'];
  if (given !== undefined && given !== '') return absoluteStore(given);
  try {
    return readFileSync(join(root, STORE_ADDRESS), 'utf8').trim();
  } catch (error) {
    if (hasCode(error, 'ENOENT', 'ENOTDIR')) return join(root, 'store');
    throw error;
  }
}

/** The home with another store; a bad address is refused. */
export function withStoreAddress(home: Home, address: string): Home {
  const store = absoluteStore(address);
  try {
    openStore(store);
  } catch (error) {
    throw new CliError('badInput', (error as Error).message, { cause: error });
  }
  return { ...home, store };
}

/** From now on the store of every command of this home. */
export function keepStoreAddress(home: Home): void {
  createHome(home);
  const temporary = join(home.root, `${STORE_ADDRESS}.${process.pid}.tmp`);
  writeFileSync(temporary, `${home.store}\n`);
  renameSync(temporary, join(home.root, STORE_ADDRESS));
}

function absoluteStore(address: string): string {
  return isRemoteStore(address) ? address : resolve(address);
}

/** An address, not a path. */
export function isRemoteStore(address: string): boolean {
  return /^[A-Za-z][A-Za-z0-9+.-]*:\/\//.test(address);
}

export function createHome(home: Home): void {
  const folders = [home.root, home.serving, home.logs, home.scratch];
  if (!isRemoteStore(home.store)) folders.push(home.store);
  for (const folder of folders) {
    try {
      mkdirSync(folder, { recursive: true });
    } catch (error) {
      if (!hasCode(error, 'EACCES', 'EROFS', 'ENOSPC', 'EEXIST', 'ENOTDIR')) throw error;
      throw new CliError(
        'badInput',
        `expected a folder that can be written at ${folder}, but ${(error as Error).message}; choose another with --home`,
      );
    }
  }
}

/** Null when nothing was ever started here, or everything was taken down. */
export function readProcessTable(home: Home): ProcessTable | null {
  try {
    return JSON.parse(readFileSync(home.processes, 'utf8')) as ProcessTable;
  } catch (error) {
    if (hasCode(error, 'ENOENT')) return null;
    throw new CliError('badInput', `${home.processes} cannot be read as JSON; stop what runs there and delete it`, {
      cause: error,
    });
  }
}

export function writeProcessTable(home: Home, table: ProcessTable): void {
  const temporary = `${home.processes}.${process.pid}.tmp`;
  writeFileSync(temporary, `${JSON.stringify(table, null, 2)}\n`);
  renameSync(temporary, home.processes);
}

export function removeProcessTable(home: Home): void {
  rmSync(home.processes, { force: true });
}
