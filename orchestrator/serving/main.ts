/**
 * The serving process: cached lists over gRPC, health and metrics.
 *
 * Flags: --serving folder, --listen host:port, --metrics host:port. Each may come from COLLIMATE_<FLAG> instead.
 * It starts without a publication and becomes ready with the first one.
 */
import { readBuildInfo } from '../build-info.js';
import { announceReady, closeOnSignal, hostAndPort, parseOptions, runProcess } from '../process-options.js';
import { createLogger } from '../telemetry/logger.js';
import { Metrics, startMetricsServer } from '../telemetry/metrics.js';
import { startRecommendServer } from './recommend-service.js';

const SHUTDOWN_GRACE_MS = 5000;

runProcess(async () => {
  const options = parseOptions(
    { serving: null, listen: '127.0.0.1:7080', metrics: '127.0.0.1:0' },
    process.argv.slice(2),
  );
  const log = createLogger({ component: 'serve' });
  const metrics = new Metrics({ exporter: 'serve', version: readBuildInfo().version });
  const server = await startRecommendServer({
    address: options.listen,
    servingDir: options.serving,
    metrics,
    onSwap: ({ generation, users }) => log.info({ generation, users }, `serving generation ${generation}`),
    onWarning: (message) => log.warn(message),
  });
  const metricsListen = hostAndPort(options.metrics);
  const metricsServer = await startMetricsServer({
    metrics,
    ...metricsListen,
    unhealthy: () => (server.ready() ? null : `nothing has been published in ${options.serving} yet`),
  });
  closeOnSignal(async () => {
    await Promise.all([server.close(), metricsServer.close()]);
  }, SHUTDOWN_GRACE_MS);
  announceReady({
    address: `${hostAndPort(options.listen).host}:${String(server.port)}`,
    metrics: `${metricsListen.host}:${String(metricsServer.port)}`,
  });
});
