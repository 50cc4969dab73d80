/**
 * What workflows, activities, workers and the command line agree on: JSON-safe types and message names.
 *
 * 1. Everything here survives JSON.parse(JSON.stringify(x)): no Map, Date, bigint, undefined-valued fields.
 * 2. No imports but types, so that workflow code can load it.
 */

export type Json = null | boolean | number | string | Json[] | { [key: string]: Json };
export interface JsonObject {
  [key: string]: Json;
}

/** Lower-case hex SHA-256 of a file's bytes; the file is `objects/<digest>` in the artifact store. */
export type Digest = string;

export const DOMAIN_JOB_KINDS = [
  'simulate',
  'ingest',
  'carry_ids',
  'text_vectors',
  'text_tokens',
  'render',
  'fit_fusion',
  'fuse',
  'evaluate',
  'assemble',
] as const;
export const NATIVE_JOB_KINDS = [
  'dccf',
  'embed_text',
  'rqvae',
  'codebooks',
  'align_codes',
  'tune',
  'rank',
  'dense',
  'rank_dense',
] as const;
export type DomainJobKind = (typeof DOMAIN_JOB_KINDS)[number];
export type NativeJobKind = (typeof NATIVE_JOB_KINDS)[number];
export type JobKind = DomainJobKind | NativeJobKind;

/** Numerics class of domain jobs: plain ECMAScript arithmetic, the same on every machine. */
export const DOMAIN_NUMERICS_CLASS = 'js';

/** A job is a pure function of this. Its key is the SHA-256 of the canonical JSON (RFC 8785) of all five fields. */
export interface JobSpec {
  kind: JobKind;
  recipe: JsonObject;
  /** Input name (native/JOBS.md) to file digest. */
  inputs: Record<string, Digest>;
  numericsClass: string;
  engineRevision: string;
}

export interface JobResult {
  key: string;
  outputs: Record<string, Digest>;
  /** Small numbers for reports; a function of the key, like the outputs. */
  summary: JsonObject;
}

/** `FailureCause` of proto/collimate/v1/common.proto without its prefix, in lower case, plus the orchestrator's own. */
export type FailureCause =
  | 'worker_lost'
  | 'worker_hung'
  | 'preempted'
  | 'straggler'
  | 'peer_lost'
  | 'out_of_memory'
  | 'device_lost'
  | 'nan_loss'
  | 'bad_input'
  | 'corrupt_artifact'
  | 'store_unavailable'
  | 'nondeterminism'
  | 'internal'
  | 'no_workers';

export const STAGES = ['ingest', 'embed', 'align_tokens', 'align_tasks', 'evaluate', 'publish'] as const;
export type StageName = (typeof STAGES)[number];
export type StageState = 'waiting' | 'running' | 'paused' | 'done' | 'failed' | 'cancelled';

/** Sizes of one gang. Never part of a result. */
export interface FleetLimits {
  /** With fewer workers a job waits. */
  min: number;
  max: number;
  /** Free workers that a gang leaves alone when it forms or grows, so that a lost member is replaced at once. */
  spares: number;
}

/** Semantic ids of an earlier run that stay while items come and go. */
export interface EarlierIds {
  runId: string;
  /** Its outputs `codes` and `catalogue`: which item has which id. */
  codes: Digest;
  catalogue: Digest;
  /** What it took over from a run before it; null: nothing. */
  published: Digest | null;
  /** Where its codes lie in the space of the texts; null: it had no alignment. */
  aligned: Digest | null;
}

/** Everything a run is, resolved: no defaults left to fill in. Made by the command line from the run file. */
export interface RunPlan {
  runId: string;
  name: string;
  /** Null: the class of the first worker that is free when the run starts, pinned from then on. */
  numericsClass: string | null;
  /** Raw files, already in the store; empty for the simulated shop. */
  inputs: Record<string, Digest>;
  recipes: {
    /** kind `simulate` first when present; its outputs are then the inputs of `ingest`. */
    simulate: JsonObject | null;
    ingest: JsonObject;
    dccf: JsonObject;
    /** Null: no text vectors of this kind; without `embedText` codes come from the collaborative vectors alone. */
    textVectors: JsonObject | null;
    /** Not null: text vectors come from the base model, `textVectors` is null. Absent in plans of earlier versions. */
    embedText?: JsonObject | null;
    codebooks: JsonObject;
    /** Null, or absent in plans of earlier versions: the item vectors themselves are clustered. */
    rqvae?: JsonObject | null;
    /** Null, or absent in plans of earlier versions: codes are those of the clustering. */
    alignment?: JsonObject | null;
    render: JsonObject;
    tune: JsonObject;
    /** Without `first` and `count`, which the fan-out adds. */
    rank: JsonObject;
    /** The dense sequence model beside the language model; `seeds` of them. Null: none. */
    dense: JsonObject | null;
    evaluate: JsonObject;
    /** How several sources become the published list; null: the model's own lists are published. */
    fusion: JsonObject | null;
    assemble: JsonObject;
  };
  /**
   * Files of a Hugging Face base (`base/config.json`, `base/…safetensors`, …) and of the adapter that tuning starts from, if any
   * (`adapter/…`); empty for `scratch`.
   */
  baseFiles: Record<string, Digest>;
  /** Null, or absent in plans of earlier versions: ids are made anew. */
  earlierIds?: EarlierIds | null;
  fleet: FleetLimits & {
    /** How long a job waits for `min` free workers before the run fails with `no_workers`. */
    waitSeconds: number;
  };
  limits: {
    /** The run fails after this time; null: never. Time spent paused or waiting for approval counts. */
    runSeconds: number | null;
    /** A gang whose workers answer but take no step for so long is hung, whatever its steps took before. */
    stallSeconds: number;
  };
  checkpointIntervalSteps: { dccf: number; codebooks: number; tune: number; dense: number };
  /** Newest checkpoints that stay of a job. */
  checkpointsKept: number;
  /** A stage continues as new once its history holds so many events; far below Temporal's limit of 51,200. */
  historyEventsMax: number;
  /** Prompts per rank shard. Part of the result (shards are jobs), so it never follows the fleet. */
  rankShardPrompts: number;
  publish: boolean;
  /** Publishing waits until a person has approved it. */
  approval: boolean;
}

/** When a recovery reached which point, in Unix milliseconds; null for what it has not reached. */
export interface RecoveryPhases {
  /** The last sign of progress before the failure. */
  lastProgress: number | null;
  detected: number;
  /** A higher epoch is granted by the first worker: nothing of the old attempt can act any more. */
  fenced: number | null;
  /** The next gang is leased. */
  rescheduled: number | null;
  /** Every rank has its state. */
  restored: number | null;
  firstStep: number | null;
}

export interface Incident {
  /** `<job name>#<epoch of the attempt that failed>`. */
  id: string;
  stage: StageName;
  job: string;
  jobKind: JobKind;
  cause: FailureCause;
  message: string;
  /** Worker that failed or was lost, and its rank; null when unknown. */
  workerId: string | null;
  rank: number | null;
  epoch: number;
  /** What the workflow did about it. */
  action: string;
  /** Step at which the attempt failed, and the one that the next goes on from: the difference is computed again. */
  failedAtStep: number;
  resumedFromStep: number;
  phases: RecoveryPhases;
  /** The last lines that the worker logged. */
  log: string[];
}

/**
 * Where the time of a run went, in seconds by purpose; they add up to its wall clock. `work` is goodput: steps that were not
 * computed again. `recovery` and `repeated` are followed by the cause: `recovery:worker_lost`.
 */
export type RunSeconds = Record<string, number>;

/** Where a run's time had gone at a moment, and what it is spent on from then on. */
export interface TimelineSnapshot {
  seconds: RunSeconds;
  purpose: string;
  /** Unix milliseconds. */
  atMs: number;
}

export interface JobProgress {
  kind: JobKind;
  key: string;
  epoch: number;
  step: number;
  stepsTotal: number;
  checkpointStep: number;
  workers: string[];
  /** Answered from the store without running. */
  memoised: boolean;
  /** Why the job stands still, for example a full store; null while it does not. */
  blocked: string | null;
}

export interface StageStatus {
  name: StageName;
  state: StageState;
  jobs: JobProgress[];
}

export interface RunStatus {
  runId: string;
  name: string;
  state: 'running' | 'paused' | 'waiting_for_approval' | 'done' | 'failed' | 'cancelled';
  numericsClass: string | null;
  /** What its gangs keep to now. */
  fleet: FleetLimits;
  stages: StageStatus[];
  incidents: Incident[];
  seconds: RunSeconds;
  /** Message of the failure that ended the run; null otherwise. */
  failure: string | null;
  result: RunResult | null;
}

export interface RunResult {
  runId: string;
  numericsClass: string;
  engineRevision: string;
  /** SHA-256 over the stages' output digests and the published list; see `resultDigestOf`. */
  resultDigest: Digest;
  /** `<job kind>` or `<job kind>/<shard>` to its result. */
  jobs: Record<string, JobResult>;
  /** Generation that serving switched to; null when `publish` is off, or was rejected. */
  generation: string | null;
}

/** Pinned once per run by the first activity, then part of every job key. */
export interface RunPin {
  numericsClass: string;
  engineRevision: string;
}

/** What a stage hands to the run: results by `<job kind>` or `<job kind>/<shard>`, and what went wrong on the way. */
export interface StageResult {
  jobs: Record<string, JobResult>;
  progress: JobProgress[];
  incidents: Incident[];
  seconds: RunSeconds;
  /** By job id, the highest epoch so far: a stage that is gone through again has to go on above it. */
  epochs: Record<string, number>;
}

/** What a job's failures so far mean for the next one. */
export interface RetryState {
  /** Failures by cause since the job last made progress. */
  failures: Partial<Record<FailureCause, number>>;
  /** Furthest step that an attempt had when it failed. */
  bestStep: number;
  memorySaving: 0 | 1 | 2;
  /** Step at which the loss was last not finite; null when it never was. */
  nanAtStep: number | null;
}

/** Carried by a stage through continue-as-new: the attempt that is running and must not be disturbed. */
export interface ActiveAttempt {
  jobId: string;
  key: string;
  epoch: number;
  members: GangMember[];
  checkpointStep: number;
}

export interface StageInput {
  plan: RunPlan;
  pin: RunPin;
  /** Results of the stages before, by name. */
  jobs: Record<string, JobResult>;
  paused: boolean;
  fleet: FleetLimits;
  /** By job id, the highest epoch that an earlier go at this stage had. */
  epochs: Record<string, number>;
  /** Of the run before this stage. */
  secondsBefore: RunSeconds;
  carried: {
    active: ActiveAttempt | null;
    incidents: Incident[];
    epochs: Record<string, number>;
    retries: Record<string, RetryState>;
    seconds: RunSeconds;
    /** Up to when `seconds` counts, in Unix milliseconds. */
    atMs: number;
    /** Results of this stage so far: looked up again, many shards would fill a history before anything new is done. */
    jobs: Record<string, JobResult>;
  } | null;
}

export interface GangMember {
  workerId: string;
  /** host:port of the worker's gRPC service. */
  address: string;
  /** Updates applied in the state of the job that the worker holds from an earlier attempt; null when it holds none. */
  warmStep: number | null;
}

/** A part of a job that is computed again; null: from the beginning, or to the end. */
export interface VerifiedInterval {
  /** Name of the job within the run. */
  job: string;
  from: CheckpointPoint | null;
  to: CheckpointPoint | null;
}

export interface CheckpointPoint {
  step: number;
  manifestDigest: Digest;
}

export interface VerificationRequest {
  runId: string;
  jobs: Record<string, { stage: StageName; key: Digest; spec: JobSpec; workersMax: number }>;
  intervals: VerifiedInterval[];
  /** How long to wait for a worker of the run's numerics class and engine revision. */
  waitSeconds: number;
  stallSeconds: number;
  /** The verification continues as new once its history holds so many events. */
  historyEventsMax: number;
  /** Outcomes of the first intervals, when this continues an execution whose history had become long. */
  done: IntervalOutcome[];
}

export interface IntervalOutcome {
  /** Of the gang that came to the end of the interval, in rank order; empty when none did. */
  workers: string[];
  /** Of that gang, from its lease to its end. */
  seconds: number;
  /** `result` is told also when the job came to its end before the step at which the interval ends. */
  end:
    | ({ type: 'checkpoint' } & CheckpointPoint)
    | { type: 'result'; result: JobResult }
    | { type: 'failed'; cause: FailureCause; message: string };
}

export const TASK_QUEUE = 'collimate';
/** Workflow type and workflow id: the id of a run's workflow is its run id. */
export const RUN_WORKFLOW = 'runWorkflow';
export const STATUS_QUERY = 'status';
/** Signal from run to stage: true to pause, false to go on. */
export const SET_PAUSED_SIGNAL = 'setPaused';
/** Signal from run to stage: FleetLimits from now on. */
export const SET_FLEET_SIGNAL = 'setFleet';
/** Query of a stage workflow (id `<run id>/<stage>`): its StageResult so far. */
export const STAGE_STATUS_QUERY = 'stageStatus';
export const stageWorkflowId = (runId: string, stage: StageName): string => `${runId}/${stage}`;
/** Updates without arguments; each answers with the run's state after it. Refused when the run has ended. */
export const PAUSE_UPDATE = 'pause';
export const RESUME_UPDATE = 'resume';
/** Updates with one argument: `Partial<FleetLimits>`, and `Approval`. */
export const SCALE_UPDATE = 'scale';
export const APPROVE_UPDATE = 'approve';

/** Workflow type of a verification; its argument is a VerificationRequest, its result the outcomes in the order of the intervals. */
export const VERIFY_WORKFLOW = 'verifyWorkflow';
/** Query: the outcomes so far. */
export const VERIFY_OUTCOMES_QUERY = 'outcomes';
/** One verification of a run at a time. No run id is `verify`, so neither this nor a job id below it is that of a run. */
export const verifyWorkflowId = (runId: string): string => `verify/${runId}`;
export const isVerifyJob = (jobId: string): boolean => jobId.startsWith('verify/');

export interface Approval {
  approved: boolean;
  /** Who decides and why, for the journal. */
  note: string;
}
