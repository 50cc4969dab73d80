/**
 * Which faults a run suffers, and when: drawn from a seed, and nothing but the seed.
 *
 * 1. Equal seeds give equal schedules on every machine; what a machine cannot do (no root, no libfaketime) is skipped by
 *    the trial, not drawn differently.
 * 2. A moment is an event of the run, never a time: a slow machine is hit at the same places.
 * 3. `pick` chooses among the candidates that there are at the moment (workers of the gang, objects of the store).
 */
import { RANDOM_SITES, RandomSequence } from '../../orchestrator/recommender/random.js';

export const FAULT_KINDS = [
  ...(['kill', 'freeze', 'preempt', 'oom', 'partition', 'loss', 'clock'] as const),
  ...(['full_disk', 'flip', 'truncate'] as const),
];
export type FaultKind = (typeof FAULT_KINDS)[number];

export const TARGETS = ['gang', 'idle', 'controller', 'temporal', 'store'] as const;
export type Target = (typeof TARGETS)[number];

export const DAMAGED_PIECES = ['checkpoint_pointer', 'checkpoint_file', 'job_record', 'job_output'] as const;
export type DamagedPiece = (typeof DAMAGED_PIECES)[number];

export type SteppingJob = 'dccf' | 'codebooks' | 'tune';

export type Moment =
  | { at: 'step'; job: SteppingJob; step: number }
  /** Between a step after which a checkpoint is due and its commit. */
  | { at: 'checkpoint_write'; job: SteppingJob; after: number }
  /** Between the start of the tuning gang and its first step. */
  | { at: 'rendezvous' }
  | { at: 'stage_done'; stage: 'ingest' | 'embed' | 'align_tokens' | 'align_tasks' | 'evaluate' }
  | { at: 'rank_shard'; shards: number }
  /** While serving switches to the new generation. */
  | { at: 'publish' }
  /** At the first new step after the fault before. */
  | { at: 'recovery' };

export interface Fault {
  kind: FaultKind;
  target: Target;
  moment: Moment;
  /** In [0, 1). */
  pick: number;
  /** How long it lasts; 0 for what happens at once. */
  holdMs: number;
  /** When the supervisor starts again what ended; null: not before the run has ended. */
  restartAfterMs: number | null;
  /** For `clock`: how far it jumps. */
  jumpSeconds: number;
  /** For `loss`: the part of frames that is lost. */
  lossRate: number;
  /** For `flip` and `truncate`. Damage matters when it is read: a worker of the gang is killed right after. */
  piece: DamagedPiece;
}

export interface Schedule {
  seed: number;
  faults: Fault[];
  /** Most workers of a gang, of three in the fleet: with 2 one is idle. */
  gangMax: number;
  checkpointIntervals: Record<SteppingJob, number>;
}

/** About so many steps the tuning job of the run has; moments are drawn from them. */
export const TUNE_STEPS = 160;
const DCCF_STEPS = 60;

const KINDS_OF: Record<Target, readonly FaultKind[]> = {
  gang: ['kill', 'kill', 'freeze', 'preempt', 'oom', 'partition', 'loss', 'clock'],
  idle: ['kill', 'freeze', 'preempt', 'partition', 'clock'],
  controller: ['kill', 'kill', 'freeze', 'preempt', 'clock'],
  temporal: ['kill', 'freeze'],
  store: ['full_disk', 'flip', 'truncate'],
};
const TARGET_WEIGHTS = [45, 8, 15, 10, 22];
const STAGES_BETWEEN = ['ingest', 'embed', 'align_tokens', 'align_tasks', 'evaluate'] as const;

/** `only`: a kind or a target that every first fault must have. */
export function drawSchedule(seed: number, only: string | null = null): Schedule {
  const random = new RandomSequence({ seed, site: RANDOM_SITES.test, stream: 0 });
  const schedule: Schedule = {
    seed,
    faults: [],
    gangMax: 2 + random.below(2),
    checkpointIntervals: {
      dccf: [5, 10][random.below(2)] ?? 5,
      codebooks: [5, 20][random.below(2)] ?? 5,
      tune: [5, 10, 20][random.below(3)] ?? 5,
    },
  };
  let first = drawFault(random, { isFirst: true });
  while (only !== null && first.kind !== only && first.target !== only) first = drawFault(random, { isFirst: true });
  schedule.faults.push(first);
  if (random.uniform() < 0.4) {
    const second = drawFault(random, { isFirst: false });
    // Two workers that stay away would leave one: that is the one fault "the gang shrinks", and enough once a run.
    if (first.restartAfterMs === null) second.restartAfterMs ??= 1_000;
    schedule.faults.push(second);
  }
  return schedule;
}

function drawFault(random: RandomSequence, { isFirst }: { isFirst: boolean }): Fault {
  const target = TARGETS[random.weighted(TARGET_WEIGHTS)] ?? 'gang';
  const kinds = KINDS_OF[target];
  const kind = kinds[random.below(kinds.length)] ?? 'kill';
  const moment = !isFirst && random.uniform() < 0.5 ? ({ at: 'recovery' } as const) : drawMoment(random);
  const staysAway = (target === 'gang' || target === 'idle') && kind !== 'oom' && random.uniform() < 0.2;
  const lasts = !['kill', 'preempt', 'flip', 'truncate'].includes(kind);
  return {
    kind,
    target,
    moment,
    pick: random.uniform(),
    holdMs: lasts ? 1_000 + random.below(9) * 1_000 : 0,
    restartAfterMs: staysAway && !lasts ? null : 250 + random.below(12) * 250,
    jumpSeconds: [-3_600, -30, 30, 3_600][random.below(4)] ?? 30,
    lossRate: [0.02, 0.1, 0.3][random.below(3)] ?? 0.1,
    piece: DAMAGED_PIECES[random.below(DAMAGED_PIECES.length)] ?? 'checkpoint_file',
  };
}

function drawMoment(random: RandomSequence): Moment {
  const jobs = ['tune', 'tune', 'tune', 'codebooks', 'dccf'] as const;
  const job = jobs[random.below(jobs.length)] ?? 'tune';
  // Short jobs are hit early: a kill takes a moment, and their last steps are over by then.
  const stepsMax = { tune: TUNE_STEPS - 20, dccf: DCCF_STEPS / 2, codebooks: 20 }[job];
  const step = 1 + random.below(stepsMax);
  switch (random.below(8)) {
    case 0:
    case 1:
      return { at: 'step', job, step };
    case 2:
    case 3:
      return { at: 'checkpoint_write', job, after: step };
    case 4:
      return { at: 'rendezvous' };
    case 5:
      return { at: 'stage_done', stage: STAGES_BETWEEN[random.below(STAGES_BETWEEN.length)] ?? 'embed' };
    case 6:
      return { at: 'rank_shard', shards: 1 + random.below(3) };
    default:
      return { at: 'publish' };
  }
}

export function describeMoment(moment: Moment): string {
  switch (moment.at) {
    case 'step':
      return `${moment.job} step ${String(moment.step)}`;
    case 'checkpoint_write':
      return `${moment.job} checkpoint write after ${String(moment.after)}`;
    case 'stage_done':
      return `after stage ${moment.stage}`;
    case 'rank_shard':
      return `rank shard ${String(moment.shards)}`;
    case 'rendezvous':
    case 'publish':
    case 'recovery':
      return moment.at;
  }
}

export function describeFault(fault: Fault): string {
  const { kind, target, holdMs, restartAfterMs } = fault;
  const seconds = (ms: number): string => `${(ms / 1000).toFixed(2).replace(/\.?0+$/, '')}s`;
  const parts = [`${kind} ${target}`];
  if (kind === 'clock') parts.push(`${fault.jumpSeconds > 0 ? '+' : ''}${String(fault.jumpSeconds)}s`);
  if (kind === 'loss') parts.push(`${String(fault.lossRate * 100)}%`);
  if (kind === 'flip' || kind === 'truncate') parts.push(fault.piece);
  if (holdMs > 0) parts.push(`for ${seconds(holdMs)}`);
  if (holdMs === 0) parts.push(restartAfterMs === null ? 'stays away' : `back in ${seconds(restartAfterMs)}`);
  return parts.join(' ');
}
