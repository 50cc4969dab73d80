/**
 * One job on as many gangs as it takes: lease, start, follow, recover, grow and shrink.
 *
 * 1. Each gang gets a new epoch, which only grows: a late call of an older attempt is refused everywhere.
 * 2. Members that hold the job's state are kept from gang to gang; only who is no longer needed is given back. Nothing that a
 *    survivor holds is computed again.
 * 3. Whatever happens (failure, pause, cancellation), leases are given back, except when the stage continues as new: then the
 *    running attempt is carried over untouched.
 * 4. What a failure means is decided by failure-policy.ts, whose state goes with the job through continue-as-new.
 */
import {
  ActivityFailure,
  ApplicationFailure,
  CancellationScope,
  ContinueAsNew,
  condition,
  isCancellation,
  proxyActivities,
  sleep,
} from '@temporalio/workflow';

import type { Acquired, Activities, Attempt, GangEvent, GangFailure } from './activity-contract.js';
import type {
  ActiveAttempt,
  Digest,
  FailureCause,
  FleetLimits,
  GangMember,
  Incident,
  JobKind,
  JobProgress,
  JobResult,
  JobSpec,
  JsonObject,
  RetryState,
  RunPin,
  RunPlan,
  StageName,
  TimelineSnapshot,
} from './contract.js';
import { decide, FRESH, isWorkersFault } from './failure-policy.js';
import type { Timeline } from './timeline.js';

/** How long the first gang of a job waits to become as large as it may; a later one grows instead. */
const FULL_GANG_WAIT_SECONDS = 1;

export const quick = proxyActivities<Activities>({
  startToCloseTimeout: '60 s',
  heartbeatTimeout: '5 s',
  retry: { initialInterval: '200 ms', backoffCoefficient: 2, maximumInterval: '5 s' },
});
const waiting = proxyActivities<Activities>({
  startToCloseTimeout: '30 d',
  heartbeatTimeout: '5 s',
  retry: { initialInterval: '200 ms', backoffCoefficient: 2, maximumInterval: '5 s' },
});

export interface JobRequest {
  /** Name of the job within the run: its kind, or `<kind>/<shard>`. */
  name: string;
  kind: JobKind;
  recipe: JsonObject;
  inputs: Record<string, Digest>;
  /** Most workers of its gang; 1 for jobs that are not data-parallel. */
  workersMax: number;
  checkpointIntervalSteps: number;
}

/** What a job sees of the stage that it is part of. */
export interface GangJobHost {
  readonly plan: RunPlan;
  readonly pin: RunPin;
  readonly stage: StageName;
  readonly timeline: Timeline;
  /** Up to now, the stages before included. */
  secondsOfRun(): TimelineSnapshot;
  isPaused(): boolean;
  fleet(): FleetLimits;
  nextEpoch(jobId: string): number;
  /** Kept by the stage, and carried when it continues as new. */
  retries: Record<string, RetryState>;
  incidents: Incident[];
  historyIsLong(): boolean;
  continueAsNew(active: ActiveAttempt): Promise<never>;
}

export interface GangJobOptions {
  request: JobRequest;
  spec: JobSpec;
  jobId: string;
  /** Shown to people; kept current. */
  progress: JobProgress;
}

type EndEvent = Extract<GangEvent, { type: 'finished' | 'stopped' | 'parked' | 'failed' }>;

export class GangJob {
  readonly #host: GangJobHost;
  readonly #options: GangJobOptions;
  #members: GangMember[] = [];
  #epoch = 0;
  /** The failure that is being recovered from; null once the first step after it is done. */
  #incident: Incident | null = null;
  /** Step and time of the present attempt's first step, to tell what a repeated one is worth. */
  #firstStep: { step: number; at: number } | null = null;
  #avoid: string | null = null;
  #handedOver = false;
  readonly #releases = new Set<Promise<void>>();

  constructor(host: GangJobHost, options: GangJobOptions) {
    this.#host = host;
    this.#options = options;
  }

  /** `carried`: the attempt that runs on from before the stage continued as new. */
  async untilDone(carried: ActiveAttempt | null): Promise<JobResult> {
    const { request, progress } = this.#options;
    const { timeline } = this.#host;
    try {
      for (let active = carried; ; active = null) {
        if (active === null && !this.#holdsState()) await this.#untilResumed();
        const event = await this.#attempt(active);
        if (event.type === 'finished') return event.result;
        if (event.type === 'stopped') {
          await this.#release(this.#members.splice(0));
          progress.workers = [];
        }
        if (event.type === 'failed') {
          const result = await this.#recover(event);
          if (result !== null) return result;
        }
      }
    } catch (error) {
      this.#handedOver = error instanceof ContinueAsNew;
      throw error;
    } finally {
      if (!this.#handedOver) {
        await CancellationScope.nonCancellable(async () => {
          await this.#release(this.#members);
          await Promise.all(this.#releases);
        });
        progress.workers = [];
        timeline.set(request.name, null, Date.now());
      }
    }
  }

  #holdsState(): boolean {
    return this.#members.length > 0;
  }

  async #untilResumed(): Promise<void> {
    const { request } = this.#options;
    if (!this.#host.isPaused()) return;
    this.#host.timeline.set(request.name, 'paused', Date.now());
    await condition(() => !this.#host.isPaused());
  }

  /** One gang from lease to end. */
  async #attempt(carried: ActiveAttempt | null): Promise<EndEvent> {
    const { progress, request } = this.#options;
    try {
      if (carried === null) {
        await this.#formGang();
      } else {
        this.#members = carried.members;
        this.#epoch = carried.epoch;
        progress.checkpointStep = carried.checkpointStep;
        this.#host.timeline.set(request.name, 'work', Date.now());
      }
      progress.epoch = this.#epoch;
      progress.workers = this.#members.map((member) => member.workerId);
      progress.step = Math.max(progress.checkpointStep, this.#incident?.resumedFromStep ?? 0);
      return await this.#follow(carried === null);
    } catch (error) {
      if (error instanceof ContinueAsNew || isCancellation(error)) throw error;
      return failureOf(error, progress.step);
    }
  }

  async #formGang(): Promise<void> {
    const { request, spec, jobId, progress } = this.#options;
    const { plan, pin, timeline } = this.#host;
    const incident = this.#incident;
    timeline.set(request.name, incident === null ? 'queue' : `recovery:${incident.cause}`, Date.now());
    const previous = { members: this.#members, attempt: this.#attemptRef() };
    this.#epoch = this.#host.nextEpoch(jobId);
    const attempt = this.#attemptRef();
    const { min, max, spares } = this.#limits();
    const acquired: Acquired = await waiting.acquireGang({
      ...attempt,
      numericsClass: spec.numericsClass,
      engineRevision: pin.engineRevision,
      min,
      max,
      // A lost member is what the spares are for.
      spares: incident === null ? spares : 0,
      keep: previous.members,
      avoid: this.#avoid,
      waitSeconds: plan.fleet.waitSeconds,
      timeline: this.#host.secondsOfRun(),
      fullGangWaitSeconds: this.#holdsState() ? 0 : FULL_GANG_WAIT_SECONDS,
    });
    this.#members = acquired.members;
    const dropped = previous.members.filter((member) => !this.#members.some((kept) => sameProcess(kept, member)));
    // Beside the new gang's start: a worker that is gone answers late or never.
    this.#releaseBeside(dropped, previous.attempt);
    if (incident === null) timeline.set(request.name, 'start', Date.now());
    const rescheduled = Date.now();
    const { resumedFromStep } = await quick.startGang({
      ...attempt,
      members: this.#members,
      key: progress.key,
      spec,
      checkpointIntervalSteps: request.checkpointIntervalSteps,
      memorySaving: this.#retry().memorySaving,
    });
    if (!this.#members.some((member) => member.warmStep !== null)) progress.checkpointStep = resumedFromStep;
    if (incident !== null)
      this.#describeGang(incident, { previous: previous.members, acquired, rescheduled, resumedFromStep });
  }

  #describeGang(
    incident: Incident,
    next: { previous: GangMember[]; acquired: Acquired; rescheduled: number; resumedFromStep: number },
  ): void {
    const { members, fencedAt } = next.acquired;
    incident.phases.fenced = fencedAt;
    incident.phases.rescheduled = next.rescheduled;
    incident.resumedFromStep = next.resumedFromStep;
    const names = members.map(({ workerId, warmStep }) => `${workerId}${warmStep === null ? '' : ' (kept its state)'}`);
    const from = next.resumedFromStep === 0 ? 'the beginning' : `step ${String(next.resumedFromStep)}`;
    const words = incident.action === '' ? '' : `${incident.action}; `;
    incident.action = `${words}went on from ${from} with ${String(members.length)} of ${String(next.previous.length)} workers: ${names.join(', ')}`;
    const repeated = incident.failedAtStep - next.resumedFromStep;
    const first = this.#firstStep;
    if (repeated > 0 && first !== null && incident.failedAtStep > first.step) {
      const lastProgress = incident.phases.lastProgress ?? incident.phases.detected;
      const secondsAStep = (lastProgress - first.at) / 1000 / (incident.failedAtStep - first.step);
      this.#host.timeline.lose(repeated * secondsAStep, `repeated:${incident.cause}`);
    }
  }

  /** From the gang's start to the end of the attempt. */
  async #follow(fresh: boolean): Promise<EndEvent> {
    const { jobId, progress } = this.#options;
    let untilFirstStep = fresh;
    let growing = true;
    if (fresh) this.#firstStep = null;
    for (;;) {
      const event = await this.#nextEvent({ untilFirstStep, growing });
      switch (event.type) {
        case 'first_step':
          untilFirstStep = false;
          await this.#onFirstStep(event);
          break;
        case 'workers_free':
          growing = false;
          await quick.regroupGang({ ...this.#attemptRef(), members: this.#members });
          break;
        case 'checkpoint': {
          progress.checkpointStep = event.step;
          progress.step = event.step;
          progress.stepsTotal = event.stepsTotal;
          const settled = this.#incident === null && this.#releases.size === 0;
          if (settled && this.#host.historyIsLong() && !this.#host.isPaused()) {
            const { key } = progress;
            const active = { jobId, key, epoch: this.#epoch, members: this.#members, checkpointStep: event.step };
            await this.#host.continueAsNew(active);
          }
          break;
        }
        case 'limits_changed':
          growing = true;
          break;
        case 'finished':
        case 'stopped':
        case 'parked':
        case 'failed':
          progress.step = Math.max(progress.step, event.step);
          if (event.type === 'finished') progress.stepsTotal = event.stepsTotal;
          if (event.type === 'stopped') progress.checkpointStep = Math.max(progress.checkpointStep, event.step);
          if (event.type !== 'failed' && this.#incident !== null) await this.#closeIncident(null);
          return event;
      }
    }
  }

  /** Waits for the next event; a pause or a smaller fleet meanwhile asks the gang to leave, and the wait goes on until it has. */
  async #nextEvent(options: {
    untilFirstStep: boolean;
    growing: boolean;
  }): Promise<GangEvent | { type: 'limits_changed' }> {
    const { spec, progress } = this.#options;
    const { plan, pin } = this.#host;
    const fleet = this.#host.fleet();
    const { max, spares } = this.#limits();
    const attempt = { ...this.#attemptRef(), members: this.#members };
    const scope = new CancellationScope();
    const event = scope.run(() =>
      waiting.awaitGang({
        ...attempt,
        afterStep: progress.checkpointStep,
        untilFirstStep: options.untilFirstStep,
        growTo: options.growing && this.#members.length < max ? max : null,
        spares,
        numericsClass: spec.numericsClass,
        engineRevision: pin.engineRevision,
        stallSeconds: plan.limits.stallSeconds,
        timeline: this.#host.secondsOfRun(),
      }),
    );
    let settled = false;
    const observed = event.finally(() => {
      settled = true;
    });
    observed.catch(() => undefined);
    const interrupted = (): boolean => this.#host.isPaused() || this.#host.fleet() !== fleet;
    await condition(() => settled || interrupted()).catch((error: unknown) => {
      if (!isCancellation(error)) throw error;
    });
    if (!settled && this.#host.isPaused()) {
      await quick.stopGang(attempt);
    } else if (!settled && this.#members.length > this.#limits().max) {
      await quick.regroupGang(attempt);
    } else if (!settled && this.#host.fleet() !== fleet) {
      // The wait is begun again with the new limits.
      scope.cancel();
      return { type: 'limits_changed' };
    }
    return await observed;
  }

  async #onFirstStep({ step, restoredAt, firstStepAt }: Extract<GangEvent, { type: 'first_step' }>): Promise<void> {
    const { progress, request } = this.#options;
    progress.step = Math.max(progress.step, step);
    this.#firstStep = { step, at: firstStepAt };
    this.#host.timeline.set(request.name, 'work', Date.now());
    if (this.#incident !== null) await this.#closeIncident({ restoredAt, firstStepAt });
  }

  /** `recovered` is null when the job ended before a step was seen. */
  async #closeIncident(recovered: { restoredAt: number; firstStepAt: number } | null): Promise<void> {
    const incident = this.#incident;
    if (incident === null) return;
    incident.phases.restored = recovered?.restoredAt ?? null;
    incident.phases.firstStep = recovered?.firstStepAt ?? null;
    this.#incident = null;
    this.#avoid = null;
    await quick.recordIncident(this.#host.plan.runId, incident, 'closed');
  }

  /** Records the failure and does what its class asks for; a result when the job turns out to be done. */
  async #recover(failure: GangFailure): Promise<JobResult | null> {
    const { request, spec, jobId } = this.#options;
    const { plan, stage, timeline, retries, incidents } = this.#host;
    const { state, decision } = decide(this.#retry(), failure);
    retries[jobId] = state;
    const { cause, message, workerId, rank, step, lastProgressAt, detectedAt, log } = failure;
    // One that came before the recovery from another was over.
    await this.#closeIncident(null);
    const incident: Incident = {
      id: `${request.name}#${String(this.#epoch)}`,
      stage,
      job: request.name,
      jobKind: request.kind,
      cause,
      message,
      workerId,
      rank,
      epoch: this.#epoch,
      action: decision.words,
      failedAtStep: step,
      resumedFromStep: step,
      phases: {
        lastProgress: lastProgressAt,
        detected: detectedAt,
        fenced: null,
        rescheduled: null,
        restored: null,
        firstStep: null,
      },
      log,
    };
    incidents.push(incident);
    timeline.set(request.name, `recovery:${cause}`, Date.now());
    if (lastProgressAt !== null) timeline.lose((Date.now() - lastProgressAt) / 1000, `recovery:${cause}`);
    await quick.recordIncident(plan.runId, incident, 'opened');
    if (decision.action === 'give_up') {
      throw ApplicationFailure.nonRetryable(`${request.name}: ${message} (${decision.words})`, cause);
    }
    this.#incident = incident;
    this.#avoid = isWorkersFault(cause) ? workerId : null;
    if (decision.action === 'wait_for_store') await this.#untilStoreTakesWrites(message);
    if (decision.waitMs > 0) await sleep(decision.waitMs);
    // A worker may have been lost between its commit and its last word.
    const { result } = await quick.lookUpJob(spec);
    if (result !== null) await this.#closeIncident(null);
    return result;
  }

  async #untilStoreTakesWrites(reason: string): Promise<void> {
    const { request, progress } = this.#options;
    progress.blocked = reason;
    this.#host.timeline.set(request.name, 'store', Date.now());
    try {
      await waiting.awaitStore();
    } finally {
      progress.blocked = null;
    }
  }

  #limits(): FleetLimits {
    const { workersMax } = this.#options.request;
    const { min, max, spares } = this.#host.fleet();
    return { min: Math.min(min, workersMax), max: Math.min(max, workersMax), spares };
  }

  #retry(): RetryState {
    return this.#host.retries[this.#options.jobId] ?? FRESH;
  }

  #attemptRef(): Attempt {
    return {
      runId: this.#host.plan.runId,
      stage: this.#host.stage,
      jobId: this.#options.jobId,
      epoch: this.#epoch,
    };
  }

  async #release(members: GangMember[]): Promise<void> {
    if (this.#epoch > 0) await quick.releaseGang({ ...this.#attemptRef(), members });
  }

  #releaseBeside(members: GangMember[], attempt: Attempt): void {
    if (members.length === 0) return;
    const release = quick.releaseGang({ ...attempt, members }).catch((error: unknown) => {
      if (!isCancellation(error)) throw error;
    });
    this.#releases.add(release);
    void release.finally(() => this.#releases.delete(release));
  }
}

function sameProcess(a: GangMember, b: GangMember): boolean {
  return a.workerId === b.workerId && a.address === b.address;
}

/** An activity that failed for good becomes a failed attempt with the cause that the activity named. */
function failureOf(error: unknown, step: number): GangFailure {
  const cause = error instanceof ActivityFailure ? error.cause : error;
  if (!(cause instanceof ApplicationFailure) || cause.type == null || !CAUSES.has(cause.type)) throw error;
  const [worker] = cause.details ?? [];
  return {
    type: 'failed',
    cause: cause.type as FailureCause,
    message: cause.message,
    workerId: typeof worker === 'string' ? worker : null,
    rank: null,
    step,
    lastProgressAt: null,
    detectedAt: Date.now(),
    log: [],
  };
}

const CAUSES: ReadonlySet<string> = new Set<FailureCause>([
  'worker_lost',
  'worker_hung',
  'preempted',
  'peer_lost',
  'out_of_memory',
  'nan_loss',
  'bad_input',
  'corrupt_artifact',
  'store_unavailable',
  'nondeterminism',
  'internal',
  'no_workers',
]);
