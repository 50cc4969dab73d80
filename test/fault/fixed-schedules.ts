/** The fixed set of `npm test`: one fault of each sort that every machine can do, and those that need root. */
import type { Fault, Schedule } from './schedule.js';

function schedule(faults: Partial<Fault>[], gangMax = 3): Schedule {
  return {
    seed: 0,
    gangMax,
    checkpointIntervals: { dccf: 10, codebooks: 20, tune: 10 },
    faults: faults.map((fault) => ({
      kind: 'kill',
      target: 'gang',
      moment: { at: 'step', job: 'tune', step: 50 },
      pick: 0.5,
      holdMs: 0,
      restartAfterMs: 500,
      jumpSeconds: 3_600,
      lossRate: 0.1,
      piece: 'checkpoint_file',
      ...fault,
    })),
  };
}

export const FIXED_SCHEDULES: Record<string, Schedule> = {
  'a worker is killed while a checkpoint is written, another preempted on recovery': schedule([
    { moment: { at: 'checkpoint_write', job: 'tune', after: 40 } },
    { kind: 'preempt', moment: { at: 'recovery' }, pick: 0 },
  ]),
  'a worker is killed in rendezvous and stays away, the Temporal server killed after the stage': schedule([
    { moment: { at: 'rendezvous' }, restartAfterMs: null },
    { target: 'temporal', moment: { at: 'stage_done', stage: 'align_tasks' } },
  ]),
  'the newest checkpoint is damaged before a worker is killed': schedule([
    { kind: 'flip', target: 'store', moment: { at: 'step', job: 'tune', step: 45 } },
  ]),
  'the controller is killed while ranking, a worker while publishing': schedule([
    { target: 'controller', moment: { at: 'rank_shard', shards: 2 } },
    { moment: { at: 'publish' } },
  ]),
  'the disk of the store is full for three seconds': schedule([
    { kind: 'full_disk', target: 'store', moment: { at: 'step', job: 'tune', step: 40 }, holdMs: 3_000 },
  ]),
  'a worker is cut off the network for five seconds': schedule([
    { kind: 'partition', moment: { at: 'step', job: 'tune', step: 40 }, holdMs: 5_000 },
  ]),
};
