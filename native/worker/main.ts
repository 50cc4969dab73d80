/**
 * The worker process: hosts the addon, serves the Worker service, belongs to a fleet.
 *
 * Flags: --controller host:port, --listen host:port (port 0 for any), --metrics host:port, --store address, --scratch folder,
 * --threads n, --device cpu|cuda:N, --id name, --tensor-host address, --grace seconds. Each may come from COLLIMATE_<FLAG> instead. The store is a
 * folder, file:///folder or s3://bucket/prefix (`orchestrator/artifacts/s3-address.ts`).
 *
 * SIGTERM (a preemption notice, or an orderly end) hands running work over before the process exits: within --grace seconds.
 */
import { mkdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

import type { Server } from '@grpc/grpc-js';

import { openStore } from '../../orchestrator/artifacts/store.js';
import { readBuildInfo } from '../../orchestrator/build-info.js';
import { bindServer, loadService, makeServer } from '../../orchestrator/fleet/channel.js';
import {
  announceReady,
  closeOnSignal,
  hostAndPort,
  parseOptions,
  runProcess,
  UsageError,
} from '../../orchestrator/process-options.js';
import { createLogger } from '../../orchestrator/telemetry/logger.js';
import { Metrics, startMetricsServer } from '../../orchestrator/telemetry/metrics.js';
import { createTraces } from '../../orchestrator/telemetry/traces.js';
import { STEP_PHASES } from '../../orchestrator/telemetry/registry.js';
import { deviceInUse, numericsClass, useDevice } from './addon.js';
import { FleetMembership } from './fleet-member.js';
import { JobHost } from './job-host.js';
import { JobTraces } from './job-traces.js';
import { meet } from './rendezvous-client.js';
import { workerService } from './service.js';

/** After the work has been handed over, for the last events to be read and for sockets to close. */
const SHUTDOWN_GRACE_MS = 3_000;
const LAST_EVENTS_MS = 1_000;
const PHASES = 'collimate_worker_phase_seconds_total';
const RUN_SERIES_GRACE_MS = 1_800_000;
const DEVICE_LOOK_MS = 2_000;

runProcess(async () => {
  const options = parseOptions(
    {
      controller: null,
      listen: '127.0.0.1:0',
      metrics: '127.0.0.1:0',
      store: null,
      scratch: null,
      threads: '1',
      device: 'cpu',
      id: `worker-${String(process.pid)}`,
      'tensor-host': '127.0.0.1',
      grace: '25',
    },
    process.argv.slice(2),
  );
  const threads = Number(options.threads);
  if (!Number.isInteger(threads) || threads < 1) {
    throw new UsageError(`expected --threads to be a whole number of at least 1, got "${options.threads}"`);
  }
  const graceMs = Number(options.grace) * 1_000;
  if (!(graceMs >= 0)) throw new UsageError(`expected --grace to be seconds from 0, got "${options.grace}"`);
  const workerId = options.id;
  const tensorHost = options['tensor-host'];
  let membership: FleetMembership | null = null;
  const log = createLogger({
    component: 'worker',
    fields: { worker: workerId },
    onLine: (line) => membership?.logLine(line),
  });
  const { version, engineRevision } = readBuildInfo();
  const metrics = new Metrics({ exporter: 'worker', version });
  metrics.set('collimate_worker_threads', {}, threads);
  metrics.set('collimate_worker_busy', {}, 0);
  const scratchRoot = join(options.scratch, workerId);
  // What an earlier process of this name left behind is of no use to anyone.
  await rm(scratchRoot, { recursive: true, force: true });
  await mkdir(scratchRoot, { recursive: true });

  const traces = createTraces({ component: 'worker', version, instance: workerId });
  const jobTraces = new JobTraces(traces, workerId);
  let lastStepSeconds = 0;
  const host = new JobHost({
    store: openStore(options.store, {
      onWarning: ({ subject, message }) => {
        log.warn({ subject }, message);
      },
    }),
    scratchRoot,
    threads,
    tensorHost,
    log,
    meet,
    onJobMeasure: (order, measure) => {
      jobTraces.measured(order, measure);
      const { runId: run, stage, rank: number } = order;
      const rank = String(number);
      if (measure.type === 'step') {
        lastStepSeconds = measure.seconds;
        metrics.keepRun(run);
        metrics.observe('collimate_worker_step_duration_seconds', { run, stage, rank }, measure.seconds);
        for (const [name, phase] of Object.entries(STEP_PHASES)) {
          const seconds = measure.numbers[name];
          if (seconds !== undefined) metrics.inc(PHASES, { run, stage, rank, phase }, seconds);
        }
      } else if (measure.type === 'checkpoint') {
        metrics.observe('collimate_worker_checkpoint_duration_seconds', { run, stage }, measure.seconds);
        metrics.inc(PHASES, { run, stage, rank, phase: 'checkpoint' }, measure.seconds);
      } else {
        metrics.inc('collimate_worker_jobs_total', { kind: measure.kind, outcome: measure.outcome });
        if (measure.failure?.cause === 'FAILURE_CAUSE_DEVICE_LOST') {
          log.error({ run, stage }, 'the device is lost to this process; it ends, to be started again');
          process.kill(process.pid, 'SIGTERM');
        }
        // A worker is not told of a run's end; half an hour without a job of it is one.
        metrics.removeRun(run, { graceMs: RUN_SERIES_GRACE_MS });
      }
    },
    onLease: (holder) => {
      metrics.set('collimate_worker_busy', {}, holder === null ? 0 : 1);
      membership?.beat();
    },
  });

  useDevice(options.device);
  const device = deviceInUse();
  if (device !== null) log.info({ device }, `computes on ${options.device}, ${device.name}`);
  const endDeviceWatch = device === null ? () => undefined : watchDevice(metrics);
  const workerClass = numericsClass();
  const server = makeServer();
  server.addService(
    loadService('WorkerService').service,
    workerService({ workerId, numericsClass: workerClass, host, log }),
  );
  const listen = hostAndPort(options.listen);
  const address = `${listen.host}:${String(await bindServer(server, options.listen))}`;
  const metricsListen = hostAndPort(options.metrics);
  const metricsServer = await startMetricsServer({ metrics, ...metricsListen });
  const metricsAddress = `${metricsListen.host}:${String(metricsServer.port)}`;
  log.info({ address, numericsClass: workerClass }, `tensor plane is not encrypted; it binds to ${tensorHost} only`);

  membership = new FleetMembership({
    controllerAddress: options.controller,
    hello: { workerId, address, metricsAddress, numericsClass: workerClass, engineRevision, pid: process.pid },
    log,
    holder: () => host.holder,
    lastStepSeconds: () => lastStepSeconds,
    progress: () => host.progress,
    isDraining: () => host.isDraining,
    isCordoned: () => host.isCordoned,
  });
  const joined = membership;
  closeOnSignal(async () => {
    log.info(`told to end; work is handed over within ${options.grace} s`);
    await Promise.race([host.drain(), sleep(graceMs, undefined, { ref: false })]);
    await host.close();
    // Streams end by themselves once their last event is read.
    await Promise.race([shutDown(server), sleep(LAST_EVENTS_MS, undefined, { ref: false })]);
    joined.close();
    server.forceShutdown();
    endDeviceWatch();
    await metricsServer.close();
    await traces.close();
  }, graceMs + SHUTDOWN_GRACE_MS);
  announceReady({ address, metrics: metricsAddress });
});

/** Keeps the metrics of the device in use current, until the returned function is called. */
function watchDevice(metrics: Metrics): () => void {
  const look = (): void => {
    const device = deviceInUse();
    if (device === null) return;
    metrics.set('collimate_worker_device_size_bytes', {}, device.totalBytes);
    metrics.set('collimate_worker_device_used_bytes', {}, device.totalBytes - device.freeBytes);
    if (device.utilisation !== null) metrics.set('collimate_worker_device_utilization_ratio', {}, device.utilisation);
  };
  look();
  const timer = setInterval(look, DEVICE_LOOK_MS);
  timer.unref();
  return () => {
    clearInterval(timer);
  };
}

/** Resolves once no call is open any more. */
async function shutDown(server: Server): Promise<void> {
  await new Promise<void>((resolve) => {
    server.tryShutdown(() => {
      resolve();
    });
  });
}
