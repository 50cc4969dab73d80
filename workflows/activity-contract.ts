/**
 * The activities as workflows see them. Implemented in `orchestrator/activities`; this file holds types only.
 *
 * 1. Every activity is idempotent: it may run twice, and a timed-out one may still be running beside its retry.
 * 2. What a job's end means is decided by workflows; activities report it as a value, never as a thrown error.
 */
import type {
  FailureCause,
  GangMember,
  Incident,
  JobResult,
  JobSpec,
  RunPin,
  RunPlan,
  RunResult,
  StageName,
} from './contract.js';

export interface JobLookUp {
  key: string;
  /** The committed result of this key, verified; null when it has to run. */
  result: JobResult | null;
}

/** An attempt at a job: what every mutating call carries. */
export interface Attempt {
  runId: string;
  stage: StageName;
  jobId: string;
  epoch: number;
}

export interface AcquireRequest extends Attempt {
  numericsClass: string;
  engineRevision: string;
  min: number;
  max: number;
  waitSeconds: number;
  /** With `min` workers free, how long to wait for up to `max` before the gang starts smaller. */
  fullGangWaitSeconds: number;
}

export interface StartRequest extends Attempt {
  members: GangMember[];
  key: string;
  spec: JobSpec;
  checkpointIntervalSteps: number;
}

export interface AwaitRequest extends Attempt {
  members: GangMember[];
  /** Answer at the first committed checkpoint beyond this step. */
  afterStep: number;
}

export type GangEvent =
  | { type: 'checkpoint'; step: number; stepsTotal: number }
  | { type: 'finished'; step: number; stepsTotal: number; result: JobResult }
  | { type: 'stopped'; step: number }
  | { type: 'failed'; cause: FailureCause; message: string; workerId: string | null; step: number };

export interface Activities {
  /** Chooses the numerics class of the run (the plan's, or that of the first worker by id) and the engine revision. */
  pinRun(plan: RunPlan): Promise<RunPin>;
  lookUpJob(spec: JobSpec): Promise<JobLookUp>;
  /** Leases between `min` and `max` workers, all or none. Fails with `no_workers` when too few have joined for `waitSeconds`. */
  acquireGang(request: AcquireRequest): Promise<GangMember[]>;
  /** Starts the job on every member from the newest good checkpoint; answers the step it goes on from. */
  startGang(request: StartRequest): Promise<{ resumedFromStep: number }>;
  /** Waits for the next checkpoint, the end or the failure of the attempt. Re-attaches when it is run again. */
  awaitGang(request: AwaitRequest): Promise<GangEvent>;
  /** Asks the gang to leave at the next step that all ranks agree on, after a checkpoint. */
  stopGang(request: Attempt & { members: GangMember[] }): Promise<void>;
  /** Aborts what still runs and gives every lease back. Never fails because a worker is gone. */
  releaseGang(request: Attempt & { members: GangMember[] }): Promise<void>;
  recordIncident(runId: string, incident: Incident): Promise<void>;
  recordRunState(runId: string, stage: StageName | null, state: string): Promise<void>;
  /** Switches serving to the published list; answers the generation's name. */
  publishGeneration(request: { plan: RunPlan; jobs: Record<string, JobResult> }): Promise<string>;
  /** Writes `runs/<id>/result.json` and answers it. */
  finishRun(request: {
    plan: RunPlan;
    pin: RunPin;
    jobs: Record<string, JobResult>;
    generation: string | null;
  }): Promise<RunResult>;
}
