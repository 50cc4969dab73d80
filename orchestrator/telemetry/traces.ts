/**
 * Traces of runs over OTLP/HTTP: run → stage → attempt at a job → activities and calls to workers → the job on each rank.
 *
 * 1. Ids are functions of names (the run's, the stage's, the attempt's): every process knows them without being told, a controller
 *    that was restarted goes on with the same trace, and what is sent twice is the same span.
 * 2. Off unless OTEL_EXPORTER_OTLP_ENDPOINT (or OTEL_EXPORTER_OTLP_TRACES_ENDPOINT) names a collector. Spans are sent from a bounded
 *    queue in the background: a collector that is slow or away costs spans, never a run.
 * 3. A span is told when it is over. Workflow code has no part in this: histories know nothing of traces.
 */
import { createHash, randomBytes } from 'node:crypto';

import { ROOT_CONTEXT, SpanKind, SpanStatusCode, trace, TraceFlags, type Tracer } from '@opentelemetry/api';
import { OTLPTraceExporter } from '@opentelemetry/exporter-trace-otlp-http';
import { resourceFromAttributes } from '@opentelemetry/resources';
import { BasicTracerProvider, BatchSpanProcessor, type IdGenerator } from '@opentelemetry/sdk-trace-base';

const EXPORT_TIMEOUT_MS = 5_000;
const EXPORT_INTERVAL_MS = 1_000;
const QUEUE_MAX = 4_096;

/** A span by name; unique within its run. */
export type SpanName = string;

export const spanNames = {
  run: (): SpanName => 'run',
  stage: (stage: string): SpanName => `stage ${stage}`,
  /** `jobId` begins with the run's id. */
  attempt: (jobId: string, epoch: number): SpanName => `attempt ${jobId} ${String(epoch)}`,
  start: (jobId: string, epoch: number, rank: number): SpanName => `start ${jobId} ${String(epoch)} ${String(rank)}`,
  rank: (jobId: string, epoch: number, rank: number): SpanName => `rank ${jobId} ${String(epoch)} ${String(rank)}`,
};

export interface ToldSpan {
  runId: string;
  /** Null: one that nobody refers to. */
  name: SpanName | null;
  parent: SpanName | null;
  /** As it is shown. */
  title: string;
  kind?: 'internal' | 'client' | 'server';
  startMs: number;
  endMs: number;
  attributes?: Record<string, string | number>;
  events?: { title: string; atMs: number; attributes?: Record<string, string | number> }[];
  /** Why it failed; left out: it did not. */
  failure?: string;
}

export interface Traces {
  readonly enabled: boolean;
  tell(span: ToldSpan): void;
  /** Sends what is left, for at most the time of one export. */
  close(): Promise<void>;
}

const OFF: Traces = { enabled: false, tell: () => undefined, close: () => Promise.resolve() };

export function createTraces(
  { component, version, instance }: { component: string; version: string; instance: string },
  env: NodeJS.ProcessEnv = process.env,
): Traces {
  const endpoint = env['OTEL_EXPORTER_OTLP_TRACES_ENDPOINT'] ?? tracesBelow(env['OTEL_EXPORTER_OTLP_ENDPOINT']);
  return endpoint === null || endpoint === '' ? OFF : new SentTraces(endpoint, { component, version, instance });
}

export function traceIdOf(runId: string): string {
  return hex(`run ${runId}`, 16);
}

export function spanIdOf(runId: string, name: SpanName): string {
  return hex(`span ${runId} ${name}`, 8);
}

class SentTraces implements Traces {
  readonly enabled = true;
  readonly #ids = new NamedIds();
  readonly #provider: BasicTracerProvider;
  readonly #tracer: Tracer;

  constructor(url: string, { component, version, instance }: { component: string; version: string; instance: string }) {
    const exporter = new OTLPTraceExporter({ url, timeoutMillis: EXPORT_TIMEOUT_MS });
    this.#provider = new BasicTracerProvider({
      idGenerator: this.#ids,
      resource: resourceFromAttributes({
        'service.name': `collimate-${component}`,
        'service.version': version,
        'service.instance.id': instance,
        'process.pid': process.pid,
      }),
      spanProcessors: [
        new BatchSpanProcessor(exporter, {
          maxQueueSize: QUEUE_MAX,
          scheduledDelayMillis: EXPORT_INTERVAL_MS,
          exportTimeoutMillis: EXPORT_TIMEOUT_MS,
        }),
      ],
    });
    this.#tracer = this.#provider.getTracer('collimate', version);
  }

  tell({
    runId,
    name,
    parent,
    title,
    kind = 'internal',
    startMs,
    endMs,
    attributes = {},
    events = [],
    failure,
  }: ToldSpan): void {
    this.#ids.next = { traceId: traceIdOf(runId), spanId: name === null ? null : spanIdOf(runId, name) };
    const context =
      parent === null
        ? ROOT_CONTEXT
        : trace.setSpanContext(ROOT_CONTEXT, {
            ...{ traceId: traceIdOf(runId), spanId: spanIdOf(runId, parent) },
            ...{ traceFlags: TraceFlags.SAMPLED, isRemote: true },
          });
    const kinds = { internal: SpanKind.INTERNAL, client: SpanKind.CLIENT, server: SpanKind.SERVER };
    const options = { kind: kinds[kind], startTime: startMs, root: parent === null };
    const span = this.#tracer.startSpan(
      title,
      { ...options, attributes: { 'collimate.run': runId, ...attributes } },
      context,
    );
    for (const event of events) span.addEvent(event.title, event.attributes ?? {}, event.atMs);
    if (failure !== undefined) span.setStatus({ code: SpanStatusCode.ERROR, message: failure });
    span.end(Math.max(startMs, endMs));
  }

  async close(): Promise<void> {
    // Nobody waits for a collector that is away.
    await this.#provider.shutdown().catch(() => undefined);
  }
}

/** Gives the span that is started next the ids that were put here; ids of its own where none was. */
class NamedIds implements IdGenerator {
  next: { traceId: string; spanId: string | null } | null = null;

  generateTraceId(): string {
    return this.next?.traceId ?? randomBytes(16).toString('hex');
  }

  generateSpanId(): string {
    return this.next?.spanId ?? randomBytes(8).toString('hex');
  }
}

function hex(text: string, bytes: number): string {
  return createHash('sha256')
    .update(text)
    .digest('hex')
    .slice(0, 2 * bytes);
}

function tracesBelow(endpoint: string | undefined): string | null {
  return endpoint === undefined || endpoint === '' ? null : `${endpoint.replace(/\/$/, '')}/v1/traces`;
}
