/**
 * A whole Collimate on this machine for a test: real Temporal server, controller and workers as processes of their own,
 * each of which the test may kill and start again.
 *
 * Every cluster has a folder and ports of its own; `close` leaves no process and no file behind.
 */
import { chmod, mkdtemp, mkdir, readFile, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

import {
  Client,
  Connection,
  ServiceError,
  WorkflowExecutionAlreadyStartedError,
  type WorkflowHandle,
} from '@temporalio/client';

import { openStore, type ArtifactStore } from '../../orchestrator/artifacts/store.js';
import { projectRoot } from '../../orchestrator/build-info.js';
import { requireTemporal } from '../../orchestrator/cli/temporal-binary.js';
import { loadRunFile } from '../../orchestrator/cli/run-file.js';
import { resolveRun, storeInputs } from '../../orchestrator/cli/run-plan.js';
import { loadService, makeClient, unary } from '../../orchestrator/fleet/channel.js';
import type { FleetServiceClient } from '../../proto/generated/collimate/v1/FleetService.js';
import type { WorkerInfo__Output } from '../../proto/generated/collimate/v1/WorkerInfo.js';
import type { WatchRunResponse__Output } from '../../proto/generated/collimate/v1/WatchRunResponse.js';
import {
  RUN_WORKFLOW,
  STATUS_QUERY,
  TASK_QUEUE,
  type RunPlan,
  type RunResult,
  type RunStatus,
} from '../../workflows/contract.js';
import { TestChild } from './child.js';

export const ROOT = projectRoot();
export const TINY_RUN_FILE = join(ROOT, 'deploy', 'examples', 'tiny.yaml');

export interface WorkerShape {
  id: string;
  threads?: number;
  /** Address of its own that it listens on, for gRPC and for tensors. */
  host?: string;
  /** Absent: a folder that the workers of the cluster share. */
  scratch?: string;
  /** Absent: the cluster's own controller. */
  controller?: string;
}

export interface ClusterOptions {
  /** Address that the controller and the Temporal server listen on; the test must reach it. */
  host?: string;
  /** Absent: a folder of the cluster's own. */
  storeUrl?: string;
  /** Further flags of its controllers. */
  controllerFlags?: string[];
  /** Puts a prefix before a process's command, for example one that enters a namespace. It must `exec`: signals go to its pid. */
  launch?: (name: string, command: string[]) => string[];
}

export class Cluster {
  readonly store: ArtifactStore;
  readonly workers = new Map<string, TestChild>();
  /** host:port of the controller's metrics. */
  controllerMetrics = '';
  #controller: TestChild | null = null;
  #server: TestChild | null = null;
  #temporal: TestChild | null = null;
  #client: Client | null = null;
  readonly #retired: Client[] = [];
  readonly #others: TestChild[] = [];

  readonly #host: string;
  readonly #controllerFlags: string[];
  readonly #launch: (name: string, command: string[]) => string[];

  private constructor(
    readonly folder: string,
    readonly ports: { temporal: number; controller: number },
    { host = '127.0.0.1', storeUrl, controllerFlags = [], launch = (_name, command) => command }: ClusterOptions,
  ) {
    this.store = openStore(storeUrl ?? join(folder, 'store'));
    this.#host = host;
    this.#controllerFlags = controllerFlags;
    this.#launch = launch;
  }

  static async start(workers: WorkerShape[], options: ClusterOptions = {}): Promise<Cluster> {
    const folder = await mkdtemp(join(tmpdir(), 'collimate-test-'));
    const cluster = new Cluster(folder, { temporal: await freePort(), controller: await freePort() }, options);
    await mkdir(join(folder, 'logs'));
    try {
      await cluster.startTemporal();
      await cluster.startController();
      await Promise.all(workers.map((worker) => cluster.startWorker(worker)));
    } catch (error) {
      await cluster.close();
      throw error;
    }
    return cluster;
  }

  async startTemporal(): Promise<void> {
    const port = String(this.ports.temporal);
    // Bound to one address that is not loopback, the development server does not find its own other half.
    const bindHost = this.#host === '127.0.0.1' ? this.#host : '0.0.0.0';
    const args = ['server', 'start-dev', '--headless', '--ip', bindHost, '--port', port, '--log-level', 'error'];
    args.push('--db-filename', join(this.folder, 'temporal.db'));
    this.#temporal = this.#child('temporal', requireTemporal().path, args);
    const deadline = Date.now() + 30_000;
    for (;;) {
      try {
        const connection = await Connection.connect({ address: `${this.#host}:${port}`, connectTimeout: '1s' });
        // Not closed yet: a call that is being tried again on a closed connection throws where nobody catches it.
        if (this.#client !== null) this.#retired.push(this.#client);
        this.#client = new Client({ connection });
        await this.#client.workflow.count();
        return;
      } catch (error) {
        if (Date.now() > deadline)
          throw new Error(`no Temporal server:\n${this.#temporal.logTail()}`, { cause: error });
        await new Promise((resolve) => setTimeout(resolve, 200));
      }
    }
  }

  async startController(): Promise<void> {
    this.#controller = this.#controllerAt('controller', this.ports.controller);
    this.controllerMetrics = (await this.#controller.ready()).metrics;
  }

  /** Another controller beside the first, with the same Temporal server and store; answers its port too. */
  async startSecondController(): Promise<{ child: TestChild; port: number }> {
    const port = await freePort();
    const child = this.#controllerAt('controller-2', port);
    this.#others.push(child);
    await child.ready();
    return { child, port };
  }

  #controllerAt(name: string, port: number): TestChild {
    return this.#child(name, process.execPath, [
      join(ROOT, 'dist/orchestrator/controller/main.js'),
      ...['--temporal', `${this.#host}:${String(this.ports.temporal)}`],
      ...['--listen', `${this.#host}:${String(port)}`, '--metrics', '127.0.0.1:0'],
      ...['--store', this.store.url, '--serving', join(this.folder, 'serving')],
      ...this.#controllerFlags,
    ]);
  }

  async startWorker({ id, threads = 1, host, scratch, controller }: WorkerShape): Promise<TestChild> {
    const child = this.#child(id, process.execPath, [
      join(ROOT, 'dist/native/worker/main.js'),
      ...['--controller', controller ?? this.controllerAddress, '--store', this.store.url],
      ...['--scratch', scratch ?? join(this.folder, 'scratch'), '--id', id, '--threads', String(threads)],
      ...(host === undefined ? [] : ['--listen', `${host}:0`, '--tensor-host', host]),
    ]);
    this.workers.set(id, child);
    await child.ready();
    return child;
  }

  /** Starts the recommender service, with its metrics at the given address; answers its own. */
  async startServer(metrics = '127.0.0.1:0'): Promise<string> {
    const main = join(ROOT, 'dist/orchestrator/serving/main.js');
    const args = [main, '--serving', join(this.folder, 'serving'), '--listen', '127.0.0.1:0', '--metrics', metrics];
    this.#server = this.#child('serve', process.execPath, args);
    return (await this.#server.ready()).address;
  }

  get controllerAddress(): string {
    return `${this.#host}:${String(this.ports.controller)}`;
  }

  get temporal(): TestChild {
    if (this.#temporal === null) throw new Error('Temporal server not started');
    return this.#temporal;
  }

  get controller(): TestChild {
    if (this.#controller === null) throw new Error('controller not started');
    return this.#controller;
  }

  get client(): Client {
    if (this.#client === null) throw new Error('not connected');
    return this.#client;
  }

  /** The tiny run file with `key=value` settings over it, its inputs stored. */
  async plan(settings: string[] = [], file = TINY_RUN_FILE): Promise<RunPlan> {
    const run = resolveRun(loadRunFile(file, settings), { baseFolder: join(file, '..') });
    return await storeInputs(run, this.store);
  }

  async submit(plan: RunPlan): Promise<WorkflowHandle> {
    // A Temporal server that has only just started takes calls before it can start workflows.
    const deadline = Date.now() + 30_000;
    for (;;) {
      try {
        return await this.client.workflow.start(RUN_WORKFLOW, {
          taskQueue: TASK_QUEUE,
          workflowId: plan.runId,
          args: [plan],
        });
      } catch (error) {
        if (error instanceof WorkflowExecutionAlreadyStartedError) return this.client.workflow.getHandle(plan.runId);
        if (!(error instanceof ServiceError) || Date.now() > deadline) throw error;
        await new Promise((resolve) => setTimeout(resolve, 200));
      }
    }
  }

  async result(runId: string): Promise<RunResult> {
    return (await this.client.workflow.getHandle(runId).result()) as RunResult;
  }

  async status(runId: string): Promise<RunStatus> {
    return await this.client.workflow.getHandle(runId).query<RunStatus>(STATUS_QUERY);
  }

  async run(plan: RunPlan): Promise<RunResult> {
    await this.submit(plan);
    return await this.result(plan.runId);
  }

  /** Flips the first byte of a stored object. */
  async damage(digest: string): Promise<void> {
    const path = join(fileURLToPath(this.store.url), 'objects', digest);
    const bytes = await readFile(path);
    bytes[0] = (bytes[0] ?? 0) ^ 0xff;
    await chmod(path, 0o644);
    await writeFile(path, bytes);
  }

  /** Removes what the store knows of a job, so that it is computed again. */
  async forgetJob(key: string): Promise<void> {
    const store = fileURLToPath(this.store.url);
    await rm(join(store, 'jobs', `${key}.json`), { force: true });
    await rm(join(store, 'checkpoints', key), { recursive: true, force: true });
  }

  /** Resolves at the first event of the run for which `matches` is true. Ask before the run starts. */
  async firstEvent(
    runId: string,
    matches: (event: WatchRunResponse__Output) => boolean,
  ): Promise<WatchRunResponse__Output> {
    const client = makeClient<FleetServiceClient>(loadService('FleetService'), this.controllerAddress);
    try {
      return await new Promise((resolve, reject) => {
        const stream = client.watchRun({ runId });
        stream.on('data', (event: WatchRunResponse__Output) => {
          if (matches(event)) resolve(event);
        });
        stream.on('error', reject);
        stream.on('end', () => {
          reject(new Error('the run ended without the event'));
        });
      });
    } finally {
      client.close();
    }
  }

  /** Job ids that hold a worker's lease now, as the fleet sees it. */
  async leases(): Promise<string[]> {
    return (await this.fleet()).flatMap((worker) => (worker.lease === null ? [] : [worker.lease.jobId]));
  }

  /** Ids of the workers that belong to the fleet now. */
  async members(): Promise<string[]> {
    return (await this.fleet()).map(({ hello }) => hello?.workerId ?? '');
  }

  /** Ids of the workers that hold a lease now. */
  async busyWorkers(): Promise<string[]> {
    return (await this.fleet()).flatMap(({ hello, lease }) => (lease === null ? [] : [hello?.workerId ?? '']));
  }

  /** What the controller lists. */
  async fleet(): Promise<WorkerInfo__Output[]> {
    const client = makeClient<FleetServiceClient>(loadService('FleetService'), this.controllerAddress);
    try {
      return (await unary(client, 'listWorkers', {}, { deadlineMs: 5_000 })).workers;
    } finally {
      client.close();
    }
  }

  async close(): Promise<void> {
    for (const client of [...this.#retired, this.#client]) await client?.connection.close();
    const children = [...this.workers.values(), ...this.#others, this.#server, this.#controller, this.#temporal];
    await Promise.all(children.flatMap((child) => (child == null ? [] : [child.kill()])));
    await rm(this.folder, { recursive: true, force: true });
  }

  #child(name: string, command: string, args: string[]): TestChild {
    const [first = command, ...rest] = this.#launch(name, [command, ...args]);
    return new TestChild(first, rest, join(this.folder, 'logs', `${name}.log`));
  }
}

/** A step event of the given job kind at or beyond `step`. */
export function stepOf(kind: string, step: number): (event: WatchRunResponse__Output) => boolean {
  return (event) =>
    event.jobEvent?.step != null && event.jobEvent.jobId.endsWith(`/${kind}`) && event.jobEvent.step.step >= step;
}

async function freePort(): Promise<number> {
  return await new Promise((resolve, reject) => {
    const server = createServer();
    server.once('error', reject);
    server.listen(0, '127.0.0.1', () => {
      const address = server.address();
      server.close(() => {
        resolve(typeof address === 'object' && address !== null ? address.port : 0);
      });
    });
  });
}
