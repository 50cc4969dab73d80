/** Which rank holds the others up, and with what? */
import type { Room } from '../room.js';

export const stage: Room = {
  uid: 'collimate-stage',
  title: 'Collimate / Stage and ranks',
  description: 'One stage of one run, rank by rank.',
  variables: ['run', 'stage', 'rank'],
  panels: [
    {
      title: 'Compute seconds a step, by rank',
      description:
        'What each rank computes itself (data, forward, backward) in a step. A row that is darker than the others is the straggler: see StragglerRank in docs/operations.md.',
      kind: 'grid',
      unit: 's',
      queries: [{ expr: 'collimate:rank_compute:seconds{run=~"$run",stage=~"$stage"}', legend: 'rank {{rank}}' }],
      width: 24,
      next: 'collimate-hardware',
    },
    {
      title: 'Step time',
      description: 'How the steps of the chosen ranks spread over time.',
      kind: 'heatmap',
      unit: 's',
      queries: [
        {
          expr: 'sum by (le) (increase(collimate_step_duration_seconds_bucket{run=~"$run",stage=~"$stage",rank=~"$rank"}[$__rate_interval]))',
          legend: '{{le}}',
        },
      ],
      next: 'collimate-hardware',
    },
    {
      title: 'Phases of a step, by rank',
      description:
        'Seconds a second that a rank is at each phase. Long reduce on all ranks but one: that one is waited for.',
      kind: 'timeseries',
      unit: 'percentunit',
      queries: [
        {
          expr: 'sum by (rank, phase) (rate(collimate_worker_phase_seconds_total{run=~"$run",stage=~"$stage",rank=~"$rank"}[$__rate_interval]))',
          legend: 'rank {{rank}} {{phase}}',
        },
      ],
      stacked: true,
      next: 'collimate-hardware',
    },
    {
      title: 'Steps a second',
      description: 'Pace of the gang, as rank 0 tells it.',
      kind: 'timeseries',
      unit: 'ops',
      queries: [
        {
          expr: 'sum by (stage) (rate(collimate_steps_total{run=~"$run",stage=~"$stage"}[$__rate_interval]))',
          legend: '{{stage}}',
        },
      ],
      next: 'collimate-run',
    },
    {
      title: 'Slowest steps by worker',
      description: 'The 99th percentile of step time on each worker.',
      kind: 'timeseries',
      unit: 's',
      queries: [
        {
          expr: 'histogram_quantile(0.99, sum by (worker, le) (rate(collimate_worker_step_duration_seconds_bucket{run=~"$run",stage=~"$stage",rank=~"$rank"}[$__rate_interval])))',
          legend: '{{worker}}',
        },
      ],
      next: 'collimate-hardware',
    },
    {
      title: 'Gradient norm and learning rate',
      description: 'Global gradient norm before clipping, and the schedule.',
      kind: 'timeseries',
      unit: 'none',
      queries: [
        {
          expr: 'max by (stage) (collimate_grad_norm{run=~"$run",stage=~"$stage"})',
          legend: '{{stage}} gradient norm',
        },
        {
          expr: 'max by (stage) (collimate_learning_rate{run=~"$run",stage=~"$stage"})',
          legend: '{{stage}} learning rate',
        },
      ],
      next: 'collimate-run',
    },
    {
      title: 'Since the last step',
      description: 'Climbs while a gang takes no step: see StepStalled in docs/operations.md.',
      kind: 'timeseries',
      unit: 's',
      queries: [
        {
          expr: 'time() - max by (stage) (collimate_stage_last_step_timestamp_seconds{run=~"$run",stage=~"$stage"})',
          legend: '{{stage}}',
        },
      ],
      next: 'collimate-recovery',
    },
    {
      title: 'Since the last checkpoint',
      description:
        'What would be computed again if all workers were lost now: see CheckpointStale in docs/operations.md.',
      kind: 'timeseries',
      unit: 's',
      queries: [
        {
          expr: 'time() - max by (stage) (collimate_checkpoint_last_success_timestamp_seconds{run=~"$run",stage=~"$stage"})',
          legend: '{{stage}}',
        },
      ],
      next: 'collimate-recovery',
    },
    {
      title: 'Time of a checkpoint',
      description:
        'Mean from copy to commit, and of it what the worker took to store it. Checkpoints are written beside the steps.',
      kind: 'timeseries',
      unit: 's',
      queries: [
        {
          expr: 'sum by (stage) (collimate_checkpoint_duration_seconds_sum{run=~"$run",stage=~"$stage"}) / sum by (stage) (collimate_checkpoint_duration_seconds_count{run=~"$run",stage=~"$stage"})',
          legend: '{{stage}} to commit',
        },
        {
          expr: 'sum by (stage) (collimate_worker_checkpoint_duration_seconds_sum{run=~"$run",stage=~"$stage"}) / sum by (stage) (collimate_worker_checkpoint_duration_seconds_count{run=~"$run",stage=~"$stage"})',
          legend: '{{stage}} to store',
        },
      ],
      next: 'collimate-hardware',
    },
    {
      title: 'Checkpoints',
      description: 'Step and size of the last committed checkpoint.',
      kind: 'bars',
      unit: 'short',
      queries: [
        { expr: 'max by (stage) (collimate_checkpoint_step{run=~"$run",stage=~"$stage"})', legend: '{{stage}} step' },
        {
          expr: 'max by (stage) (collimate_checkpoint_size_bytes{run=~"$run",stage=~"$stage"})',
          legend: '{{stage}} bytes',
        },
      ],
      next: 'collimate-recovery',
    },
  ],
};
