/** The span of each rank's job on this worker, below the call that started it, with its checkpoints as events. */
import { spanNames, type ToldSpan, type Traces } from '../../orchestrator/telemetry/traces.js';
import type { HostedOrder } from './job-host.js';
import type { JobMeasure } from './job-runner.js';

/** A job may write more of them than a span should hold. */
const EVENTS_MAX = 100;

type TracedOrder = Pick<HostedOrder, 'runId' | 'stage' | 'jobId' | 'epoch' | 'rank' | 'world'>;

export class JobTraces {
  readonly #checkpoints = new Map<string, NonNullable<ToldSpan['events']>>();

  constructor(
    private readonly traces: Traces,
    private readonly workerId: string,
  ) {}

  measured({ runId, stage, jobId, epoch, rank, world }: TracedOrder, measure: JobMeasure): void {
    if (!this.traces.enabled || measure.type === 'step') return;
    const key = spanNames.rank(jobId, epoch, rank);
    const events = this.#checkpoints.get(key) ?? [];
    if (measure.type === 'checkpoint') {
      const attributes = { 'collimate.seconds': measure.seconds };
      this.#checkpoints.set(key, [...events, { title: 'checkpoint', atMs: Date.now(), attributes }].slice(-EVENTS_MAX));
      return;
    }
    this.#checkpoints.delete(key);
    const { kind, outcome, startedMs, failure } = measure;
    this.traces.tell({
      ...{ runId, name: key, parent: spanNames.start(jobId, epoch, rank), title: `${kind}, rank ${String(rank)}` },
      ...{ kind: 'server', startMs: startedMs, endMs: Date.now(), events },
      attributes: {
        ...{
          'collimate.stage': stage,
          'collimate.job': jobId,
          'collimate.epoch': epoch,
          'collimate.worker': this.workerId,
        },
        ...{ 'collimate.rank': rank, 'collimate.world': world, 'collimate.outcome': outcome },
      },
      ...(failure === null ? {} : { failure: failure.message ?? 'failed' }),
    });
  }
}
