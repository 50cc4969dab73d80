/**
 * The activities as workflows see them. Implemented in `orchestrator/activities`; this file holds types only.
 *
 * 1. Every activity is idempotent: it may run twice, and a timed-out one may still be running beside its retry.
 * 2. What a job's end means is decided by workflows; activities report it as a value, never as a thrown error.
 */
import type {
  Digest,
  FailureCause,
  GangMember,
  Incident,
  JobResult,
  JobSpec,
  RunPin,
  RunPlan,
  RunResult,
  RunSeconds,
  RunStatus,
  StageName,
  TimelineSnapshot,
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
  /** Free workers to leave alone, as far as `min` allows. */
  spares: number;
  /** Members of the attempt before, in rank order: they may hold the job's state, and come first. */
  keep: GangMember[];
  /** Workers of `keep` that the job failed on or waited for: not taken again while others will do. */
  avoid: string[];
  waitSeconds: number;
  /** With `min` workers free, how long to wait for up to `max` before the gang starts smaller. */
  fullGangWaitSeconds: number;
}

export interface Acquired {
  /** In rank order: those that hold state first. */
  members: GangMember[];
  /** Unix milliseconds of the first granted lease. */
  fencedAt: number;
}

export interface StartRequest extends Attempt {
  members: GangMember[];
  key: string;
  spec: JobSpec;
  checkpointIntervalSteps: number;
  checkpointsKept: number;
  memorySaving: 0 | 1 | 2;
  /** Present: a part of the job is computed again, to be compared; nothing is published. */
  rerun?: Rerun;
}

export interface Rerun {
  /** Null: from the beginning. */
  from: { step: number; manifestDigest: Digest } | null;
  /** Stops there with a checkpoint; 0: to the end. */
  untilStep: number;
}

export interface AwaitRequest extends Attempt {
  members: GangMember[];
  /** Answer at the first committed checkpoint beyond this step. */
  afterStep: number;
  /** Answer also once the first step is done. */
  untilFirstStep: boolean;
  /** Answer also once so many workers could be had, the members included, while `spares` stay free; null: never. */
  growTo: number | null;
  spares: number;
  /** Workers that the gang is not to grow by. */
  avoid: string[];
  /** Answer also once one member is far slower than all others and a free worker could take its place. */
  replaceStragglers: boolean;
  numericsClass: string;
  engineRevision: string;
  stallSeconds: number;
}

export interface GangFailure {
  type: 'failed';
  cause: FailureCause;
  message: string;
  workerId: string | null;
  rank: number | null;
  /** Last step that was reported. */
  step: number;
  /** Unix milliseconds. */
  lastProgressAt: number | null;
  detectedAt: number;
  /** The last lines that the worker logged. */
  log: string[];
}

export type GangEvent =
  /** Every rank has its state and the first step is done; Unix milliseconds. */
  | { type: 'first_step'; step: number; restoredAt: number; firstStepAt: number }
  | { type: 'checkpoint'; step: number; stepsTotal: number }
  /** So many workers could be had, the members included. */
  | { type: 'workers_free'; count: number }
  /** The gang runs on, at the pace of one member. */
  | { type: 'straggler'; seen: GangFailure }
  | { type: 'finished'; step: number; stepsTotal: number; result: JobResult }
  /** `manifestDigest` is that of the checkpoint that was written there; null when none was told. */
  | { type: 'stopped'; step: number; manifestDigest: Digest | null }
  /** Left the gang because it was asked to; every member waits with its state. */
  | { type: 'parked'; step: number }
  | GangFailure;

/** What waits also keeps the metrics of the run's time current meanwhile: that costs no history. */
export interface Timed {
  /** Null for what is no part of the run's time. */
  timeline: TimelineSnapshot | null;
}

export interface Activities {
  /** Chooses the numerics class of the run (the plan's, or that of the first worker by id) and the engine revision. */
  pinRun(plan: RunPlan): Promise<RunPin>;
  lookUpJob(spec: JobSpec): Promise<JobLookUp>;
  /**
   * Leases between `min` and `max` workers, all or none. Fails with `no_workers` when too few have joined for `waitSeconds`.
   * Members of `keep` that are not in the new gang still have the old attempt's lease.
   */
  acquireGang(request: AcquireRequest & Timed): Promise<Acquired>;
  /**
   * Starts the job on every member: from the furthest state that a member holds, else from the newest good checkpoint.
   * Answers the step it goes on from.
   */
  startGang(request: StartRequest): Promise<{ resumedFromStep: number }>;
  /** Waits for the next checkpoint, the end or the failure of the attempt. Re-attaches when it is run again. */
  awaitGang(request: AwaitRequest & Timed): Promise<GangEvent>;
  /** Asks the gang to leave at the next step that all ranks agree on, after a checkpoint. */
  stopGang(request: Attempt & { members: GangMember[] }): Promise<void>;
  /** Asks the gang to leave at the next step that all ranks agree on, every member keeping its state. */
  regroupGang(request: Attempt & { members: GangMember[] }): Promise<void>;
  /** Aborts what still runs and gives every lease back. Never fails because a worker is gone. */
  releaseGang(request: Attempt & { members: GangMember[] }): Promise<void>;
  /** Waits until the store takes writes again. */
  awaitStore(): Promise<void>;
  /** Writes the incident to the run's journal and metrics: once when it is seen, once when it is over. */
  recordIncident(runId: string, incident: Incident, state: 'opened' | 'closed'): Promise<void>;
  /** A line in the run's events. */
  recordNote(runId: string, note: string): Promise<void>;
  recordSeconds(runId: string, seconds: RunSeconds): Promise<void>;
  /** `failure`: why a run that failed did. */
  recordRunState(runId: string, stage: StageName | null, state: string, failure?: string | null): Promise<void>;
  /** Switches serving to the published list; answers the generation's name. */
  /** Refused when a publication with a higher epoch came before. */
  publishGeneration(request: { plan: RunPlan; jobs: Record<string, JobResult>; epoch: number }): Promise<string>;
  /** Writes `runs/<id>/result.json` and answers it. */
  finishRun(request: {
    plan: RunPlan;
    pin: RunPin;
    jobs: Record<string, JobResult>;
    generation: string | null;
  }): Promise<RunResult>;
  /** Writes `runs/<id>/report.html` for people. Never fails: what kept it from being written is a line in the run's events. */
  writeReport(request: { plan: RunPlan; status: RunStatus; jobs: Record<string, JobResult> }): Promise<void>;
}
