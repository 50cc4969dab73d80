/**
 * Keeps a local installation running: the Temporal server, the controller, n workers and, if asked for, a Prometheus, until it is told to stop.
 *
 * 1. Start order: server, controller, workers; each waits until the one before answers. Stop order: the reverse.
 * 2. A process that dies is started again with the same addresses, so its peers find it where it was.
 * 3. With an owner (the demo) it stops as soon as the owner is gone, however the owner ended.
 */
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';

import { messageOf } from './cli-error.js';
import { createHome, homeAt, type ProcessTable, removeProcessTable, writeProcessTable } from './home.js';
import { ManagedProcess, type ReadyLine } from './managed-process.js';
import { isAlive, recordOf } from './process-control.js';
import { entryPoint } from './project-paths.js';
import { preparePrometheus, prometheusAnswers } from './prometheus.js';
import { NAMESPACE, type SupervisorConfig } from './supervisor-config.js';
import { namespaceAnswers } from './temporal-connection.js';

/** For a worker to hand its work over. */
const WORKER_GRACE_SECONDS = 8;
const WORKER_STOP_GRACE_MS = 12_000;
const OWNER_POLL_MS = 300;
const SCRAPE_INTERVAL_SECONDS = 1;

export class Supervisor {
  private readonly home;
  private readonly temporal: ManagedProcess | null;
  private readonly controller: ManagedProcess;
  private readonly prometheus: ManagedProcess | null;
  private readonly workers: { id: string; process: ManagedProcess }[];
  private state: ProcessTable['state'] = 'starting';
  private failure: string | null = null;
  private revision = 0;
  private stopped: Promise<void> | null = null;
  private ownerTimer: NodeJS.Timeout | null = null;

  constructor(private readonly config: SupervisorConfig) {
    this.home = { ...homeAt(config.home), store: config.store };
    createHome(this.home);
    this.temporal = config.temporalBinary === null ? null : this.makeTemporal(config.temporalBinary);
    this.controller = this.makeController();
    this.prometheus = config.prometheusBinary === null ? null : this.makePrometheus(config.prometheusBinary);
    this.workers = Array.from({ length: config.workers }, (_, index) => {
      const id = `w-${index + 1}`;
      return { id, process: this.makeWorker(id) };
    });
  }

  /** Resolves when everything is up. On failure everything is stopped again and the table says why. */
  async start(): Promise<boolean> {
    this.watchOwner();
    this.publish();
    try {
      await this.temporal?.start();
      await this.controller.start();
      await Promise.all([this.prometheus?.start(), ...this.workers.map((worker) => worker.process.start())]);
      this.state = 'ready';
      this.publish();
      return true;
    } catch (error) {
      this.failure = messageOf(error);
      await this.stop();
      this.state = 'failed';
      this.publish();
      return false;
    }
  }

  /** Idempotent. Leaves no process behind. */
  stop(): Promise<void> {
    this.stopped ??= this.stopInOrder();
    return this.stopped;
  }

  /** The installation is down: nothing is left to describe. */
  forget(): void {
    removeProcessTable(this.home);
  }

  private async stopInOrder(): Promise<void> {
    if (this.ownerTimer !== null) clearInterval(this.ownerTimer);
    this.state = 'stopping';
    this.publish();
    await Promise.all(this.workers.map((worker) => worker.process.stop()));
    await Promise.all([this.prometheus?.stop(), this.controller.stop()]);
    await this.temporal?.stop();
  }

  private watchOwner(): void {
    const { owner } = this.config;
    if (owner === null) return;
    this.ownerTimer = setInterval(() => {
      if (!isAlive(owner)) process.kill(process.pid, 'SIGTERM');
    }, OWNER_POLL_MS);
  }

  private publish(): void {
    const served = (process: ManagedProcess): ProcessTable['controller'] =>
      process.record === null
        ? null
        : {
            ...process.record,
            address: process.ready?.address ?? '',
            metrics: process.ready?.metrics ?? null,
            restarts: process.restarts,
          };
    writeProcessTable(this.home, {
      state: this.state,
      failure: this.failure,
      supervisor: recordOf(process.pid),
      temporal: this.temporal?.record ? { ...this.temporal.record, restarts: this.temporal.restarts } : null,
      controller: served(this.controller),
      prometheus: this.prometheus?.record ? { ...this.prometheus.record, restarts: this.prometheus.restarts } : null,
      workers: this.workers.flatMap(({ id, process }) => {
        const record = served(process);
        return record === null ? [] : [{ id, ...record }];
      }),
      addresses: this.config.addresses,
      revision: ++this.revision,
    });
  }

  private makeTemporal(binary: string): ManagedProcess {
    const { temporal, ui } = this.config.addresses;
    const [ip, port] = splitAddress(temporal);
    return new ManagedProcess({
      name: 'temporal',
      command: binary,
      args: [
        'server',
        'start-dev',
        ...['--ip', ip, '--port', port, '--db-filename', this.home.temporalDb],
        ...['--log-level', 'warn', '--log-format', 'json', '--namespace', NAMESPACE],
        ...(ui === null ? ['--headless'] : ['--ui-ip', splitAddress(ui)[0], '--ui-port', splitAddress(ui)[1]]),
      ],
      logFile: join(this.home.logs, 'temporal.log'),
      probe: async (signal): Promise<ReadyLine> => {
        await namespaceAnswers(temporal, NAMESPACE, signal);
        return { ready: true, address: temporal, metrics: null };
      },
      readyTimeoutMs: 60_000,
      stopGraceMs: 8_000,
      onChange: () => this.publish(),
    });
  }

  private makeController(): ManagedProcess {
    const { temporal, controller, controllerMetrics } = this.config.addresses;
    return new ManagedProcess({
      name: 'controller',
      command: process.execPath,
      args: [
        entryPoint('controller'),
        ...['--temporal', temporal, '--namespace', NAMESPACE, '--listen', controller, '--metrics', controllerMetrics],
        ...['--store', this.home.store, '--serving', this.home.serving],
      ],
      logFile: join(this.home.logs, 'controller.log'),
      readyTimeoutMs: 60_000,
      stopGraceMs: 12_000,
      onChange: () => this.publish(),
    });
  }

  private makePrometheus(binary: string): ManagedProcess {
    const { prometheus, controllerMetrics, serveMetrics } = this.config.addresses;
    if (prometheus === null) throw new Error('a Prometheus is wanted, but has no address');
    const config = { controllerMetrics, serveMetrics, intervalSeconds: SCRAPE_INTERVAL_SECONDS };
    return new ManagedProcess({
      name: 'prometheus',
      command: binary,
      args: preparePrometheus(this.home.prometheus, prometheus, config),
      logFile: join(this.home.logs, 'prometheus.log'),
      probe: async (signal): Promise<ReadyLine> => {
        await prometheusAnswers(prometheus, signal);
        return { ready: true, address: prometheus, metrics: null };
      },
      readyTimeoutMs: 60_000,
      stopGraceMs: 8_000,
      onChange: () => this.publish(),
    });
  }

  private makeWorker(id: string): ManagedProcess {
    const scratch = join(this.home.scratch, id);
    mkdirSync(scratch, { recursive: true });
    return new ManagedProcess({
      name: `worker ${id}`,
      command: process.execPath,
      args: [
        entryPoint('worker'),
        ...['--controller', this.config.addresses.controller, '--listen', '127.0.0.1:0', '--metrics', '127.0.0.1:0'],
        ...['--store', this.home.store, '--scratch', scratch, '--threads', String(this.config.threads)],
        ...['--id', id, '--tensor-host', '127.0.0.1', '--grace', String(WORKER_GRACE_SECONDS)],
      ],
      logFile: join(this.home.logs, `worker-${id}.log`),
      readyTimeoutMs: 60_000,
      stopGraceMs: WORKER_STOP_GRACE_MS,
      onChange: () => this.publish(),
    });
  }
}

function splitAddress(address: string): [string, string] {
  const colon = address.lastIndexOf(':');
  return [address.slice(0, colon), address.slice(colon + 1)];
}
