/**
 * What every stage workflow shares: its view of pause, its progress, and how it runs one job to its end.
 *
 * 1. A job whose key has a result is answered from the store without touching a worker.
 * 2. The epoch of a job only grows; each new gang gets a new one, so a late call of an older attempt is refused.
 * 3. Whatever happens (failure, pause, cancellation), leases are given back, except when the stage continues as new:
 *    then the running attempt is carried over untouched.
 * 4. Budgets count failures without progress: a checkpoint beyond the last one resets them.
 */
import {
  ActivityFailure,
  ApplicationFailure,
  CancellationScope,
  ChildWorkflowFailure,
  ContinueAsNew,
  condition,
  continueAsNew,
  defineQuery,
  defineSignal,
  isCancellation,
  proxyActivities,
  setHandler,
  sleep,
  workflowInfo,
} from '@temporalio/workflow';

import type { Activities, Attempt, GangEvent } from './activity-contract.js';
import {
  DOMAIN_JOB_KINDS,
  DOMAIN_NUMERICS_CLASS,
  SET_PAUSED_SIGNAL,
  STAGE_STATUS_QUERY,
  type ActiveAttempt,
  type Digest,
  type FailureCause,
  type GangMember,
  type Incident,
  type JobKind,
  type JobProgress,
  type JobResult,
  type JobSpec,
  type JsonObject,
  type StageInput,
  type StageName,
  type StageResult,
} from './contract.js';

/** Failures in a row without progress before the run gives up. Bad input is never retried. */
const FAILURE_BUDGETS: Record<FailureCause, number> = {
  worker_lost: 8,
  peer_lost: 8,
  out_of_memory: 2,
  nan_loss: 1,
  bad_input: 0,
  corrupt_artifact: 3,
  store_unavailable: 3,
  nondeterminism: 0,
  internal: 2,
  no_workers: 0,
};
const BACKOFF_MS_MAX = 15_000;
const FULL_GANG_WAIT_SECONDS = 1;
const REPLACEMENT_WAIT_SECONDS = 4;

const quick = proxyActivities<Activities>({
  startToCloseTimeout: '60 s',
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

const setPausedSignal = defineSignal<[boolean]>(SET_PAUSED_SIGNAL);
const stageStatusQuery = defineQuery<StageResult>(STAGE_STATUS_QUERY);

/**
 * Runs a stage's body to its result. A failure carries what the stage had done and seen as its details, so that the run can
 * still show it.
 */
export async function runStage(
  name: StageName,
  input: StageInput,
  body: (stage: Stage) => Promise<void>,
): Promise<StageResult> {
  const stage = new Stage(name, input);
  const scope = new CancellationScope();
  try {
    await scope.run(() => body(stage));
    return stage.result();
  } catch (error) {
    // Jobs beside the one that failed are cancelled, and have given their workers back before the stage ends.
    scope.cancel();
    await CancellationScope.nonCancellable(() => stage.settled());
    if (isCancellation(error) || error instanceof ContinueAsNew) throw error;
    const root = rootCause(error);
    const type = root instanceof ApplicationFailure ? root.type : undefined;
    throw ApplicationFailure.create({
      message: root instanceof Error ? root.message : String(root),
      type: type ?? 'internal',
      nonRetryable: true,
      details: [stage.result()],
      ...(error instanceof Error ? { cause: error } : {}),
    });
  }
}

/** The innermost cause: what a person can act on. */
export function rootCause(error: unknown): unknown {
  let root = error;
  while ((root instanceof ChildWorkflowFailure || root instanceof ActivityFailure) && root.cause !== undefined) {
    root = root.cause;
  }
  return root;
}

export class Stage {
  readonly #input: StageInput;
  readonly #name: StageName;
  readonly #jobs: Record<string, JobResult> = {};
  readonly #underWay = new Set<Promise<JobResult>>();
  readonly #progress = new Map<string, JobProgress>();
  readonly #incidents: Incident[];
  readonly #epochs: Record<string, number>;
  #carriedActive: ActiveAttempt | null;
  #paused: boolean;

  constructor(name: StageName, input: StageInput) {
    this.#name = name;
    this.#input = input;
    this.#paused = input.paused;
    this.#incidents = [...(input.carried?.incidents ?? [])];
    this.#epochs = { ...(input.carried?.epochs ?? {}) };
    this.#carriedActive = input.carried?.active ?? null;
    setHandler(setPausedSignal, (paused) => {
      this.#paused = paused;
    });
    setHandler(stageStatusQuery, () => this.result());
  }

  get plan() {
    return this.#input.plan;
  }

  result(): StageResult {
    return { jobs: this.#jobs, progress: [...this.#progress.values()], incidents: this.#incidents };
  }

  /** Digest of an output of an earlier job of this stage or of the stages before. */
  output(jobName: string, output: string): Digest {
    const digest = this.job(jobName).outputs[output];
    if (digest === undefined) throw ApplicationFailure.nonRetryable(`job ${jobName} has no output ${output}`);
    return digest;
  }

  job(jobName: string): JobResult {
    const job = this.#jobs[jobName] ?? this.#input.jobs[jobName];
    if (job === undefined) throw ApplicationFailure.nonRetryable(`job ${jobName} has not run`);
    return job;
  }

  /** Resolves once no job of the stage is under way any more, and none that was carried over and never taken up. */
  async settled(): Promise<void> {
    await Promise.allSettled(this.#underWay);
    const active = this.#carriedActive;
    if (active === null) return;
    this.#carriedActive = null;
    const { jobId, epoch, members } = active;
    await quick.releaseGang({ runId: this.plan.runId, stage: this.#name, jobId, epoch, members });
  }

  /** Runs one job to its committed result, through as many gangs as it takes. */
  async run(request: JobRequest): Promise<JobResult> {
    const run = this.#run(request);
    this.#underWay.add(run);
    try {
      return await run;
    } finally {
      this.#underWay.delete(run);
    }
  }

  async #run(request: JobRequest): Promise<JobResult> {
    const { plan, pin } = this.#input;
    const isDomain = (DOMAIN_JOB_KINDS as readonly string[]).includes(request.kind);
    const spec: JobSpec = {
      kind: request.kind,
      recipe: request.recipe,
      inputs: request.inputs,
      numericsClass: isDomain ? DOMAIN_NUMERICS_CLASS : pin.numericsClass,
      engineRevision: pin.engineRevision,
    };
    const jobId = `${plan.runId}/${request.name}`;
    const done = this.#input.carried?.jobs?.[request.name];
    const active = this.#carriedActive?.jobId === jobId ? this.#carriedActive : null;
    let found: { key: Digest; result: JobResult | null };
    // An attempt that was carried over runs on: it is followed to its end, and a pause has to reach it.
    if (active !== null) found = { key: active.key, result: null };
    else if (done !== undefined) found = { key: done.key, result: done };
    else {
      await condition(() => !this.#paused);
      found = await quick.lookUpJob(spec);
    }
    const known = found.result;
    const progress: JobProgress = {
      kind: request.kind,
      key: found.key,
      epoch: this.#epochs[jobId] ?? 0,
      step: active?.checkpointStep ?? 0,
      stepsTotal: 0,
      checkpointStep: active?.checkpointStep ?? 0,
      workers: active?.members.map((member) => member.workerId) ?? [],
      memoised: known !== null,
    };
    this.#progress.set(request.name, progress);
    const result = known ?? (await this.#attemptUntilDone(request, spec, jobId, progress));
    this.#jobs[request.name] = result;
    return result;
  }

  /**
   * Runs independent jobs, `width` at a time. Between two windows a long history is continued as new: what is done
   * is answered from the store the second time.
   */
  async runAll(requests: JobRequest[], width: number): Promise<void> {
    for (let first = 0; first < requests.length; first += width) {
      if (this.#historyIsLong()) await this.#continueAsNew(null);
      await Promise.all(requests.slice(first, first + width).map((request) => this.run(request)));
    }
  }

  async #attemptUntilDone(
    request: JobRequest,
    spec: JobSpec,
    jobId: string,
    progress: JobProgress,
  ): Promise<JobResult> {
    const failures: Partial<Record<FailureCause, number>> = {};
    let bestStep = 0;
    for (;;) {
      if (this.#carriedActive?.jobId !== jobId) await condition(() => !this.#paused);
      const event = await this.#attempt(request, spec, jobId, progress);
      if (event.type === 'finished') return event.result;
      if (event.type !== 'failed') continue;
      if (progress.checkpointStep > bestStep) {
        bestStep = progress.checkpointStep;
        for (const cause of Object.keys(failures)) delete failures[cause as FailureCause];
      }
      const count = (failures[event.cause] ?? 0) + 1;
      failures[event.cause] = count;
      const incident: Incident = {
        stage: this.#name,
        jobKind: request.kind,
        cause: event.cause,
        message: event.message,
        workerId: event.workerId,
        epoch: progress.epoch,
        resumedFromStep: progress.checkpointStep,
      };
      this.#incidents.push(incident);
      await quick.recordIncident(this.plan.runId, incident);
      if (count > FAILURE_BUDGETS[event.cause]) {
        throw ApplicationFailure.nonRetryable(`${request.name}: ${event.message}`, event.cause);
      }
      if (count > 1) await sleep(Math.min(BACKOFF_MS_MAX, 250 * 2 ** count));
      // A worker may have been lost between its commit and its last word.
      const { result } = await quick.lookUpJob(spec);
      if (result !== null) return result;
    }
  }

  /** One gang from lease to end. */
  async #attempt(
    request: JobRequest,
    spec: JobSpec,
    jobId: string,
    progress: JobProgress,
  ): Promise<Exclude<GangEvent, { type: 'checkpoint' }>> {
    const { plan, pin } = this.#input;
    const carried = this.#carriedActive?.jobId === jobId ? this.#carriedActive : null;
    // Another job's attempt stays until that job comes for it.
    if (carried !== null) this.#carriedActive = null;
    const epoch = carried?.epoch ?? (this.#epochs[jobId] ?? 0) + 1;
    this.#epochs[jobId] = epoch;
    progress.epoch = epoch;
    const attempt: Attempt = { runId: plan.runId, stage: this.#name, jobId, epoch };
    let members: GangMember[] = carried?.members ?? [];
    let handedOver = false;
    try {
      if (carried === null) {
        members = await waiting.acquireGang({
          ...attempt,
          numericsClass: spec.numericsClass,
          engineRevision: pin.engineRevision,
          min: request.workersMax === 1 ? 1 : Math.min(plan.fleet.min, request.workersMax),
          max: request.workersMax,
          waitSeconds: plan.fleet.waitSeconds,
          // After a loss a replacement is often seconds away, and a smaller gang is slower to the end.
          fullGangWaitSeconds: epoch > 1 ? REPLACEMENT_WAIT_SECONDS : FULL_GANG_WAIT_SECONDS,
        });
        const { checkpointIntervalSteps } = request;
        const start = { ...attempt, members, key: progress.key, spec, checkpointIntervalSteps };
        progress.checkpointStep = (await quick.startGang(start)).resumedFromStep;
      } else {
        progress.checkpointStep = carried.checkpointStep;
      }
      progress.workers = members.map((member) => member.workerId);
      progress.step = progress.checkpointStep;
      for (;;) {
        const event = await this.#awaitOrPause(attempt, members, progress.checkpointStep);
        if (event.type !== 'checkpoint') {
          progress.step = Math.max(progress.step, event.step);
          if (event.type === 'finished') progress.stepsTotal = event.stepsTotal;
          if (event.type === 'stopped') progress.checkpointStep = Math.max(progress.checkpointStep, event.step);
          return event;
        }
        progress.checkpointStep = event.step;
        progress.step = event.step;
        progress.stepsTotal = event.stepsTotal;
        if (this.#historyIsLong() && !this.#paused) {
          handedOver = true;
          const active = { jobId, key: progress.key, epoch, members, checkpointStep: event.step };
          await this.#continueAsNew(active);
        }
      }
    } catch (error) {
      if (handedOver || isCancellation(error)) throw error;
      return failedEvent(error, progress.step);
    } finally {
      if (!handedOver) {
        await CancellationScope.nonCancellable(() => quick.releaseGang({ ...attempt, members }));
        progress.workers = [];
      }
    }
  }

  /** Waits for the next event; a pause meanwhile asks the gang to stop once, and the wait goes on until it has. */
  async #awaitOrPause(attempt: Attempt, members: GangMember[], afterStep: number): Promise<GangEvent> {
    const event = waiting.awaitGang({ ...attempt, members, afterStep });
    let settled = false;
    const observed = event.finally(() => {
      settled = true;
    });
    observed.catch(() => undefined);
    await condition(() => settled || this.#paused).catch((error: unknown) => {
      if (!isCancellation(error)) throw error;
    });
    if (!settled && this.#paused) await quick.stopGang({ ...attempt, members });
    return await observed;
  }

  /** False once cancelled: the execution that would follow never hears of a cancellation that came to this one. */
  #historyIsLong(): boolean {
    const isLong = workflowInfo().historyLength > this.plan.historyEventsMax;
    return isLong && !CancellationScope.current().consideredCancelled;
  }

  async #continueAsNew(active: ActiveAttempt | null): Promise<never> {
    const input: StageInput = {
      ...this.#input,
      paused: this.#paused,
      carried: {
        active,
        incidents: this.#incidents,
        epochs: this.#epochs,
        jobs: { ...this.#input.carried?.jobs, ...this.#jobs },
      },
    };
    return await continueAsNew<(input: StageInput) => Promise<StageResult>>(input);
  }
}

/** An activity that failed for good becomes a failed attempt with the cause that the activity named. */
function failedEvent(error: unknown, step: number): Exclude<GangEvent, { type: 'checkpoint' }> {
  const cause = error instanceof ActivityFailure ? error.cause : error;
  if (cause instanceof ApplicationFailure && cause.type != null && cause.type in FAILURE_BUDGETS) {
    const [worker] = cause.details ?? [];
    const workerId = typeof worker === 'string' ? worker : null;
    return { type: 'failed', cause: cause.type as FailureCause, message: cause.message, workerId, step };
  }
  throw error;
}
