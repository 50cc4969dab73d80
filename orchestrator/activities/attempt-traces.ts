/**
 * Spans of an attempt at a job, as the controller sees it: waiting for workers, starting them, and the attempt as a whole.
 *
 * 1. Of an attempt that another controller began, the start is that of the first thing heard here.
 */
import type { Attempt, GangEvent } from '../../workflows/activity-contract.js';
import { spanNames, type Traces } from '../telemetry/traces.js';

type AttemptOf = Pick<Attempt, 'runId' | 'stage' | 'jobId' | 'epoch'>;

/** After these the attempt is over. */
const ENDS: readonly GangEvent['type'][] = ['finished', 'stopped', 'parked', 'failed'];

export class AttemptTraces {
  readonly #traces: Traces;
  readonly #beganMs = new Map<string, number>();

  constructor(traces: Traces) {
    this.#traces = traces;
  }

  /** Workers are leased. */
  acquired(attempt: AttemptOf, startMs: number): void {
    if (!this.#traces.enabled) return;
    this.#beganMs.set(nameOf(attempt), startMs);
    this.#below(attempt, { title: 'acquireGang', startMs });
  }

  /** Every rank has answered. */
  started(attempt: AttemptOf, startMs: number): void {
    this.#below(attempt, { title: 'startGang', startMs });
  }

  /** One rank has answered. */
  called(attempt: AttemptOf, { rank, workerId, startMs }: { rank: number; workerId: string; startMs: number }): void {
    const { runId, jobId, epoch } = attempt;
    this.#traces.tell({
      ...{ runId, name: spanNames.start(jobId, epoch, rank), parent: nameOf(attempt), kind: 'client', startMs },
      ...{ title: 'collimate.v1.WorkerService/StartJob', endMs: Date.now() },
      attributes: { 'rpc.system': 'grpc', 'collimate.worker': workerId, 'collimate.rank': rank },
    });
  }

  heard(attempt: AttemptOf, event: GangEvent): void {
    if (!this.#traces.enabled) return;
    const name = nameOf(attempt);
    const startMs = this.#beganMs.get(name) ?? Date.now();
    this.#beganMs.set(name, startMs);
    if (!ENDS.includes(event.type)) return;
    this.#beganMs.delete(name);
    const { runId, stage, jobId, epoch } = attempt;
    this.#traces.tell({
      ...{ runId, name, parent: spanNames.stage(stage), title: jobId.slice(jobId.indexOf('/') + 1) },
      ...{ startMs, endMs: Date.now() },
      attributes: {
        ...{ 'collimate.stage': stage, 'collimate.job': jobId, 'collimate.epoch': epoch },
        'collimate.outcome': event.type,
      },
      ...(event.type === 'failed' ? { failure: `${event.cause}: ${event.message}` } : {}),
    });
  }

  #below(attempt: AttemptOf, { title, startMs }: { title: string; startMs: number }): void {
    const { runId } = attempt;
    this.#traces.tell({ runId, name: null, parent: nameOf(attempt), title, startMs, endMs: Date.now() });
  }
}

function nameOf({ jobId, epoch }: AttemptOf): string {
  return spanNames.attempt(jobId, epoch);
}
