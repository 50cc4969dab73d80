/** Is everybody there, and what are they doing? */
import type { Room } from '../room.js';

export const fleet: Room = {
  uid: 'collimate-fleet',
  title: 'Collimate / Fleet',
  description: 'Workers, the runs that they serve, and what went wrong lately.',
  variables: [],
  panels: [
    {
      title: 'Workers',
      description:
        'Workers that have joined, by state. Fewer than you started: see WorkerMissing in docs/operations.md.',
      kind: 'timeseries',
      unit: 'short',
      queries: [{ expr: 'sum by (state) (collimate_workers)', legend: '{{state}}' }],
      stacked: true,
      next: 'collimate-hardware',
    },
    {
      title: 'Runs by state',
      description: 'Runs that this controller has heard of, by the state they are in now.',
      kind: 'timeseries',
      unit: 'short',
      queries: [{ expr: 'sum by (state) (collimate_run_state)', legend: '{{state}}' }],
      stacked: true,
      next: 'collimate-run',
    },
    {
      title: 'Since a worker was heard',
      description:
        'Beats come each second, of busy workers four times as often. A line that climbs is a worker that hangs.',
      kind: 'timeseries',
      unit: 's',
      queries: [
        { expr: 'time() - max by (worker) (collimate_worker_last_seen_timestamp_seconds)', legend: '{{worker}}' },
      ],
      next: 'collimate-hardware',
    },
    {
      title: 'Failures by cause',
      description:
        'Attempts that ended by a failure, of the runs still shown. Each is an incident with a worker, rank and cause.',
      kind: 'timeseries',
      unit: 'short',
      queries: [{ expr: 'sum by (run, cause) (collimate_restarts_total)', legend: '{{run}} {{cause}}' }],
      next: 'collimate-recovery',
    },
    {
      title: 'Wait for a gang',
      description: 'Mean time that the jobs of a run waited for workers. High: the fleet is too small for its runs.',
      kind: 'timeseries',
      unit: 's',
      queries: [
        {
          expr: 'sum by (run) (collimate_queue_wait_duration_seconds_sum) / sum by (run) (collimate_queue_wait_duration_seconds_count)',
          legend: '{{run}}',
        },
      ],
      next: 'collimate-run',
    },
    {
      title: 'Jobs ended on workers',
      description: 'Jobs by kind and outcome since each worker started.',
      kind: 'bars',
      unit: 'short',
      queries: [{ expr: 'sum by (kind, outcome) (collimate_worker_jobs_total)', legend: '{{kind}} {{outcome}}' }],
      next: 'collimate-stage',
    },
    {
      title: 'What runs',
      description: 'Version of each process; more than one version means an upgrade under way.',
      kind: 'bars',
      unit: 'short',
      queries: [{ expr: 'count by (component, version) (collimate_build_info)', legend: '{{component}} {{version}}' }],
      next: 'collimate-hardware',
    },
    {
      title: 'Workers by numerics class',
      description: 'A run never mixes classes; workers of another class than a run was pinned to do not help it.',
      kind: 'bars',
      unit: 'short',
      queries: [
        {
          expr: 'count by (numerics_class, engine_revision) (collimate_worker_info)',
          legend: '{{numerics_class}} {{engine_revision}}',
        },
      ],
      next: 'collimate-hardware',
    },
    {
      title: 'Workers lost',
      description:
        'Join streams that ended since the controller started: processes that died, were cut off or were ended.',
      kind: 'stat',
      unit: 'short',
      queries: [{ expr: 'sum(collimate_workers_lost_total)', legend: 'lost' }],
      next: 'collimate-recovery',
    },
    {
      title: 'Damage found in the store',
      description:
        'Objects, records and event lines that did not verify; they are set aside and made again. 0 is healthy.',
      kind: 'stat',
      unit: 'short',
      queries: [{ expr: 'sum(collimate_store_damage_total) or vector(0)', legend: 'damaged' }],
      next: 'collimate-recovery',
    },
  ],
};
