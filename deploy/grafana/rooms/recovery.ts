/** What did failures cost, and which part of recovering? */
import type { Room } from '../room.js';

export const recovery: Room = {
  uid: 'collimate-recovery',
  title: 'Collimate / Recovery',
  description: 'Failures of a run by cause, and what each recovery took, phase by phase.',
  variables: ['run'],
  panels: [
    {
      title: 'Failures',
      description:
        'Attempts that ended by a failure, by cause: `collimate status RUN --incidents` names worker and rank.',
      kind: 'timeseries',
      unit: 'short',
      queries: [
        {
          expr: 'sum by (stage, cause) (collimate_restarts_total{run=~"$run"})',
          legend: '{{stage}} {{cause}}',
        },
      ],
      next: 'collimate-fleet',
    },
    {
      title: 'Anatomy of a recovery',
      description:
        'Mean seconds of each phase: detect, fence, reschedule, restore, first step. The longest is where to look.',
      kind: 'bars',
      unit: 's',
      queries: [
        {
          expr: 'sum by (phase) (collimate_recovery_duration_seconds_sum{run=~"$run"}) / sum by (phase) (collimate_recovery_duration_seconds_count{run=~"$run"})',
          legend: '{{phase}}',
        },
      ],
      next: 'collimate-stage',
    },
    {
      title: 'Time lost, by reason',
      description: 'Seconds that were not work: recovering, repeating, waiting for workers, store or approval.',
      kind: 'timeseries',
      unit: 's',
      queries: [
        {
          expr: 'max by (purpose) (collimate_run_purpose_seconds{run=~"$run",purpose!="work"})',
          legend: '{{purpose}}',
        },
      ],
      stacked: true,
      next: 'collimate-run',
    },
    {
      title: 'Time to start a gang',
      description: 'Mean from reserved workers to the job started on each: see DispatchSlow in docs/operations.md.',
      kind: 'timeseries',
      unit: 's',
      queries: [
        {
          expr: 'sum by (stage) (collimate_dispatch_duration_seconds_sum{run=~"$run"}) / sum by (stage) (collimate_dispatch_duration_seconds_count{run=~"$run"})',
          legend: '{{stage}}',
        },
      ],
      next: 'collimate-temporal',
    },
    {
      title: 'Workers in the fleet',
      description: 'A dip is a worker that was lost; it ends when another has joined.',
      kind: 'timeseries',
      unit: 'short',
      queries: [{ expr: 'collimate:workers:sum', legend: 'workers' }],
      next: 'collimate-fleet',
    },
  ],
};
