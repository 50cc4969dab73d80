/**
 * The controller process: Temporal worker for workflows and activities, Fleet and Rendezvous services, metrics.
 *
 * Flags: --temporal host:port, --namespace name, --listen host:port (Fleet and Rendezvous), --metrics host:port,
 * --store address, --serving folder, --held-up seconds (held-up.ts). Each may come from COLLIMATE_<FLAG> instead. The store is a folder,
 * file:///folder or s3://bucket/prefix (`orchestrator/artifacts/s3-address.ts`).
 *
 * It holds nothing that it cannot rebuild: killed at any moment and started again, it finds its workflows in Temporal, its
 * workers by their joining again, and running jobs by attaching to them.
 */
import { join } from 'node:path';

import { DefaultLogger, MetricsBuffer, NativeConnection, Runtime, Worker } from '@temporalio/worker';

import { TASK_QUEUE } from '../../workflows/contract.js';
import { createActivities } from '../activities/index.js';
import { openStore } from '../artifacts/store.js';
import { projectRoot, readBuildInfo } from '../build-info.js';
import { bindServer, loadService, makeServer } from '../fleet/channel.js';
import { FleetRegistry } from '../fleet/registry.js';
import { RendezvousStore } from '../fleet/rendezvous.js';
import { RunEvents } from '../fleet/run-events.js';
import { exportFleet, RunMetrics, scrapeTargets } from '../fleet/run-metrics.js';
import { WorkerClients } from '../fleet/worker-clients.js';
import { announceReady, closeOnSignal, hostAndPort, parseOptions, runProcess, UsageError } from '../process-options.js';
import { createLogger, type Logger } from '../telemetry/logger.js';
import { Metrics, startMetricsServer } from '../telemetry/metrics.js';
import { watchStoreSpace } from '../telemetry/store-space.js';
import { takeIn } from '../telemetry/temporal-metrics.js';
import { createTraces } from '../telemetry/traces.js';
import { fleetService } from './fleet-service.js';
import { onHeldUp } from './held-up.js';
import { rendezvousService } from './rendezvous-service.js';

const SHUTDOWN_GRACE_MS = 9_000;
const EXIT_HELD_UP = 3;
const CONNECT_TRIES = 60;
const CONNECT_RETRY_MS = 500;
const TEMPORAL_METRICS_INTERVAL_MS = 1_000;

runProcess(async () => {
  const options = parseOptions(
    {
      temporal: '127.0.0.1:7233',
      namespace: 'default',
      listen: '127.0.0.1:7070',
      metrics: '127.0.0.1:0',
      store: null,
      serving: null,
      // Three times what an activity may be silent for.
      'held-up': '15',
    },
    process.argv.slice(2),
  );
  const heldUpMsMax = 1_000 * Number(options['held-up']);
  if (!(heldUpMsMax > 0)) throw new UsageError(`--held-up: expected seconds above 0, got "${options['held-up']}"`);
  const log = createLogger({ component: 'controller' });
  const metrics = new Metrics({ exporter: 'controller', version: readBuildInfo().version });
  const store = openStore(options.store, {
    onWarning: ({ subject, message }) => {
      log.warn({ subject }, message);
      metrics.inc('collimate_store_damage_total', { subject: subject.split(' ')[0] ?? 'object' });
    },
  });
  const traces = createTraces({
    component: 'controller',
    version: readBuildInfo().version,
    instance: String(process.pid),
  });
  const fleet = new FleetRegistry();
  exportFleet(fleet, metrics);
  const events = new RunEvents({ store, metrics: new RunMetrics(metrics), log });
  const workers = new WorkerClients();
  fleet.on('joined', ({ workerId, address }) => {
    log.info({ worker: workerId }, `worker joined from ${address}`);
  });
  fleet.on('lost', ({ workerId, address }) => {
    log.warn({ worker: workerId }, `worker left: its stream from ${address} ended`);
    workers.forget(address);
  });

  const server = makeServer();
  server.addService(loadService('FleetService').service, fleetService({ fleet, events, workers }));
  server.addService(loadService('RendezvousService').service, rendezvousService(new RendezvousStore()));
  const address = `${hostAndPort(options.listen).host}:${String(await bindServer(server, options.listen))}`;
  const metricsListen = hostAndPort(options.metrics);
  const metricsServer = await startMetricsServer({ metrics, ...metricsListen, targets: () => scrapeTargets(fleet) });
  const endSpaceWatch = watchStoreSpace(store.url, metrics);

  const endTemporalMetrics = installTemporalRuntime(log, metrics);
  const connection = await connect(options.temporal, log);
  const worker = await Worker.create({
    connection,
    namespace: options.namespace,
    taskQueue: TASK_QUEUE,
    workflowBundle: { codePath: join(projectRoot(), 'dist', 'workflow-bundle.js') },
    activities: createActivities({
      store,
      fleet,
      workers,
      events,
      metrics,
      traces,
      rendezvousAddress: () => address,
      servingDir: options.serving,
    }),
    // Tasks wait so long for a controller that is gone before another one, or the same restarted, is asked.
    stickyQueueScheduleToStartTimeout: '1 s',
    // Each poll of a controller that is frozen swallows a task until that times out: few are enough for few tasks.
    maxConcurrentWorkflowTaskPolls: 2,
    maxConcurrentActivityTaskPolls: 2,
    // A waiting gang holds a slot, and what would give its workers back needs one: never let the former crowd out the latter.
    maxConcurrentActivityTaskExecutions: 10_000,
    shutdownGraceTime: '3 s',
    shutdownForceTime: '6 s',
  });
  onHeldUp(heldUpMsMax, (heldUpMs) => {
    log.error(`held up for ${(heldUpMs / 1000).toFixed(1)} s: others have taken over; ending, to be started again`);
    process.exit(EXIT_HELD_UP);
  });
  const running = worker.run();
  closeOnSignal(async () => {
    // The buffer goes with the runtime, which goes with the worker.
    endTemporalMetrics();
    worker.shutdown();
    await running;
    await events.flush();
    workers.close();
    server.forceShutdown();
    endSpaceWatch();
    await metricsServer.close();
    await traces.close();
  }, SHUTDOWN_GRACE_MS);
  announceReady({ address, metrics: `${metricsListen.host}:${String(metricsServer.port)}` });
  await running;
});

/** The SDK's own log lines and measurements join ours; the latter until the returned function is called. */
function installTemporalRuntime(log: Logger, metrics: Metrics): () => void {
  const logger = new DefaultLogger('WARN', ({ level, message, meta }) => {
    const fields = { sdk: true, error: meta?.['error'] as unknown };
    if (level === 'ERROR') log.error(fields, message);
    else log.warn(fields, message);
  });
  const buffer = new MetricsBuffer({ useSecondsForDurations: true });
  Runtime.install({ logger, shutdownSignals: [], telemetryOptions: { metrics: { buffer } } });
  const timer = setInterval(() => {
    takeIn(metrics, buffer.retrieveUpdates());
  }, TEMPORAL_METRICS_INTERVAL_MS);
  timer.unref();
  return () => {
    clearInterval(timer);
  };
}

async function connect(address: string, log: Logger): Promise<NativeConnection> {
  for (let tries = 1; ; tries += 1) {
    try {
      return await NativeConnection.connect({ address });
    } catch (error) {
      if (tries === CONNECT_TRIES) {
        const message = error instanceof Error ? error.message : String(error);
        throw new Error(`expected a Temporal server at ${address}, but: ${message}; start one with "collimate up"`, {
          cause: error,
        });
      }
      if (tries === 1) log.warn(`no Temporal server at ${address} yet; trying again`);
      await new Promise((resolve) => setTimeout(resolve, CONNECT_RETRY_MS));
    }
  }
}
