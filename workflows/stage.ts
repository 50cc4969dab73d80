/**
 * What every stage workflow shares: its view of pause and fleet, its progress, and how it runs one job to its end.
 *
 * 1. A job whose key has a result is answered from the store without touching a worker.
 * 2. Everything that has to outlive a long history (epochs, retries, incidents, seconds, the running attempt) is carried when
 *    the stage continues as new.
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
  setHandler,
  workflowInfo,
} from '@temporalio/workflow';

import {
  DOMAIN_JOB_KINDS,
  DOMAIN_NUMERICS_CLASS,
  SET_FLEET_SIGNAL,
  SET_PAUSED_SIGNAL,
  STAGE_STATUS_QUERY,
  type ActiveAttempt,
  type Digest,
  type FleetLimits,
  type Incident,
  type JobProgress,
  type JobResult,
  type JobSpec,
  type RetryState,
  type StageInput,
  type StageName,
  type StageResult,
} from './contract.js';
import { quick } from './activities.js';
import { GangJob, type GangJobHost, type JobRequest } from './gang-job.js';
import { Timeline } from './timeline.js';

const setPausedSignal = defineSignal<[boolean]>(SET_PAUSED_SIGNAL);
const setFleetSignal = defineSignal<[FleetLimits]>(SET_FLEET_SIGNAL);
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
  readonly #retries: Record<string, RetryState>;
  readonly #timeline: Timeline;
  #carriedActive: ActiveAttempt | null;
  #paused: boolean;
  #fleet: FleetLimits;

  constructor(name: StageName, input: StageInput) {
    this.#name = name;
    this.#input = input;
    this.#paused = input.paused;
    this.#fleet = input.fleet;
    this.#incidents = [...(input.carried?.incidents ?? [])];
    this.#epochs = { ...(input.carried?.epochs ?? input.epochs) };
    this.#retries = { ...(input.carried?.retries ?? {}) };
    this.#timeline = new Timeline(input.carried?.seconds ?? {}, input.carried?.atMs ?? Date.now());
    this.#carriedActive = input.carried?.active ?? null;
    setHandler(setPausedSignal, (paused) => {
      this.#paused = paused;
    });
    setHandler(setFleetSignal, (fleet) => {
      this.#fleet = fleet;
    });
    setHandler(stageStatusQuery, () => this.result());
  }

  get plan() {
    return this.#input.plan;
  }

  result(): StageResult {
    return {
      jobs: this.#jobs,
      progress: [...this.#progress.values()],
      incidents: this.#incidents,
      seconds: this.#timeline.seconds(Date.now()),
      epochs: this.#epochs,
    };
  }

  /** Digest of an output of an earlier job of this stage or of the stages before. */
  output(jobName: string, output: string): Digest {
    const digest = this.job(jobName).outputs[output];
    if (digest === undefined) throw ApplicationFailure.nonRetryable(`job ${jobName} has no output ${output}`);
    return digest;
  }

  /** The same, as a function. */
  readonly outputOf = (jobName: string, output: string): Digest => this.output(jobName, output);

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
    const done = this.#input.carried?.jobs[request.name];
    const active = this.#carriedActive?.jobId === jobId ? this.#carriedActive : null;
    let found: { key: Digest; result: JobResult | null };
    // An attempt that was carried over runs on: it is followed to its end, and a pause has to reach it.
    if (active !== null) found = { key: active.key, result: null };
    else if (done !== undefined) found = { key: done.key, result: done };
    else {
      await this.#untilResumed(request.name);
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
      blocked: null,
    };
    this.#progress.set(request.name, progress);
    if (active !== null) this.#carriedActive = null;
    const result = known ?? (await new GangJob(this.#host(), { request, spec, jobId, progress }).untilDone(active));
    this.#jobs[request.name] = result;
    return result;
  }

  async #untilResumed(job: string): Promise<void> {
    if (!this.#paused) return;
    this.#timeline.set(job, 'paused', Date.now());
    await condition(() => !this.#paused);
    this.#timeline.set(job, null, Date.now());
  }

  #host(): GangJobHost {
    const { plan, pin, secondsBefore } = this.#input;
    return {
      plan,
      pin,
      stage: this.#name,
      timeline: this.#timeline,
      secondsOfRun: () => this.#timeline.snapshot(secondsBefore, Date.now()),
      isPaused: () => this.#paused,
      fleet: () => this.#fleet,
      nextEpoch: (jobId) => (this.#epochs[jobId] = (this.#epochs[jobId] ?? 0) + 1),
      retries: this.#retries,
      incidents: this.#incidents,
      // One attempt can be carried over: while others are under way beside it, the history goes on.
      historyIsLong: () => this.#underWay.size <= 1 && this.#historyIsLong(),
      continueAsNew: (active) => this.#continueAsNew(active),
    };
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

  /** False once cancelled: the execution that would follow never hears of a cancellation that came to this one. */
  #historyIsLong(): boolean {
    const isLong = workflowInfo().historyLength > this.plan.historyEventsMax;
    return isLong && !CancellationScope.current().consideredCancelled;
  }

  async #continueAsNew(active: ActiveAttempt | null): Promise<never> {
    const atMs = Date.now();
    const input: StageInput = {
      ...this.#input,
      paused: this.#paused,
      fleet: this.#fleet,
      carried: {
        active,
        incidents: this.#incidents,
        epochs: this.#epochs,
        retries: this.#retries,
        seconds: this.#timeline.seconds(atMs),
        atMs,
        jobs: { ...this.#input.carried?.jobs, ...this.#jobs },
      },
    };
    return await continueAsNew<(input: StageInput) => Promise<StageResult>>(input);
  }
}
