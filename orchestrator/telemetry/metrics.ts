/**
 * Prometheus metrics of one process, built from the registry, and the small HTTP server that shows them.
 *
 * 1. Only declared names with exactly their declared labels are accepted; anything else throws.
 * 2. A run's series disappear a grace time after it ended, so that a long-lived controller does not grow for ever; and so do
 *    those of a run of which nothing more is heard, since it may have been terminated.
 */
import { createServer, type Server } from 'node:http';

import { Counter, Gauge, Histogram, Registry } from 'prom-client';

import {
  METRICS,
  STEP_NUMBERS,
  type LabelsOf,
  type MetricDeclaration,
  type MetricExporter,
  type MetricName,
  type NamesOf,
} from './registry.js';

type Instrument = Counter | Gauge | Histogram;
type Labels = Record<string, string>;

export interface MetricsOptions {
  /** Which process this is: only its metrics exist here. */
  exporter: Exclude<MetricExporter, 'every process'>;
  version: string;
}

export interface StepReport {
  run: string;
  stage: string;
  rank: number;
  step: number;
  stepsTotal: number;
  /** `metrics` of the StepEvent. */
  numbers: Readonly<Record<string, number>>;
}

const DEFAULT_GRACE_MS = 300_000;
/** Of a run that goes on something is heard every few seconds, also while it waits. */
const SILENT_MS_MAX = 50 * 60_000;

export class Metrics {
  readonly #registry = new Registry();
  readonly #instruments = new Map<string, Instrument>();
  /** Label sets in use by run, so that they can be removed. */
  readonly #ofRun = new Map<string, Map<string, { instrument: Instrument; labels: Labels }>>();
  readonly #removals = new Map<string, NodeJS.Timeout>();
  readonly #lastHeardMs = new Map<string, number>();
  #cpuSeconds = 0;

  constructor({ exporter, version }: MetricsOptions) {
    for (const [name, declaration] of Object.entries<MetricDeclaration>(METRICS)) {
      if (declaration.exporter !== exporter && declaration.exporter !== 'every process') continue;
      this.#instruments.set(name, build(name, declaration, this.#registry));
    }
    this.set('collimate_build_info', { component: exporter, version }, 1);
    this.set('collimate_process_start_timestamp_seconds', {}, Date.now() / 1000 - process.uptime());
  }

  inc<N extends NamesOf<'counter'>>(name: N, labels: LabelsOf<N>, by = 1): void {
    (this.#find(name, labels) as Counter).inc(labels, by);
  }

  set<N extends NamesOf<'gauge'>>(name: N, labels: LabelsOf<N>, value: number): void {
    (this.#find(name, labels) as Gauge).set(labels, value);
  }

  observe<N extends NamesOf<'histogram'>>(name: N, labels: LabelsOf<N>, value: number): void {
    (this.#find(name, labels) as Histogram).observe(labels, value);
  }

  /** Removes one series, for example that of a worker that left. */
  remove<N extends MetricName>(name: N, labels: LabelsOf<N>): void {
    const instrument = this.#find(name, labels);
    instrument.remove(labels);
    const { run }: Labels = labels;
    if (run !== undefined) this.#ofRun.get(run)?.delete(seriesKey(name, labels));
  }

  /** Removes every series of a gauge, before it is filled anew. */
  clear(name: NamesOf<'gauge'>): void {
    this.#instrument(name).reset();
  }

  /** Sets 1 for `state` and 0 for the states seen before. */
  setRunState(run: string, state: string): void {
    this.#lowerStates('collimate_run_state', run, () => true);
    this.set('collimate_run_state', { run, state }, 1);
  }

  setStageState({ run, stage, state }: { run: string; stage: string; state: string }): void {
    this.#lowerStates('collimate_stage_state', run, (labels) => labels['stage'] === stage);
    this.set('collimate_stage_state', { run, stage, state }, 1);
  }

  /** Controller only. Everything but the step time is taken from rank 0, since all ranks report the same step. */
  recordStep({ run, stage, rank, step, stepsTotal, numbers }: StepReport): void {
    const seconds = numbers['step_seconds'];
    if (seconds !== undefined)
      this.observe('collimate_step_duration_seconds', { run, stage, rank: String(rank) }, seconds);
    if (rank !== 0) return;
    this.inc('collimate_steps_total', { run, stage });
    this.set('collimate_stage_last_step_timestamp_seconds', { run, stage }, Date.now() / 1000);
    this.set('collimate_stage_step', { run, stage }, step);
    this.set('collimate_stage_target_step', { run, stage }, stepsTotal);
    for (const [name, value] of Object.entries(numbers)) {
      if (!isStepNumber(name)) {
        throw new Error(
          `step metric "${name}" of stage ${stage}: expected one of ${Object.keys(STEP_NUMBERS).join(', ')}; declare it in the registry`,
        );
      }
      const metric = STEP_NUMBERS[name];
      if (metric === 'collimate_loss') {
        this.set(metric, { run, stage, task: name === 'loss' ? 'total' : name.slice('loss_'.length) }, value);
      } else if (metric === 'collimate_samples_total' || metric === 'collimate_tokens_total') {
        this.inc(metric, { run, stage }, value);
      } else if (metric !== 'collimate_step_duration_seconds') {
        this.set(metric, { run, stage }, value);
      }
    }
  }

  /** Forgets a run's series after `graceMs`, long enough for the last values to be scraped. */
  removeRun(run: string, { graceMs = DEFAULT_GRACE_MS }: { graceMs?: number } = {}): void {
    clearTimeout(this.#removals.get(run));
    const timer = setTimeout(() => {
      this.#forgetRun(run);
    }, graceMs);
    timer.unref();
    this.#removals.set(run, timer);
  }

  /** Takes back a removal that has not happened yet: the run goes on. */
  keepRun(run: string): void {
    clearTimeout(this.#removals.get(run));
    this.#removals.delete(run);
  }

  /** Text of the Prometheus exposition format. */
  async text(): Promise<string> {
    const silentSinceMs = Date.now() - SILENT_MS_MAX;
    for (const [run, heardMs] of this.#lastHeardMs) if (heardMs < silentSinceMs) this.#forgetRun(run);
    this.set('collimate_process_resident_memory_bytes', {}, process.memoryUsage.rss());
    const { user, system } = process.cpuUsage();
    const cpuSeconds = (user + system) / 1e6;
    this.inc('collimate_process_cpu_seconds_total', {}, cpuSeconds - this.#cpuSeconds);
    this.#cpuSeconds = cpuSeconds;
    return this.#registry.metrics();
  }

  get contentType(): string {
    return this.#registry.contentType;
  }

  #forgetRun(run: string): void {
    this.keepRun(run);
    for (const { instrument, labels } of this.#ofRun.get(run)?.values() ?? []) instrument.remove(labels);
    this.#ofRun.delete(run);
    this.#lastHeardMs.delete(run);
  }

  #instrument(name: string): Instrument {
    const instrument = this.#instruments.get(name);
    if (instrument === undefined) {
      throw new Error(`metric ${name} is not declared for this process; declare it in telemetry/registry.ts`);
    }
    return instrument;
  }

  #find(name: MetricName, labels: Labels): Instrument {
    const instrument = this.#instrument(name);
    const declared: readonly string[] = METRICS[name].labels;
    const given = Object.keys(labels);
    if (given.length !== declared.length || !declared.every((label) => label in labels)) {
      throw new Error(`metric ${name}: expected labels {${declared.join(', ')}}, got {${given.join(', ')}}`);
    }
    const run = labels['run'];
    if (run !== undefined) {
      this.#lastHeardMs.set(run, Date.now());
      const series = this.#ofRun.get(run) ?? new Map<string, { instrument: Instrument; labels: Labels }>();
      this.#ofRun.set(run, series);
      const key = seriesKey(name, labels);
      if (!series.has(key)) series.set(key, { instrument, labels: { ...labels } });
    }
    return instrument;
  }

  #lowerStates(
    name: 'collimate_run_state' | 'collimate_stage_state',
    run: string,
    of: (labels: Labels) => boolean,
  ): void {
    const states = this.#instrument(name) as Gauge;
    for (const { instrument, labels } of this.#ofRun.get(run)?.values() ?? []) {
      if (instrument === states && of(labels)) states.set(labels, 0);
    }
  }
}

export interface MetricsServer {
  port: number;
  close(): Promise<void>;
}

export interface MetricsServerOptions {
  metrics: Metrics;
  host: string;
  /** 0 for any free port. */
  port: number;
  /** Null when healthy, else why not; /healthz then answers 503. */
  unhealthy?: () => string | null;
  /** What else Prometheus should scrape; /targets then answers it in the form of `http_sd_configs`. */
  targets?: () => TargetGroup[];
}

export interface TargetGroup {
  targets: string[];
  labels: Labels;
}

/** Serves `/metrics`, `/healthz` and, where there are any, `/targets`. */
export async function startMetricsServer({
  metrics,
  host,
  port,
  unhealthy,
  targets,
}: MetricsServerOptions): Promise<MetricsServer> {
  const server = createServer((request, response) => {
    const path = request.url?.split('?')[0];
    const answer = (status: number, body: string, type = 'text/plain; charset=utf-8'): void => {
      response.writeHead(status, { 'content-type': type });
      response.end(request.method === 'HEAD' ? undefined : body);
    };
    if (request.method !== 'GET' && request.method !== 'HEAD') {
      answer(405, 'expected GET\n');
    } else if (path === '/healthz') {
      const reason = unhealthy?.() ?? null;
      answer(reason === null ? 200 : 503, reason === null ? 'ok\n' : `${reason}\n`);
    } else if (path === '/metrics') {
      metrics.text().then(
        (body) => answer(200, body, metrics.contentType),
        (error: unknown) => answer(500, `${String(error)}\n`),
      );
    } else if (path === '/targets' && targets !== undefined) {
      answer(200, `${JSON.stringify(targets())}\n`, 'application/json');
    } else {
      const further = targets === undefined ? '' : ', /targets';
      answer(404, `expected /metrics, /healthz${further}\n`);
    }
  });
  await listen(server, host, port);
  const address = server.address();
  return {
    port: typeof address === 'object' && address !== null ? address.port : port,
    close: () =>
      new Promise<void>((resolve, reject) => {
        server.close((error) => (error === undefined ? resolve() : reject(error)));
        server.closeAllConnections();
      }),
  };
}

async function listen(server: Server, host: string, port: number): Promise<void> {
  await new Promise<void>((resolve, reject) => {
    server.once('error', (error: NodeJS.ErrnoException) => {
      const why =
        error.code === 'EADDRINUSE' ? 'the port is in use; choose another port or stop its holder' : error.message;
      reject(new Error(`metrics server: cannot listen on ${host}:${String(port)}: ${why}`, { cause: error }));
    });
    server.listen(port, host, resolve);
  });
}

function build(name: string, declaration: MetricDeclaration, registry: Registry): Instrument {
  const options = { name, help: declaration.help, labelNames: [...declaration.labels], registers: [registry] };
  switch (declaration.type) {
    case 'counter':
      return new Counter(options);
    case 'gauge':
      return new Gauge(options);
    case 'histogram':
      return new Histogram(
        declaration.buckets === undefined ? options : { ...options, buckets: [...declaration.buckets] },
      );
  }
}

function isStepNumber(name: string): name is keyof typeof STEP_NUMBERS {
  return Object.hasOwn(STEP_NUMBERS, name);
}

function seriesKey(name: string, labels: Labels): string {
  return JSON.stringify([
    name,
    ...Object.entries(labels)
      .sort(([a], [b]) => (a < b ? -1 : 1))
      .flat(),
  ]);
}
