/**
 * The run: one child workflow per stage, in order; pause, resume, scale, approve and status for people.
 *
 * 1. The run's workflow id is its run id. A stage's is `<run id>/<stage>`.
 * 2. Status answers from this workflow's own state, with every native worker down.
 * 3. Cancelling the run cancels the stage under way and waits until it has given its workers back; so does its time limit.
 * 4. A stage that finds an artifact of an earlier one damaged ends; the run then goes through its stages again. Whatever is
 *    whole is answered from the store, so only what is damaged, and what needs it, is made again.
 */
import {
  ApplicationFailure,
  ChildWorkflowCancellationType,
  CancellationScope,
  condition,
  defineQuery,
  defineSignal,
  defineUpdate,
  getExternalWorkflowHandle,
  isCancellation,
  patched,
  setHandler,
  sleep,
  startChild,
  type ChildWorkflowHandle,
} from '@temporalio/workflow';

import { quick, waiting } from './activities.js';
import {
  APPROVE_UPDATE,
  PAUSE_UPDATE,
  RESUME_UPDATE,
  SCALE_UPDATE,
  SET_FLEET_SIGNAL,
  SET_PAUSED_SIGNAL,
  STATUS_QUERY,
  stageWorkflowId,
  type Approval,
  type FleetLimits,
  type JobResult,
  type RunPin,
  type RunPlan,
  type RunResult,
  type RunStatus,
  type StageInput,
  type StageName,
  type StageResult,
} from './contract.js';
import { rootCause } from './stage.js';
import { addSeconds, Timeline, totalSeconds } from './timeline.js';

/** How often a run goes back to make damaged artifacts again before it says so and ends. */
const REBUILDS_MAX = 3;

const statusQuery = defineQuery<RunStatus>(STATUS_QUERY);
const pauseUpdate = defineUpdate<RunStatus>(PAUSE_UPDATE);
const resumeUpdate = defineUpdate<RunStatus>(RESUME_UPDATE);
const scaleUpdate = defineUpdate<RunStatus, [Partial<FleetLimits>]>(SCALE_UPDATE);
const approveUpdate = defineUpdate<RunStatus, [Approval]>(APPROVE_UPDATE);
const setPausedSignal = defineSignal<[boolean]>(SET_PAUSED_SIGNAL);
const setFleetSignal = defineSignal<[FleetLimits]>(SET_FLEET_SIGNAL);

type StageWorkflow = (input: StageInput) => Promise<StageResult>;

/** Stage name to workflow type, in the order in which they run. */
const STAGE_WORKFLOWS: [StageName, string][] = [
  ['ingest', 'ingestStage'],
  ['embed', 'embedStage'],
  ['align_tokens', 'alignTokensStage'],
  ['align_tasks', 'alignTasksStage'],
  ['evaluate', 'evaluateStage'],
  ['publish', 'publishStage'],
];

export async function runWorkflow(plan: RunPlan): Promise<RunResult> {
  return await new Run(plan).untilOver();
}

class Run {
  readonly #plan: RunPlan;
  readonly #stages: [StageName, string][];
  readonly #status: RunStatus;
  /** What no stage accounts for: waiting for approval, pauses between stages, the rest. */
  readonly #timeline = new Timeline({}, Date.now());
  readonly #work = new CancellationScope();
  #current: ChildWorkflowHandle<StageWorkflow> | null = null;
  #fleet: FleetLimits;
  #approval: Approval | null = null;
  #waitsForApproval = false;
  #timedOut = false;
  #stageStartedAt = 0;
  /** Results so far, for the report of a run that comes to none. */
  #jobs: Record<string, JobResult> = {};
  /** Of the stages that were gone through so far; see StageInput. */
  #epochs: Record<string, number> = {};

  constructor(plan: RunPlan) {
    this.#plan = plan;
    const { min, max, spares } = plan.fleet;
    this.#fleet = { min, max, spares };
    this.#stages = STAGE_WORKFLOWS.filter(([name]) => name !== 'publish' || plan.publish);
    this.#status = {
      runId: plan.runId,
      name: plan.name,
      state: 'running',
      numericsClass: plan.numericsClass,
      fleet: this.#fleet,
      stages: this.#stages.map(([name]) => ({ name, state: 'waiting', jobs: [] })),
      incidents: [],
      seconds: {},
      failure: null,
      result: null,
    };
    const validator = (): void => {
      this.#refuseWhenOver();
    };
    setHandler(statusQuery, () => this.#present());
    setHandler(pauseUpdate, () => this.#setPaused(true), { validator });
    setHandler(resumeUpdate, () => this.#setPaused(false), { validator });
    setHandler(scaleUpdate, (limits) => this.#scale(limits), {
      validator: (limits: Partial<FleetLimits>) => {
        validator();
        checkedLimits({ ...this.#fleet, ...limits });
      },
    });
    setHandler(approveUpdate, (approval) => this.#decide(approval), {
      validator: ({ approved }) => {
        validator();
        if (typeof approved !== 'boolean')
          throw ApplicationFailure.nonRetryable('expected { approved: true or false }');
        if (!this.#plan.approval) throw ApplicationFailure.nonRetryable('this run publishes without approval');
        if (this.#approval !== null) throw ApplicationFailure.nonRetryable('this has been decided already');
      },
    });
  }

  async untilOver(): Promise<RunResult> {
    const { runId, limits } = this.#plan;
    const limit = new CancellationScope();
    if (limits.runSeconds !== null) {
      const { runSeconds } = limits;
      void limit
        .run(() => sleep(runSeconds * 1000))
        .then(() => {
          this.#timedOut = true;
          this.#work.cancel();
        })
        .catch(() => undefined);
    }
    try {
      return await this.#work.run(() => this.#run());
    } catch (error) {
      const failure = this.#timedOut && isCancellation(error) ? this.#timeLimitFailure() : error;
      await this.#end(failure);
      throw failure;
    } finally {
      limit.cancel();
      await CancellationScope.nonCancellable(async () => {
        await quick.recordSeconds(runId, this.#present().seconds);
        // Runs of earlier versions, which are replayed, had none.
        if (patched('run-report')) await this.#writeReport();
      });
    }
  }

  /** Of a run that has a result, that names the jobs: told once, they are half the size. */
  async #writeReport(): Promise<void> {
    const status = this.#present();
    await quick.writeReport({ plan: this.#plan, status, jobs: status.result === null ? this.#jobs : {} });
  }

  async #run(): Promise<RunResult> {
    const plan = this.#plan;
    this.#cancelStageWithRun();
    await quick.recordRunState(plan.runId, null, 'running');
    const pin = await waiting.pinRun(plan);
    this.#status.numericsClass = pin.numericsClass;
    const { jobs, generation } = await this.#compute(pin);
    this.#status.result = await quick.finishRun({ plan, pin, jobs, generation });
    this.#status.seconds = this.#present().seconds;
    this.#status.state = 'done';
    await quick.recordRunState(plan.runId, null, 'done');
    return this.#status.result;
  }

  /** All stages and the publication, again from the first stage where an artifact turns out to be damaged. */
  async #compute(pin: RunPin): Promise<{ jobs: Record<string, JobResult>; generation: string | null }> {
    const plan = this.#plan;
    for (let rebuilds = 0; ; rebuilds++) {
      const jobs: Record<string, JobResult> = {};
      try {
        for (const [name, workflowType] of this.#stages) await this.#runStage(name, workflowType, pin, jobs);
        const publishes = plan.publish && (await this.#approved());
        const generation = publishes ? await waiting.publishGeneration({ plan, jobs, epoch: Date.now() }) : null;
        return { jobs, generation };
      } catch (error) {
        const root = rootCause(error);
        const damaged = root instanceof ApplicationFailure && root.type === 'corrupt_artifact';
        if (!damaged || rebuilds === REBUILDS_MAX) throw error;
        this.#takePartial(error, 'waiting');
        await quick.recordNote(plan.runId, `going through the stages again: ${root.message}`);
      }
    }
  }

  async #runStage(name: StageName, workflowType: string, pin: RunPin, jobs: Record<string, JobResult>): Promise<void> {
    const plan = this.#plan;
    if (this.#status.state === 'paused') {
      this.#timeline.set('run', 'paused', Date.now());
      await condition(() => this.#status.state !== 'paused');
      this.#timeline.set('run', null, Date.now());
    }
    const stage = this.#status.stages.find((candidate) => candidate.name === name);
    if (stage === undefined) throw new Error(`the status has no stage ${name}`);
    stage.state = 'running';
    await quick.recordRunState(plan.runId, name, 'running');
    const secondsBefore = this.#present().seconds;
    const input: StageInput = {
      plan,
      pin,
      jobs,
      paused: false,
      fleet: this.#fleet,
      epochs: this.#epochs,
      secondsBefore,
      carried: null,
    };
    this.#timeline.pause(Date.now());
    this.#stageStartedAt = Date.now();
    try {
      this.#current = await startChild<StageWorkflow>(workflowType, {
        workflowId: stageWorkflowId(plan.runId, name),
        args: [input],
        cancellationType: ChildWorkflowCancellationType.WAIT_CANCELLATION_COMPLETED,
        parentClosePolicy: 'REQUEST_CANCEL',
      });
      // What came while the child was being started.
      if (this.#status.state === 'paused') await this.#tellStage(setPausedSignal, true);
      if (input.fleet !== this.#fleet) await this.#tellStage(setFleetSignal, this.#fleet);
      const result = await this.#current.result();
      Object.assign(jobs, result.jobs);
      this.#jobs = { ...this.#jobs, ...result.jobs };
      this.#epochs = { ...this.#epochs, ...result.epochs };
      stage.jobs = result.progress;
      this.#status.incidents.push(...result.incidents);
      this.#addStageSeconds(result);
      stage.state = 'done';
    } finally {
      this.#current = null;
      this.#timeline.goOn(Date.now());
    }
    await quick.recordRunState(plan.runId, name, 'done');
    await quick.recordSeconds(plan.runId, this.#present().seconds);
  }

  /** What the stage accounts for; the rest between its start and its end is orchestration. */
  #addStageSeconds({ seconds }: Pick<StageResult, 'seconds'>): void {
    const rest = Math.max(0, (Date.now() - this.#stageStartedAt) / 1000 - totalSeconds(seconds));
    this.#status.seconds = addSeconds(addSeconds(this.#status.seconds, seconds), { orchestration: rest });
  }

  async #approved(): Promise<boolean> {
    if (!this.#plan.approval) return true;
    if (this.#approval === null) {
      this.#waitsForApproval = true;
      // A run that was paused meanwhile stays so, and its decision is acted on when it is resumed.
      if (this.#status.state === 'running') this.#status.state = 'waiting_for_approval';
      await quick.recordRunState(this.#plan.runId, null, this.#status.state);
      this.#timeline.set('run', 'approval', Date.now());
      await condition(() => this.#approval !== null && this.#status.state !== 'paused');
      this.#timeline.set('run', null, Date.now());
      this.#waitsForApproval = false;
      this.#status.state = 'running';
    }
    const approval = this.#approval;
    const word = approval?.approved === true ? 'publication approved' : 'publication rejected';
    await quick.recordNote(this.#plan.runId, approval?.note ? `${word}: ${approval.note}` : word);
    return approval?.approved === true;
  }

  async #decide(approval: Approval): Promise<RunStatus> {
    this.#approval = approval;
    await quick.recordNote(
      this.#plan.runId,
      `${approval.approved ? 'approval' : 'rejection'} of the publication received`,
    );
    return this.#present();
  }

  async #setPaused(paused: boolean): Promise<RunStatus> {
    const unpaused = this.#waitsForApproval && this.#approval === null ? 'waiting_for_approval' : 'running';
    this.#status.state = paused ? 'paused' : unpaused;
    await this.#tellStage(setPausedSignal, paused);
    await quick.recordRunState(this.#plan.runId, null, this.#status.state);
    return this.#present();
  }

  async #scale(limits: Partial<FleetLimits>): Promise<RunStatus> {
    this.#fleet = checkedLimits({ ...this.#fleet, ...limits });
    this.#status.fleet = this.#fleet;
    await this.#tellStage(setFleetSignal, this.#fleet);
    const { min, max, spares } = this.#fleet;
    const words = `gangs of ${String(min)} to ${String(max)} workers from now on, ${String(spares)} left as spares`;
    await quick.recordNote(this.#plan.runId, words);
    return this.#present();
  }

  /** The status with the time up to now; that of a stage under way is with the stage. */
  #present(): RunStatus {
    const status = this.#status;
    return this.#isOver()
      ? status
      : { ...status, seconds: addSeconds(status.seconds, this.#timeline.seconds(Date.now())) };
  }

  #isOver(): boolean {
    const { state } = this.#status;
    return state === 'done' || state === 'failed' || state === 'cancelled';
  }

  async #tellStage<Arg>(signal: ReturnType<typeof defineSignal<[Arg]>>, value: Arg): Promise<void> {
    try {
      await this.#current?.signal(signal, value);
    } catch (error) {
      // The stage has just ended; the next one is started with what holds now.
      if (isCancellation(error)) throw error;
    }
  }

  #refuseWhenOver(): void {
    if (!this.#isOver()) return;
    const { state } = this.#status;
    throw ApplicationFailure.nonRetryable(`run ${this.#plan.runId} is ${state}; only a run under way can be changed`);
  }

  /**
   * A child's own cancellation names its first execution, which is over once the stage has continued as new; by workflow id
   * the present one is reached.
   */
  #cancelStageWithRun(): void {
    CancellationScope.current().cancelRequested.catch(async () => {
      const running = this.#status.stages.find((stage) => stage.state === 'running');
      if (running === undefined) return;
      await CancellationScope.nonCancellable(() =>
        getExternalWorkflowHandle(stageWorkflowId(this.#plan.runId, running.name)).cancel(),
      ).catch(() => undefined);
    });
  }

  #timeLimitFailure(): ApplicationFailure {
    const running = this.#status.stages.find((stage) => stage.state === 'running');
    const where = running === undefined ? '' : ` in stage ${running.name}`;
    return ApplicationFailure.nonRetryable(
      `the time limit of ${String(this.#plan.limits.runSeconds)} s was reached${where}; raise limits.runSeconds and run ` +
        'the file again: what is done is answered from the store',
      'time_limit',
    );
  }

  /** The end of a run that did not come to its result. */
  async #end(error: unknown): Promise<void> {
    const status = this.#status;
    const cancelled = isCancellation(error);
    const state = cancelled ? 'cancelled' : 'failed';
    const root = rootCause(error);
    this.#takePartial(error, state);
    status.seconds = this.#present().seconds;
    status.state = state;
    status.failure = cancelled ? null : root instanceof Error ? root.message : String(root);
    await CancellationScope.nonCancellable(() => quick.recordRunState(this.#plan.runId, null, state, status.failure));
  }

  /** What the stage under way had done and seen before it failed. */
  #takePartial(error: unknown, state: 'waiting' | 'failed' | 'cancelled'): void {
    const running = this.#status.stages.find((stage) => stage.state === 'running');
    if (running === undefined) return;
    const partial = partialResult(error);
    running.state = state;
    running.jobs = partial?.progress ?? [];
    this.#epochs = { ...this.#epochs, ...partial?.epochs };
    this.#jobs = { ...this.#jobs, ...partial?.jobs };
    this.#status.incidents.push(...(partial?.incidents ?? []));
    this.#addStageSeconds(partial ?? { seconds: {} });
  }
}

function checkedLimits(limits: FleetLimits): FleetLimits {
  const { min, max, spares } = limits;
  const whole = [min, max, spares].every((value) => Number.isSafeInteger(value) && value >= 0);
  if (!whole || min < 1 || max < min) {
    throw ApplicationFailure.nonRetryable(
      `expected whole numbers with 1 <= min <= max and spares >= 0, got min ${String(min)}, max ${String(max)}, ` +
        `spares ${String(spares)}`,
      'bad_input',
    );
  }
  return limits;
}

/** What a failed stage had done and seen, from its failure's details. */
function partialResult(error: unknown): StageResult | null {
  const root = rootCause(error);
  const details = root instanceof ApplicationFailure ? (root.details?.[0] as StageResult | undefined) : undefined;
  return details?.incidents === undefined ? null : details;
}
