/**
 * Follows one attempt on all its members and says what it came to.
 *
 * 1. An attempt ends once: finished or stopped by rank 0, parked by all, or failed. A finish of rank 0 beats any failure.
 * 2. When one rank dies the others park as `peer_lost`; the cause that is told is the root, so a first one waits a moment for
 *    the rank that really failed.
 * 3. A broken stream is re-attached with the sequence last seen, so no event is lost or told twice. A worker that cannot
 *    be reached again, or that knows nothing of the attempt, is lost; one that is reached but gives no sign is hung.
 */
import { status, type ClientReadableStream } from '@grpc/grpc-js';

import type { JobEvent__Output } from '../../proto/generated/collimate/v1/JobEvent.js';
import type { WatchJobResponse__Output } from '../../proto/generated/collimate/v1/WatchJobResponse.js';
import type { GangEvent, GangFailure } from '../../workflows/activity-contract.js';
import type { Digest, FailureCause, GangMember, JobResult } from '../../workflows/contract.js';
import { plainReason } from './channel.js';
import { CHECK_INTERVAL_MS, HangDetector, type MemberSigns } from './hang-detector.js';
import type { FleetMember } from './registry.js';
import { StragglerDetector } from './straggler-detector.js';

const REATTACH_TRIES = 2;
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
  /** What is known of workers by their join streams. */
  fleet: { get(workerId: string): FleetMember | undefined; lastLog(workerId: string): string[] };
  stallSeconds: number;
}

type EndEvent = Extract<GangEvent, { type: 'finished' | 'stopped' | 'parked' | 'failed' }>;

interface MemberState {
  member: GangMember;
  rank: number;
  sequence: number;
  triesLeft: number;
  ended: boolean;
  parked: boolean;
  lastEventMs: number;
  stream: ClientReadableStream<WatchJobResponse__Output> | null;
}

export class GangWatch {
  readonly #options: GangWatchOptions;
  readonly #members: MemberState[];
  readonly #hangs: HangDetector;
  readonly #stragglers: StragglerDetector;
  readonly #hangTimer: NodeJS.Timeout;
  #lastProgressAt: number | null = null;
  #restoredAt: number | null = null;
  #firstStepAt: number | null = null;
  #firstStep = 0;
  #step = 0;
  #stepsTotal = 0;
  #checkpointStep = 0;
  #checkpointDigest: Digest | null = null;
  #failures: GangFailure[] = [];
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
      parked: false,
      lastEventMs: Date.now(),
      stream: null,
    }));
    this.#hangs = new HangDetector({ stallSeconds: options.stallSeconds, nowMs: Date.now() });
    this.#stragglers = new StragglerDetector(this.#members.length);
    this.#hangTimer = setInterval(() => {
      this.#checkForHang();
    }, CHECK_INTERVAL_MS);
    this.#hangTimer.unref();
    for (const state of this.#members) this.#attach(state);
  }

  get target(): WatchTarget {
    return this.#options.target;
  }

  /** The next thing that the workflow has to hear of; rejects when `signal` aborts. */
  async next(
    { afterStep, untilFirstStep }: { afterStep: number; untilFirstStep: boolean },
    signal: AbortSignal,
  ): Promise<GangEvent> {
    for (;;) {
      signal.throwIfAborted();
      if (untilFirstStep && this.#firstStepAt !== null) {
        const restoredAt = this.#restoredAt ?? this.#firstStepAt;
        return { type: 'first_step', step: this.#firstStep, restoredAt, firstStepAt: this.#firstStepAt };
      }
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

  /** The member that all others wait for at every step, as a failure that it is not yet; null while there is none. */
  get straggler(): GangFailure | null {
    const found = this.#end === null ? this.#stragglers.find() : null;
    const state = this.#members.find((member) => member.rank === found?.rank);
    return found === null || state === undefined ? null : this.#failure(state, 'straggler', found.message);
  }

  close(): void {
    this.#closed = true;
    clearInterval(this.#hangTimer);
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
      const { workerId, address } = state.member;
      const message = `worker ${workerId} at ${address} was lost: ${reason}`;
      this.#fail(state, 'worker_lost', message);
    };
    stream.on('metadata', () => {
      clearTimeout(attaching);
    });
    stream.on('data', (response: WatchJobResponse__Output) => {
      clearTimeout(attaching);
      if (response.event == null || over) return;
      state.triesLeft = REATTACH_TRIES;
      state.lastEventMs = Date.now();
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
    if (event.ready != null) {
      this.#restoredAt = Date.now();
      this.#progressed(event.ready.step, { isStep: false });
    } else if (event.step != null) {
      // Every rank tells of every step; the gang's pace is that of its first rank to do so.
      if (event.step.step > this.#step || this.#firstStepAt === null) {
        this.#progressed(event.step.step, { isStep: true });
      }
      this.#stepsTotal = event.step.stepsTotal;
      const computeSeconds = event.step.metrics['compute_seconds'];
      if (computeSeconds !== undefined) this.#stragglers.computed(state.rank, computeSeconds);
    } else if (event.checkpoint != null) {
      if (event.checkpoint.step > this.#checkpointStep) {
        this.#checkpointStep = event.checkpoint.step;
        this.#checkpointDigest = event.checkpoint.manifestDigest;
      }
      this.#wake();
    } else if (event.finished != null) {
      state.ended = true;
      if (state.rank === 0) this.#finish(this.#finishedBy(state, event.finished.resultJson));
    } else if (event.stopped != null) {
      state.ended = true;
      const { step } = event.stopped;
      const manifestDigest = step === this.#checkpointStep ? this.#checkpointDigest : null;
      if (state.rank === 0) this.#finish({ type: 'stopped', step, manifestDigest });
    } else if (event.parked != null) {
      this.#parked(state, event.parked.reason, event.parked.message);
    } else if (event.failed != null) {
      this.#step = Math.max(this.#step, event.failed.step);
      this.#fail(state, causeOf(event.failed.cause), event.failed.message);
    }
  }

  #progressed(step: number, { isStep }: { isStep: boolean }): void {
    const now = Date.now();
    this.#step = Math.max(this.#step, step);
    this.#lastProgressAt = now;
    this.#hangs.progressed(now, { isStep });
    if (!isStep || this.#firstStepAt !== null) return;
    this.#firstStepAt = now;
    this.#firstStep = step;
    this.#wake();
  }

  #parked(state: MemberState, reason: string, message: string): void {
    state.ended = true;
    state.parked = true;
    // Its last step is done: rank 0 is writing the result.
    if (reason === 'PARK_REASON_DONE') return;
    if (reason === 'PARK_REASON_ASKED') {
      // A rank that was told to end says so instead of parking; it comes within the same step.
      const all = this.#members.every((member) => member.parked);
      if (all) this.#finish({ type: 'parked', step: this.#step });
      return;
    }
    this.#fail(state, 'peer_lost', message);
  }

  /** An event's handler must not throw: nobody above it would catch that, and the same event comes again after a restart. */
  #finishedBy(state: MemberState, resultJson: string): EndEvent {
    try {
      const result = JSON.parse(resultJson) as JobResult;
      return { type: 'finished', step: this.#step, stepsTotal: this.#stepsTotal, result };
    } catch {
      const message = `expected the result of ${this.target.jobId} as JSON, got "${resultJson.slice(0, 80)}"`;
      return this.#failure(state, 'internal', message);
    }
  }

  #checkForHang(): void {
    if (this.#end !== null) return;
    const now = Date.now();
    const suspicion = this.#hangs.check(
      now,
      this.#members.filter((state) => !state.ended).map((state) => this.#signsOf(state)),
    );
    const state = this.#members.find((candidate) => candidate.rank === suspicion?.rank);
    if (suspicion !== null && state !== undefined) this.#fail(state, 'worker_hung', suspicion.message);
  }

  #signsOf({ member, rank, lastEventMs }: MemberState): MemberSigns {
    const known = this.#options.fleet.get(member.workerId);
    const joined = known?.address === member.address ? known : undefined;
    return {
      workerId: member.workerId,
      rank,
      lastHeardMs: joined === undefined ? null : Math.max(lastEventMs, joined.lastSeenUnixSeconds * 1000),
      phase: joined?.progress?.phase ?? null,
      waitingForRank: joined?.progress?.waitingForRank ?? -1,
    };
  }

  #failure({ member, rank }: MemberState, cause: FailureCause, message: string): GangFailure {
    const { workerId } = member;
    return {
      type: 'failed',
      cause,
      message,
      workerId,
      rank,
      step: this.#step,
      lastProgressAt: this.#lastProgressAt,
      detectedAt: Date.now(),
      log: this.#options.fleet.lastLog(workerId),
    };
  }

  #fail(state: MemberState, cause: FailureCause, message: string): void {
    state.ended = true;
    const failure = this.#failure(state, cause, message);
    this.#failures.push(failure);
    if (cause !== 'peer_lost') {
      this.#finish(failure);
    } else {
      this.#failureTimer ??= setTimeout(() => {
        this.#finish(this.#failures[0] ?? failure);
      }, ROOT_CAUSE_WAIT_MS);
    }
  }

  #finish(event: EndEvent): void {
    this.#end ??= event;
    clearInterval(this.#hangTimer);
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
