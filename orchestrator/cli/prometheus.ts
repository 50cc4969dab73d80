/**
 * A local Prometheus: where its program is, and its configuration with the targets of one installation.
 *
 * Workers are found through the controller, so that those that come and go are scraped without being named here.
 */
import { mkdirSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

import { CliError } from './cli-error.js';
import { projectRoot } from './project-paths.js';
import { findProgram, type FoundProgram } from './temporal-binary.js';

const ANSWER_TIMEOUT_MS = 2_000;
const ASK_AGAIN_MS = 200;

export interface PrometheusConfig {
  /** host:port of the controller's metrics. */
  controllerMetrics: string;
  /** host:port of the recommender's metrics. */
  serveMetrics: string;
  intervalSeconds: number;
}

export function requirePrometheus(): FoundProgram {
  const found = findProgram({ variable: 'COLLIMATE_PROMETHEUS', name: 'prometheus' });
  if (found === null) {
    throw new CliError(
      'badInput',
      'expected a Prometheus for --monitoring, found none in COLLIMATE_PROMETHEUS or on the PATH; ' +
        'install it (Debian: apt-get install prometheus), or leave --monitoring out',
    );
  }
  return found;
}

/** JSON, which is YAML too. */
export function prometheusConfig({ controllerMetrics, serveMetrics, intervalSeconds }: PrometheusConfig): string {
  const interval = `${String(intervalSeconds)}s`;
  const rules = ['rules.yml', 'alerts.yml'].map((file) => join(projectRoot, 'deploy', 'prometheus', file));
  const config = {
    global: { scrape_interval: interval, scrape_timeout: interval, evaluation_interval: interval },
    rule_files: rules,
    scrape_configs: [
      { job_name: 'collimate-controller', static_configs: [{ targets: [controllerMetrics] }] },
      {
        job_name: 'collimate-worker',
        http_sd_configs: [{ url: `http://${controllerMetrics}/targets`, refresh_interval: interval }],
      },
      { job_name: 'collimate-serve', static_configs: [{ targets: [serveMetrics] }] },
    ],
  };
  return `${JSON.stringify(config, null, 2)}\n`;
}

/** Writes the configuration into the folder, and answers the flags of a Prometheus that keeps its data there. */
export function preparePrometheus(folder: string, listen: string, config: PrometheusConfig): string[] {
  mkdirSync(folder, { recursive: true });
  const file = join(folder, 'prometheus.yml');
  writeFileSync(`${file}.tmp`, prometheusConfig(config));
  renameSync(`${file}.tmp`, file);
  return [
    `--config.file=${file}`,
    `--storage.tsdb.path=${join(folder, 'data')}`,
    '--storage.tsdb.retention.time=15d',
    `--web.listen-address=${listen}`,
    '--log.level=warn',
  ];
}

/** Resolves once it takes queries; asks until then, or until the signal. */
export async function prometheusAnswers(address: string, signal: AbortSignal): Promise<void> {
  for (;;) {
    signal.throwIfAborted();
    const deadline = AbortSignal.any([signal, AbortSignal.timeout(ANSWER_TIMEOUT_MS)]);
    const isReady = await fetch(`http://${address}/-/ready`, { signal: deadline }).then(
      (response) => response.ok,
      () => false,
    );
    if (isReady) return;
    await sleep(ASK_AGAIN_MS);
  }
}
