/**
 * Verification: parts of a run's jobs are computed again from their recorded inputs, and what comes out is told.
 *
 * 1. Nothing is published: workers store what they make by content, and no checkpoint, result or event of the run changes.
 * 2. An interval begins at its checkpoint in every attempt; no state of the attempt before is gone on with.
 * 3. What cannot be computed again is told as the interval's outcome; only a lack of workers, which concerns all, ends the rest.
 * 4. Job ids hold the execution's first id: workers and controller have forgotten nothing of an earlier verification, and
 *    must not answer from it.
 */
import {
  ApplicationFailure,
  CancellationScope,
  continueAsNew,
  defineQuery,
  isCancellation,
  setHandler,
  sleep,
  workflowInfo,
} from '@temporalio/workflow';

import { failureOf, quick, waiting } from './activities.js';
import type { Attempt, GangEvent, GangFailure } from './activity-contract.js';
import {
  VERIFY_OUTCOMES_QUERY,
  verifyWorkflowId,
  type GangMember,
  type IntervalOutcome,
  type RetryState,
  type VerificationRequest,
  type VerifiedInterval,
} from './contract.js';
import { decide, FRESH, isWorkersFault } from './failure-policy.js';

/** How long a gang waits to become as large as it may. */
const FULL_GANG_WAIT_SECONDS = 1;

const outcomesQuery = defineQuery<IntervalOutcome[]>(VERIFY_OUTCOMES_QUERY);

export async function verifyWorkflow(request: VerificationRequest): Promise<IntervalOutcome[]> {
  const outcomes = [...request.done];
  setHandler(outcomesQuery, () => outcomes);
  for (const interval of request.intervals.slice(outcomes.length)) {
    if (workflowInfo().historyLength > request.historyEventsMax && outcomes.length > request.done.length) {
      await continueAsNew<typeof verifyWorkflow>({ ...request, done: outcomes });
    }
    outcomes.push(await new IntervalRerun(request, interval).untilOver());
  }
  return outcomes;
}

type EndEvent = Extract<GangEvent, { type: 'finished' | 'stopped' | 'failed' }>;

class IntervalRerun {
  readonly #request: VerificationRequest;
  readonly #interval: VerifiedInterval;
  readonly #job: VerificationRequest['jobs'][string];
  readonly #jobId: string;
  #retry: RetryState = FRESH;
  #avoid: string | null = null;

  constructor(request: VerificationRequest, interval: VerifiedInterval) {
    const job = request.jobs[interval.job];
    if (job === undefined) throw ApplicationFailure.nonRetryable(`the request has no job ${interval.job}`, 'bad_input');
    this.#request = request;
    this.#interval = interval;
    this.#job = job;
    const place = `${String(interval.from?.step ?? 0)}-${String(interval.to?.step ?? 'end')}`;
    this.#jobId = `${verifyWorkflowId(request.runId)}/${interval.job}/${place}/${workflowInfo().firstExecutionRunId}`;
  }

  async untilOver(): Promise<IntervalOutcome> {
    for (let epoch = 1; ; epoch++) {
      const startedAt = Date.now();
      const { members, event } = await this.#attempt(epoch);
      const workers = members.map(({ workerId }) => workerId);
      const seconds = (Date.now() - startedAt) / 1000;
      if (event.type === 'finished') return { workers, seconds, end: { type: 'result', result: event.result } };
      if (event.type === 'stopped') {
        return { workers, seconds, end: this.#stoppedAt(event) };
      }
      const gaveUp = await this.#recover(event);
      if (gaveUp !== null)
        return { workers: [], seconds, end: { type: 'failed', cause: event.cause, message: gaveUp } };
    }
  }

  #stoppedAt({ step, manifestDigest }: Extract<EndEvent, { type: 'stopped' }>): IntervalOutcome['end'] {
    const wanted = this.#interval.to?.step;
    if (step === wanted && manifestDigest !== null) return { type: 'checkpoint', step, manifestDigest };
    const expected = wanted === undefined ? 'no stop' : `a stop with a checkpoint of step ${String(wanted)}`;
    const message = `${this.#jobId}: expected ${expected}, got one at step ${String(step)}; verify again`;
    return { type: 'failed', cause: 'internal', message };
  }

  async #attempt(epoch: number): Promise<{ members: GangMember[]; event: EndEvent }> {
    const { stage } = this.#job;
    const attempt: Attempt = { runId: this.#request.runId, stage, jobId: this.#jobId, epoch };
    let members: GangMember[] = [];
    try {
      members = await this.#lease(attempt);
      return { members, event: await this.#follow(attempt, members) };
    } catch (error) {
      if (isCancellation(error)) throw error;
      return { members, event: failureOf(error, this.#interval.from?.step ?? 0) };
    } finally {
      await CancellationScope.nonCancellable(() => quick.releaseGang({ ...attempt, members }));
    }
  }

  async #lease(attempt: Attempt): Promise<GangMember[]> {
    const { spec, workersMax } = this.#job;
    const { members } = await waiting.acquireGang({
      ...attempt,
      numericsClass: spec.numericsClass,
      engineRevision: spec.engineRevision,
      min: 1,
      max: workersMax,
      spares: 0,
      keep: [],
      timeline: null,
      avoid: this.#avoid === null ? [] : [this.#avoid],
      waitSeconds: this.#request.waitSeconds,
      fullGangWaitSeconds: FULL_GANG_WAIT_SECONDS,
    });
    return members;
  }

  async #follow(attempt: Attempt, members: GangMember[]): Promise<EndEvent> {
    const { key, spec } = this.#job;
    const { from, to } = this.#interval;
    await quick.startGang({
      ...attempt,
      members,
      key,
      spec,
      checkpointIntervalSteps: 0,
      checkpointsKept: 0,
      memorySaving: this.#retry.memorySaving,
      rerun: { from, untilStep: to?.step ?? 0 },
    });
    const event = await waiting.awaitGang({
      ...attempt,
      members,
      afterStep: Number.MAX_SAFE_INTEGER,
      untilFirstStep: false,
      growTo: null,
      timeline: null,
      avoid: [],
      replaceStragglers: false,
      spares: 0,
      numericsClass: spec.numericsClass,
      engineRevision: spec.engineRevision,
      stallSeconds: this.#request.stallSeconds,
    });
    if (event.type === 'finished' || event.type === 'stopped' || event.type === 'failed') return event;
    throw ApplicationFailure.nonRetryable(`expected the end of ${this.#jobId}, got ${event.type}`, 'internal');
  }

  /** Does what the failure's class asks for before the next attempt; what to say when there is none. */
  async #recover(failure: GangFailure): Promise<string | null> {
    const { state, decision } = decide(this.#retry, failure);
    this.#retry = state;
    const { cause, message, workerId } = failure;
    if (cause === 'no_workers') throw ApplicationFailure.nonRetryable(message, cause);
    if (decision.action === 'give_up') return `${message} (${decision.words})`;
    this.#avoid = isWorkersFault(cause) ? workerId : null;
    if (decision.action === 'wait_for_store') await waiting.awaitStore();
    if (decision.waitMs > 0) await sleep(decision.waitMs);
    return null;
  }
}
