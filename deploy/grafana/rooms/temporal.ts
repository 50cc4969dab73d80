/** Does the durable engine keep up? */
import type { Room } from '../room.js';

export const temporal: Room = {
  uid: 'collimate-temporal',
  title: 'Collimate / Temporal',
  description: 'The Temporal server as the controller sees it.',
  variables: [],
  panels: [
    {
      title: 'Calls to the server',
      description: 'Mean duration by operation. All high: the server or its database is slow.',
      kind: 'timeseries',
      unit: 's',
      queries: [
        {
          expr: 'sum by (operation) (rate(collimate_temporal_request_duration_seconds_sum[$__rate_interval])) / (sum by (operation) (rate(collimate_temporal_request_duration_seconds_count[$__rate_interval])) > 0)',
          legend: '{{operation}}',
        },
      ],
      next: 'collimate-fleet',
    },
    {
      title: 'Failed calls',
      description: 'Calls to the server that failed. A steady rate: it is down or cannot be reached.',
      kind: 'timeseries',
      unit: 'ops',
      queries: [
        {
          expr: 'sum by (operation) (rate(collimate_temporal_request_failures_total[$__rate_interval])) or vector(0)',
          legend: '{{operation}}',
        },
      ],
      next: 'collimate-fleet',
    },
    {
      title: 'Wait of activities',
      description:
        'The 90th percentile of what an activity waited for this controller: see DispatchSlow in docs/operations.md.',
      kind: 'timeseries',
      unit: 's',
      queries: [
        {
          expr: 'histogram_quantile(0.9, sum by (activity, le) (rate(collimate_temporal_activity_wait_duration_seconds_bucket[$__rate_interval])))',
          legend: '{{activity}}',
        },
      ],
      next: 'collimate-recovery',
    },
    {
      title: 'Workflow tasks',
      description: 'The 90th percentile of what a workflow task waited, and of what it took.',
      kind: 'timeseries',
      unit: 's',
      queries: [
        {
          expr: 'histogram_quantile(0.9, sum by (le) (rate(collimate_temporal_workflow_task_wait_duration_seconds_bucket[$__rate_interval])))',
          legend: 'wait',
        },
        {
          expr: 'histogram_quantile(0.9, sum by (le) (rate(collimate_temporal_workflow_task_duration_seconds_bucket[$__rate_interval])))',
          legend: 'work',
        },
      ],
      next: 'collimate-hardware',
    },
    {
      title: 'Failed activities',
      description:
        'Attempts at an activity that failed. Failed gangs show as their waits; anything else is worth a look at the log.',
      kind: 'timeseries',
      unit: 'short',
      queries: [
        { expr: 'sum by (activity) (collimate_temporal_activity_failures_total) or vector(0)', legend: '{{activity}}' },
      ],
      next: 'collimate-recovery',
    },
    {
      title: 'Workflows in memory',
      description: 'Runs and stages that this controller holds; others are replayed when they go on.',
      kind: 'timeseries',
      unit: 'short',
      queries: [{ expr: 'max(collimate_temporal_cached_workflows)', legend: 'workflows' }],
      next: 'collimate-hardware',
    },
  ],
};
