/** Do users get lists, fast, and fresh ones? */
import type { Room } from '../room.js';

export const serving: Room = {
  uid: 'collimate-serving',
  title: 'Collimate / Serving',
  description: 'The recommender service.',
  variables: [],
  panels: [
    {
      title: 'Requests a second',
      description: 'Recommend calls by gRPC status.',
      kind: 'timeseries',
      unit: 'reqps',
      queries: [
        {
          expr: 'sum by (code) (rate(collimate_serve_request_duration_seconds_count[$__rate_interval]))',
          legend: '{{code}}',
        },
      ],
      next: 'collimate-hardware',
    },
    {
      title: 'Latency',
      description: 'Median and 99th percentile of Recommend calls.',
      kind: 'timeseries',
      unit: 's',
      queries: [
        {
          expr: 'histogram_quantile(0.5, sum by (le) (rate(collimate_serve_request_duration_seconds_bucket[$__rate_interval])))',
          legend: 'median',
        },
        {
          expr: 'histogram_quantile(0.99, sum by (le) (rate(collimate_serve_request_duration_seconds_bucket[$__rate_interval])))',
          legend: '99 %',
        },
      ],
      next: 'collimate-hardware',
    },
    {
      title: 'Age of the lists',
      description: 'Since the served generation was made.',
      kind: 'timeseries',
      unit: 's',
      queries: [{ expr: 'time() - max(collimate_serve_generation_created_timestamp_seconds)', legend: 'age' }],
      next: 'collimate-run',
    },
    {
      title: 'Users with a list',
      description: 'Users in the served generation.',
      kind: 'stat',
      unit: 'short',
      queries: [{ expr: 'max(collimate_serve_users)', legend: 'users' }],
      width: 6,
      next: 'collimate-run',
    },
    {
      title: 'Generation',
      description: 'What is served, by process. Two at once: a swap is under way, or a replica lags.',
      kind: 'stat',
      unit: 'short',
      queries: [
        {
          expr: 'count by (generation, model_version) (collimate_serve_generation_info)',
          legend: '{{generation}} {{model_version}}',
        },
      ],
      width: 6,
      next: 'collimate-fleet',
    },
  ],
};
