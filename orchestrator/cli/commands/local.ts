/** `up`, `down`, and the single processes: `controller`, `worker`, `serve`. */
import { type Command } from 'commander';
import { spawn } from 'node:child_process';
import { constants } from 'node:os';
import { join } from 'node:path';

import { CliError } from '../cli-error.js';
import { contextOf, wholeNumber, withStore } from '../command-context.js';
import {
  type Home,
  isRemoteStore,
  keepStoreAddress,
  type ProcessTable,
  readProcessTable,
  withStoreAddress,
} from '../home.js';
import { down, up } from '../installation.js';
import { data, dataJson, progress } from '../output.js';
import { parsePort } from '../ports.js';
import { isAlive } from '../process-control.js';
import { type EntryPoint, entryPoint } from '../project-paths.js';

interface UpFlags {
  workers: number;
  threads: number;
  store?: string;
  temporal?: string;
  temporalPort: number;
  uiPort: number;
  controllerPort: number;
  metricsPort: number;
  monitoring?: true;
  prometheusPort: number;
}

export function addLocalCommands(program: Command): void {
  program
    .command('up')
    .description('start the Temporal server, the controller and workers; they are kept running until "down"')
    .option('--workers <n>', 'worker processes', wholeNumber('--workers', 0, 1000), 2)
    .option('--threads <n>', 'threads of each worker', wholeNumber('--threads', 1, 1024), 1)
    .option(
      '--store <address>',
      'artifact store of this home from now on: a folder, file:///folder or s3://bucket/prefix',
    )
    .option('--temporal <host:port>', 'use this Temporal server instead of starting one')
    .option('--temporal-port <port>', 'port of the Temporal server (0: any free one)', parsePort, 0)
    .option('--ui-port <port>', 'port of the Temporal UI (0: any free one)', parsePort, 0)
    .option('--controller-port <port>', 'gRPC port of the controller (0: any free one)', parsePort, 0)
    .option('--metrics-port <port>', 'metrics port of the controller (0: any free one)', parsePort, 0)
    .option('--monitoring', 'also start a Prometheus with the right targets, rules and alerts')
    .option('--prometheus-port <port>', 'port of that Prometheus (0: any free one)', parsePort, 0)
    .action(async (flags: UpFlags, command: Command) => {
      const { home: found, output } = contextOf(command);
      refuseStoreWhileUp(found, flags.store);
      const home = flags.store === undefined ? found : withStoreAddress(found, flags.store);
      // The processes would say it too, one after the other, in their logs.
      if (isRemoteStore(home.store)) await withStore(home, (store) => store.probe());
      if (flags.store !== undefined) keepStoreAddress(home);
      progress(`starting in ${home.root} …`);
      const { table, already } = await up(home, {
        workers: flags.workers,
        threads: flags.threads,
        ports: {
          temporal: flags.temporalPort,
          ui: flags.uiPort,
          controller: flags.controllerPort,
          metrics: flags.metricsPort,
          prometheus: flags.prometheusPort,
        },
        monitoring: flags.monitoring ?? false,
        externalTemporal: flags.temporal ?? null,
        owner: null,
      });
      if (already) progress('already up; "collimate down" first to start with other options');
      if (output === 'json') dataJson({ home: home.root, already, ...table });
      else data(describeTable(home, table));
    });

  program
    .command('down')
    .description('stop everything that "up" started; runs go on with the next "up"')
    .action(async (_flags: unknown, command: Command) => {
      const { home, output } = contextOf(command);
      const result = await down(home);
      if (output === 'json') dataJson(result);
      else if (result.wasUp) data(`stopped ${result.stopped} processes`);
      else data(`nothing was up in ${home.root}`);
    });

  addProcessCommand(program, 'controller', 'run a controller in the foreground', controllerDefaults);
  addProcessCommand(program, 'worker', 'run a worker in the foreground', workerDefaults);
  addProcessCommand(program, 'serve', 'serve published lists over gRPC in the foreground', serveDefaults);
}

/** What runs goes on with the store that it was started with. */
function refuseStoreWhileUp(home: Home, address: string | undefined): void {
  if (address === undefined) return;
  const table = readProcessTable(home);
  if (table === null || !isAlive(table.supervisor)) return;
  throw new CliError('badInput', `${home.root} is up with the store ${home.store}; "collimate down" first`);
}

export function describeTable(home: Home, table: ProcessTable): string {
  const { addresses } = table;
  return [
    `Temporal    ${addresses.temporal}`,
    ...(addresses.ui === null ? [] : [`Temporal UI http://${addresses.ui}`]),
    `controller  ${addresses.controller}`,
    `metrics     http://${addresses.controllerMetrics}/metrics`,
    ...(addresses.prometheus === null ? [] : [`Prometheus  http://${addresses.prometheus}`]),
    ...table.workers.map((worker) => `worker ${worker.id}  ${worker.address}  pid ${worker.pid}`),
    `artifacts   ${home.store}`,
    `logs        ${home.logs}`,
  ].join('\n');
}

function controllerDefaults(home: Home, table: ProcessTable | null): string[] {
  const temporal = table?.addresses.temporal ?? '127.0.0.1:7233';
  return [
    ...['--temporal', temporal, '--namespace', 'default', '--listen', '127.0.0.1:0', '--metrics', '127.0.0.1:0'],
    ...['--store', home.store, '--serving', home.serving],
  ];
}

function workerDefaults(home: Home, table: ProcessTable | null): string[] {
  const id = `w-${process.pid}`;
  return [
    ...(table === null ? [] : ['--controller', table.addresses.controller]),
    ...['--listen', '127.0.0.1:0', '--metrics', '127.0.0.1:0', '--store', home.store],
    ...['--scratch', join(home.scratch, id), '--threads', '1', '--id', id, '--tensor-host', '127.0.0.1'],
  ];
}

function serveDefaults(home: Home, table: ProcessTable | null): string[] {
  // Its Prometheus looks there; without one several may run.
  const watched = table !== null && table.addresses.prometheus !== null;
  const metrics = watched ? ['--metrics', table.addresses.serveMetrics] : [];
  return ['--serving', home.serving, '--listen', '127.0.0.1:0', ...metrics];
}

/** A process entry point with the home's defaults before the user's own flags, so that the latter win. */
function addProcessCommand(
  program: Command,
  name: Extract<EntryPoint, 'controller' | 'worker' | 'serve'>,
  description: string,
  defaults: (home: Home, table: ProcessTable | null) => string[],
): void {
  program
    .command(name)
    .description(`${description}; its own flags are passed on (defaults: those of the home that is up)`)
    .argument('[flags...]', 'flags of the process, such as --listen host:port')
    .allowUnknownOption()
    .action(async (flags: string[], _options: unknown, command: Command) => {
      const { home } = contextOf(command);
      const table = readProcessTable(home);
      const running = table !== null && isAlive(table.supervisor) ? table : null;
      const given = new Set(flags.filter((flag) => flag.startsWith('--')));
      const base = defaults(home, running);
      const kept = base.flatMap((flag, index) =>
        index % 2 === 0 && !given.has(flag) ? [flag, base[index + 1] ?? ''] : [],
      );
      process.exitCode = await runForeground(entryPoint(name), [...kept, ...flags]);
    });
}

function runForeground(file: string, args: string[]): Promise<number> {
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, [file, ...args], { stdio: 'inherit' });
    // The terminal sends Ctrl-C to the child too; a SIGTERM to us alone is passed on.
    process.on('SIGINT', () => undefined);
    process.on('SIGTERM', () => child.kill('SIGTERM'));
    child.once('error', (error) => reject(new CliError('unreachable', `${file}: ${error.message}`)));
    child.once('close', (code, signal) => resolve(code ?? 128 + (signal === null ? 0 : constants.signals[signal])));
  });
}
