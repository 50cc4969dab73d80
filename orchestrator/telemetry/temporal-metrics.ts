/**
 * The Temporal SDK's own measurements as metrics of the registry, under our names and with bounded labels only.
 *
 * The SDK hands them over in a buffer; whoever owns it calls `takeIn` every second or so, since what does not fit is lost.
 */
import type { Metrics } from './metrics.js';

/** What of the SDK's BufferedMetricUpdate is read here. */
export interface TemporalUpdate {
  metric: { name: string };
  value: number;
  attributes: Readonly<Record<string, string | number | boolean>>;
}

type TakeIn = (metrics: Metrics, value: number, attribute: (name: string) => string) => void;

/** By the SDK's name, without its prefix. Durations are in seconds (`useSecondsForDurations`). */
const TAKEN: Readonly<Record<string, TakeIn>> = {
  request_latency: (metrics, value, attribute) =>
    metrics.observe('collimate_temporal_request_duration_seconds', { operation: attribute('operation') }, value),
  request_failure: (metrics, value, attribute) =>
    metrics.inc('collimate_temporal_request_failures_total', { operation: attribute('operation') }, value),
  workflow_task_execution_latency: (metrics, value) =>
    metrics.observe('collimate_temporal_workflow_task_duration_seconds', {}, value),
  workflow_task_schedule_to_start_latency: (metrics, value) =>
    metrics.observe('collimate_temporal_workflow_task_wait_duration_seconds', {}, value),
  activity_schedule_to_start_latency: (metrics, value, attribute) =>
    metrics.observe(
      'collimate_temporal_activity_wait_duration_seconds',
      { activity: attribute('activity_type') },
      value,
    ),
  activity_execution_failed: (metrics, value, attribute) =>
    metrics.inc('collimate_temporal_activity_failures_total', { activity: attribute('activity_type') }, value),
  sticky_cache_size: (metrics, value) => metrics.set('collimate_temporal_cached_workflows', {}, value),
};

/** Takes what is declared and leaves the rest. */
export function takeIn(metrics: Metrics, updates: Iterable<TemporalUpdate>): void {
  for (const { metric, value, attributes } of updates) {
    const name = metric.name.replace(/^temporal_/, '').replace(/_(seconds|total)$/, '');
    TAKEN[name]?.(metrics, value, (attribute) => String(attributes[attribute] ?? 'unknown'));
  }
}
