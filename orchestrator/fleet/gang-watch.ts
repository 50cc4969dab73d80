/**
 * Follows one attempt on all its members and says what it came to.
 *
 * 1. An attempt ends once: finished or stopped by rank 0, or failed. A finish of rank 0 beats any failure.
 * 2. When one rank dies the others report `peer_lost`; the cause that is told is the root, so a first `peer_lost` waits a
 *    moment for the rank that really failed.
 * 3. A broken stream is re-attached with the sequence last seen, so no event is lost or told twice. A worker that cannot
 *    be reached again, or that knows nothing of the attempt, is lost.
 */
import { status, type ClientReadableStream } from '@grpc/grpc-js';

import type { JobEvent__Output } from '../../proto/generated/collimate/v1/JobEvent.js';
import type { WatchJobResponse__Output } from '../../proto/generated/collimate/v1/WatchJobResponse.js';
import type { GangEvent } from '../../workflows/activity-contract.js';
import type { FailureCause, GangMember, JobResult } from '../../workflows/contract.js';
import { plainReason } from './channel.js';

const REATTACH_TRIES = 3;
const REATTACH_DELAY_MS = 150;
/** A frozen process still takes connections but never answers; keepalive only watches those that were answered once. */
const ATTACH_DEADLINE_MS = 3_000;
/** How long a `peer_lost` waits for the rank that caused it; longer than finding a worker lost takes. */
const ROOT_CAUSE_WAIT_MS = 1_500;

export interface WatchTarget {
  jobId: string;
  epoch: number;
  members: GangMember[];
}

export interface GangWatchOptions {
  target: WatchTarget;
  openStream(member: GangMember, afterSequence: number): ClientReadableStream<WatchJobResponse__Output>;
  onEvent(member: GangMember, event: JobEvent__Output): void;
}

type EndEvent = Exclude<GangEvent, { type: 'checkpoint' }>;
type FailedEvent = Extract<GangEvent, { type: 'failed' }>;

interface MemberState {
  member: GangMember;
  rank: number;
  sequence: number;
  triesLeft: number;
  ended: boolean;
  stream: ClientReadableStream<WatchJobResponse__Output> | null;
}

export class GangWatch {
  readonly #options: GangWatchOptions;
  readonly #members: MemberState[];
  #step = 0;
  #stepsTotal = 0;
  #checkpointStep = 0;
  #failures: FailedEvent[] = [];
  #failureTimer: NodeJS.Timeout | null = null;
  #end: EndEvent | null = null;
  #closed = false;
  #waiters: (() => void)[] = [];

  constructor(options: GangWatchOptions) {
    this.#options = options;
    this.#members = options.target.members.map((member, rank) => ({
      member,
      rank,
      sequence: 0,
      triesLeft: REATTACH_TRIES,
      ended: false,
      stream: null,
    }));
    for (const state of this.#members) this.#attach(state);
  }

  /** The next thing that the workflow has to hear of; rejects when `signal` aborts. */
  async next(afterStep: number, signal: AbortSignal): Promise<GangEvent> {
    for (;;) {
      signal.throwIfAborted();
      if (this.#end !== null) return this.#end;
      if (this.#checkpointStep > afterStep) {
        return { type: 'checkpoint', step: this.#checkpointStep, stepsTotal: this.#stepsTotal };
      }
      await new Promise<void>((resolve) => {
        const wake = (): void => {
          signal.removeEventListener('abort', wake);
          resolve();
        };
        this.#waiters.push(wake);
        signal.addEventListener('abort', wake, { once: true });
      });
    }
  }

  get progress(): { step: number; stepsTotal: number; checkpointStep: number } {
    return { step: this.#step, stepsTotal: this.#stepsTotal, checkpointStep: this.#checkpointStep };
  }

  close(): void {
    this.#closed = true;
    if (this.#failureTimer !== null) clearTimeout(this.#failureTimer);
    for (const state of this.#members) state.stream?.cancel();
  }

  #attach(state: MemberState): void {
    const stream = this.#options.openStream(state.member, state.sequence);
    state.stream = stream;
    let over = false;
    const attaching = setTimeout(() => {
      // Silence costs two tries: each has taken long enough.
      state.triesLeft -= 1;
      broken(`it did not answer within ${String(ATTACH_DEADLINE_MS / 1000)} s`, false);
      stream.cancel();
    }, ATTACH_DEADLINE_MS);
    const broken = (reason: string, unknownAttempt: boolean): void => {
      clearTimeout(attaching);
      if (over || this.#closed || state.ended) return;
      over = true;
      if (!unknownAttempt && state.triesLeft > 0) {
        state.triesLeft -= 1;
        setTimeout(() => {
          if (!this.#closed && this.#end === null) this.#attach(state);
        }, REATTACH_DELAY_MS).unref();
        return;
      }
      state.ended = true;
      this.#fail({
        type: 'failed',
        cause: 'worker_lost',
        message: `worker ${state.member.workerId} at ${state.member.address} was lost: ${reason}`,
        workerId: state.member.workerId,
        step: this.#step,
      });
    };
    stream.on('metadata', () => {
      clearTimeout(attaching);
    });
    stream.on('data', (response: WatchJobResponse__Output) => {
      clearTimeout(attaching);
      if (response.event == null || over) return;
      state.triesLeft = REATTACH_TRIES;
      state.sequence = response.event.sequence;
      this.#options.onEvent(state.member, response.event);
      this.#take(state, response.event);
    });
    stream.on('error', (error: Error & { code?: number; details?: string }) => {
      broken(plainReason(error.details ?? error.message), error.code === status.NOT_FOUND);
    });
    stream.on('end', () => {
      broken('its event stream ended before the job did', false);
    });
  }

  #take(state: MemberState, event: JobEvent__Output): void {
    if (event.step != null) {
      this.#step = Math.max(this.#step, event.step.step);
      this.#stepsTotal = event.step.stepsTotal;
    } else if (event.checkpoint != null) {
      this.#checkpointStep = Math.max(this.#checkpointStep, event.checkpoint.step);
      this.#wake();
    } else if (event.finished != null) {
      state.ended = true;
      if (state.rank === 0) {
        this.#finish(this.#finishedBy(state, event.finished.resultJson));
      }
    } else if (event.stopped != null) {
      state.ended = true;
      if (state.rank === 0) this.#finish({ type: 'stopped', step: event.stopped.step });
    } else if (event.failed != null) {
      state.ended = true;
      this.#fail({
        type: 'failed',
        cause: causeOf(event.failed.cause),
        message: event.failed.message,
        workerId: state.member.workerId,
        step: this.#step,
      });
    }
  }

  /** An event's handler must not throw: nobody above it would catch that, and the same event comes again after a restart. */
  #finishedBy(state: MemberState, resultJson: string): EndEvent {
    const step = this.#step;
    try {
      return { type: 'finished', step, stepsTotal: this.#stepsTotal, result: JSON.parse(resultJson) as JobResult };
    } catch {
      const message = `expected the result of ${this.#options.target.jobId} as JSON, got "${resultJson.slice(0, 80)}"`;
      return { type: 'failed', cause: 'internal', message, workerId: state.member.workerId, step };
    }
  }

  #fail(failure: FailedEvent): void {
    this.#failures.push(failure);
    if (failure.cause !== 'peer_lost') {
      this.#finish(failure);
    } else {
      this.#failureTimer ??= setTimeout(() => {
        this.#finish(this.#failures[0] ?? failure);
      }, ROOT_CAUSE_WAIT_MS);
    }
  }

  #finish(event: EndEvent): void {
    this.#end ??= event;
    if (this.#failureTimer !== null) clearTimeout(this.#failureTimer);
    this.#wake();
  }

  #wake(): void {
    for (const wake of this.#waiters.splice(0)) wake();
  }
}

/** `FAILURE_CAUSE_NAN_LOSS` → `nan_loss`. */
export function causeOf(name: string): FailureCause {
  const cause = name.replace(/^FAILURE_CAUSE_/, '').toLowerCase();
  return cause === 'unspecified' ? 'internal' : (cause as FailureCause);
}
