/**
 * Every metric of the system. Nothing is exported that is not declared here; docs (`docs/metrics.md`), dashboards and alerts
 * (`deploy/grafana`, `deploy/prometheus`) are held to it.
 *
 * 1. Names: `collimate_`, base unit last (`_seconds`, `_bytes`, `_ratio`), counters end in `_total`, ratios lie in 0–1.
 * 2. One exporter per name, so that sum() over all processes counts nothing twice.
 * 3. Labels are bounded: never a step, a user or an item.
 */

export type MetricType = 'counter' | 'gauge' | 'histogram';
export type MetricUnit = 'none' | 'seconds' | 'bytes' | 'ratio';
export type MetricExporter = 'controller' | 'worker' | 'serve' | 'every process';

export interface MetricDeclaration {
  readonly type: MetricType;
  readonly unit: MetricUnit;
  readonly labels: readonly string[];
  readonly help: string;
  readonly exporter: MetricExporter;
  /** Upper bounds of a histogram's buckets. */
  readonly buckets?: readonly number[];
  /** No series before something has gone wrong. */
  readonly rare?: true;
}

const STEP_SECONDS = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120];
const RPC_SECONDS = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10];
const WAIT_SECONDS = [0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600];

/* prettier-ignore */
export const METRICS = {
  collimate_build_info: { type: 'gauge', unit: 'none', labels: ['component', 'version'], exporter: 'every process', help: 'Constant 1; which program and version this process is.' },
  collimate_process_resident_memory_bytes: { type: 'gauge', unit: 'bytes', labels: [], exporter: 'every process', help: 'Resident memory of the process.' },
  collimate_process_cpu_seconds_total: { type: 'counter', unit: 'seconds', labels: [], exporter: 'every process', help: 'Processor time of the process, user and system, of all its threads.' },
  collimate_process_start_timestamp_seconds: { type: 'gauge', unit: 'seconds', labels: [], exporter: 'every process', help: 'Unix time at which the process started.' },

  collimate_run_info: { type: 'gauge', unit: 'none', labels: ['run', 'name', 'numerics_class'], exporter: 'controller', help: 'Constant 1; what a run is.' },
  collimate_run_state: { type: 'gauge', unit: 'none', labels: ['run', 'state'], exporter: 'controller', help: '1 for the state that the run is in, 0 for the states it was in.' },
  collimate_run_start_timestamp_seconds: { type: 'gauge', unit: 'seconds', labels: ['run'], exporter: 'controller', help: 'Unix time at which this controller first saw the run.' },
  collimate_stage_state: { type: 'gauge', unit: 'none', labels: ['run', 'stage', 'state'], exporter: 'controller', help: '1 for the state that the stage is in, 0 for the states it was in.' },
  collimate_stage_step: { type: 'gauge', unit: 'none', labels: ['run', 'stage'], exporter: 'controller', help: 'Last step reported by the job that the stage runs.' },
  collimate_stage_target_step: { type: 'gauge', unit: 'none', labels: ['run', 'stage'], exporter: 'controller', help: 'Last step that the job of the stage will take.' },
  collimate_stage_last_step_timestamp_seconds: { type: 'gauge', unit: 'seconds', labels: ['run', 'stage'], exporter: 'controller', help: 'Unix time of the last step that rank 0 reported.' },

  collimate_steps_total: { type: 'counter', unit: 'none', labels: ['run', 'stage'], exporter: 'controller', help: 'Steps done, those repeated after a recovery included.' },
  collimate_samples_total: { type: 'counter', unit: 'none', labels: ['run', 'stage'], exporter: 'controller', help: 'Training sequences consumed.' },
  collimate_tokens_total: { type: 'counter', unit: 'none', labels: ['run', 'stage'], exporter: 'controller', help: 'Tokens consumed.' },
  collimate_loss: { type: 'gauge', unit: 'none', labels: ['run', 'stage', 'task'], exporter: 'controller', help: 'Loss of the last step; task "total" or a named part of it.' },
  collimate_learning_rate: { type: 'gauge', unit: 'none', labels: ['run', 'stage'], exporter: 'controller', help: 'Learning rate of the last step.' },
  collimate_grad_norm: { type: 'gauge', unit: 'none', labels: ['run', 'stage'], exporter: 'controller', help: 'Global gradient norm of the last step, before clipping.' },
  collimate_step_duration_seconds: { type: 'histogram', unit: 'seconds', labels: ['run', 'stage', 'rank'], exporter: 'controller', help: 'Wall time of a step on a rank.', buckets: STEP_SECONDS },

  collimate_checkpoint_duration_seconds: { type: 'histogram', unit: 'seconds', labels: ['run', 'stage'], exporter: 'controller', help: 'Time from the state being copied to the checkpoint being committed.', buckets: WAIT_SECONDS },
  collimate_checkpoint_size_bytes: { type: 'gauge', unit: 'bytes', labels: ['run', 'stage'], exporter: 'controller', help: 'Size of the last committed checkpoint.' },
  collimate_checkpoint_step: { type: 'gauge', unit: 'none', labels: ['run', 'stage'], exporter: 'controller', help: 'Step of the last committed checkpoint.' },
  collimate_checkpoint_last_success_timestamp_seconds: { type: 'gauge', unit: 'seconds', labels: ['run', 'stage'], exporter: 'controller', help: 'Unix time of the last committed checkpoint.' },

  collimate_jobs_total: { type: 'counter', unit: 'none', labels: ['run', 'stage', 'outcome'], exporter: 'controller', help: 'Jobs ended; outcome finished, memoised or failed.' },
  collimate_restarts_total: { type: 'counter', unit: 'none', labels: ['run', 'stage', 'cause'], exporter: 'controller', help: 'Attempts that ended by a failure, by cause.', rare: true },
  collimate_recovery_duration_seconds: { type: 'histogram', unit: 'seconds', labels: ['run', 'stage', 'phase'], exporter: 'controller', help: 'Time of a recovery by phase: detect (since the last progress), fence, reschedule, restore, first_step.', buckets: WAIT_SECONDS, rare: true },
  collimate_run_purpose_seconds: { type: 'gauge', unit: 'seconds', labels: ['run', 'purpose'], exporter: 'controller', help: 'Where the time of a run went: work is goodput, all others are not; they add up to its wall clock.' },
  collimate_queue_wait_duration_seconds: { type: 'histogram', unit: 'seconds', labels: ['run', 'stage'], exporter: 'controller', help: 'Time a job waited for its gang.', buckets: WAIT_SECONDS },
  collimate_dispatch_duration_seconds: { type: 'histogram', unit: 'seconds', labels: ['run', 'stage'], exporter: 'controller', help: 'Time from a reserved gang to the job started on every member.', buckets: RPC_SECONDS },
  collimate_store_damage_total: { type: 'counter', unit: 'none', labels: ['subject'], exporter: 'controller', help: 'Damaged or missing objects, jobs, checkpoints and event lines found in the artifact store.', rare: true },
  collimate_store_size_bytes: { type: 'gauge', unit: 'bytes', labels: [], exporter: 'controller', help: 'Size of the file system that holds the artifact store; not for a bucket.' },
  collimate_store_available_bytes: { type: 'gauge', unit: 'bytes', labels: [], exporter: 'controller', help: 'What may still be written to the file system that holds the artifact store; not for a bucket.' },

  collimate_temporal_request_duration_seconds: { type: 'histogram', unit: 'seconds', labels: ['operation'], exporter: 'controller', help: 'Calls to the Temporal server, long polls left out.', buckets: RPC_SECONDS },
  collimate_temporal_request_failures_total: { type: 'counter', unit: 'none', labels: ['operation'], exporter: 'controller', help: 'Calls to the Temporal server that failed, long polls left out.', rare: true },
  collimate_temporal_workflow_task_duration_seconds: { type: 'histogram', unit: 'seconds', labels: [], exporter: 'controller', help: 'Time to work off a workflow task.', buckets: RPC_SECONDS },
  collimate_temporal_workflow_task_wait_duration_seconds: { type: 'histogram', unit: 'seconds', labels: [], exporter: 'controller', help: 'Time a workflow task waited for this controller.', buckets: RPC_SECONDS },
  collimate_temporal_activity_wait_duration_seconds: { type: 'histogram', unit: 'seconds', labels: ['activity'], exporter: 'controller', help: 'Time an activity waited for this controller.', buckets: RPC_SECONDS },
  collimate_temporal_activity_failures_total: { type: 'counter', unit: 'none', labels: ['activity'], exporter: 'controller', help: 'Attempts at an activity that failed; a failed gang shows here as one of its wait.', rare: true },
  collimate_temporal_cached_workflows: { type: 'gauge', unit: 'none', labels: [], exporter: 'controller', help: 'Workflows that this controller holds in memory.' },

  collimate_workers: { type: 'gauge', unit: 'none', labels: ['state'], exporter: 'controller', help: 'Workers that have joined, by state (idle, leased).' },
  collimate_worker_info: { type: 'gauge', unit: 'none', labels: ['worker', 'numerics_class', 'engine_revision'], exporter: 'controller', help: 'Constant 1; what a joined worker is.' },
  collimate_worker_last_seen_timestamp_seconds: { type: 'gauge', unit: 'seconds', labels: ['worker'], exporter: 'controller', help: 'Unix time of the last beat of a worker.' },
  collimate_workers_lost_total: { type: 'counter', unit: 'none', labels: [], exporter: 'controller', help: 'Join streams that ended.', rare: true },

  collimate_codebook_usage_ratio: { type: 'gauge', unit: 'ratio', labels: ['run', 'level'], exporter: 'controller', help: 'Codes of a level that at least one item has.' },
  collimate_codebook_perplexity: { type: 'gauge', unit: 'none', labels: ['run', 'level'], exporter: 'controller', help: 'Perplexity of the code distribution of a level.' },
  collimate_codebook_dead_codes: { type: 'gauge', unit: 'none', labels: ['run', 'level'], exporter: 'controller', help: 'Codes of a level that no item has.' },
  collimate_codebook_collision_ratio: { type: 'gauge', unit: 'ratio', labels: ['run'], exporter: 'controller', help: 'Items whose code tuple was not unique before the fit.' },
  collimate_codebook_error_ratio: { type: 'gauge', unit: 'ratio', labels: ['run', 'items'], exporter: 'controller', help: 'Squared error of the decoded vectors over their squared norm: of all items, and of those held_out from clustering.' },
  collimate_codebook_gini_ratio: { type: 'gauge', unit: 'ratio', labels: ['run', 'level'], exporter: 'controller', help: 'Gini coefficient of the use of the codes of a level.' },
  collimate_alignment_recall_ratio: { type: 'gauge', unit: 'ratio', labels: ['run', 'moment', 'cutoff'], exporter: 'controller', help: 'Items whose own text is among the first (cutoff) of all texts by their aligned codes, before and after the alignment.' },

  collimate_search_compared_prompts_total: { type: 'counter', unit: 'none', labels: ['run', 'stage'], exporter: 'controller', help: 'Ranked prompts whose list was compared with that of an exact search.' },
  collimate_search_uncompared_prompts_total: { type: 'counter', unit: 'none', labels: ['run', 'stage'], exporter: 'controller', help: 'Ranked prompts whose exact search was given up, since it would have needed too many prefixes.' },
  collimate_search_missed_prompts_total: { type: 'counter', unit: 'none', labels: ['run', 'stage'], exporter: 'controller', help: 'Of the compared prompts, those whose best item the beam missed.' },
  collimate_search_best_gap_total: { type: 'counter', unit: 'none', labels: ['run', 'stage'], exporter: 'controller', help: 'Sum over the compared prompts of what the best item scores above the best that the beam found.' },
  collimate_search_overlap_total: { type: 'counter', unit: 'none', labels: ['run', 'stage'], exporter: 'controller', help: 'Sum over the compared prompts of the share of the exact list that the beam found.' },

  collimate_worker_busy: { type: 'gauge', unit: 'none', labels: [], exporter: 'worker', help: '1 while a job holds the lease.' },
  collimate_worker_jobs_total: { type: 'counter', unit: 'none', labels: ['kind', 'outcome'], exporter: 'worker', help: 'Jobs ended on this worker; outcome finished, stopped or failed.' },
  collimate_worker_threads: { type: 'gauge', unit: 'none', labels: [], exporter: 'worker', help: 'Threads that the worker computes with.' },
  collimate_worker_device_size_bytes: { type: 'gauge', unit: 'bytes', labels: [], exporter: 'worker', help: 'Memory of the device that the worker computes on; no series on a processor.', rare: true },
  collimate_worker_device_used_bytes: { type: 'gauge', unit: 'bytes', labels: [], exporter: 'worker', help: 'Of it, what is in use, by this worker and by others; no series on a processor.', rare: true },
  collimate_worker_device_utilization_ratio: { type: 'gauge', unit: 'ratio', labels: [], exporter: 'worker', help: 'Share of the last moments in which the device ran a kernel; no series on a processor, or where the driver does not tell.', rare: true },
  collimate_worker_phase_seconds_total: { type: 'counter', unit: 'seconds', labels: ['run', 'stage', 'rank', 'phase'], exporter: 'worker', help: 'Where the time of the steps of a rank went: data, forward, backward, reduce, optimizer; and checkpoint, which runs beside them.' },
  collimate_worker_step_duration_seconds: { type: 'histogram', unit: 'seconds', labels: ['run', 'stage', 'rank'], exporter: 'worker', help: 'Wall time of a step on this worker.', buckets: STEP_SECONDS },
  collimate_worker_checkpoint_duration_seconds: { type: 'histogram', unit: 'seconds', labels: ['run', 'stage'], exporter: 'worker', help: 'Time this worker took to store a checkpoint.', buckets: WAIT_SECONDS },

  collimate_serve_request_duration_seconds: { type: 'histogram', unit: 'seconds', labels: ['code'], exporter: 'serve', help: 'Recommend calls, by gRPC status.', buckets: RPC_SECONDS },
  collimate_serve_generation_info: { type: 'gauge', unit: 'none', labels: ['generation', 'model_version'], exporter: 'serve', help: 'Constant 1; the generation being served.' },
  collimate_serve_generation_created_timestamp_seconds: { type: 'gauge', unit: 'seconds', labels: [], exporter: 'serve', help: 'Unix time at which the served generation was made.' },
  collimate_serve_users: { type: 'gauge', unit: 'none', labels: [], exporter: 'serve', help: 'Users with a list in the served generation.' },
} as const satisfies Record<string, MetricDeclaration>;

export type MetricName = keyof typeof METRICS;
export type NamesOf<T extends MetricType> = {
  [N in MetricName]: (typeof METRICS)[N]['type'] extends T ? N : never;
}[MetricName];
/** Exactly the declared labels of a metric. */
export type LabelsOf<N extends MetricName> = Record<(typeof METRICS)[N]['labels'][number], string>;

/** The numbers that a StepEvent may carry, and what each becomes. Others are refused, so that none is lost unseen. */
export const STEP_NUMBERS = {
  loss: 'collimate_loss',
  loss_rank: 'collimate_loss',
  loss_contrast: 'collimate_loss',
  loss_sequential: 'collimate_loss',
  loss_text: 'collimate_loss',
  loss_query: 'collimate_loss',
  loss_negative: 'collimate_loss',
  loss_ranking: 'collimate_loss',
  learning_rate: 'collimate_learning_rate',
  grad_norm: 'collimate_grad_norm',
  samples: 'collimate_samples_total',
  tokens: 'collimate_tokens_total',
  step_seconds: 'collimate_step_duration_seconds',
} as const satisfies Record<string, MetricName>;

/** The numbers of a StepEvent that say where a rank's time went, and the phase that each is. */
export const STEP_PHASES = {
  data_seconds: 'data',
  forward_seconds: 'forward',
  backward_seconds: 'backward',
  reduce_seconds: 'reduce',
  optimizer_seconds: 'optimizer',
} as const;
