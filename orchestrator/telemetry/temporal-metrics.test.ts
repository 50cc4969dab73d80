import { expect, it } from 'vitest';

import { Metrics } from './metrics.js';
import { takeIn, type TemporalUpdate } from './temporal-metrics.js';

const update = (name: string, value: number, attributes: TemporalUpdate['attributes'] = {}): TemporalUpdate => ({
  metric: { name },
  value,
  attributes,
});

it('takes what is declared, with its bounded labels, and leaves the rest', async () => {
  const metrics = new Metrics({ exporter: 'controller', version: '1' });
  takeIn(metrics, [
    update('temporal_request_latency', 0.02, { operation: 'StartWorkflowExecution', namespace: 'default' }),
    update('temporal_activity_execution_failed', 2, { activity_type: 'awaitGang', workflow_type: 'stage' }),
    update('temporal_sticky_cache_size', 3),
    update('temporal_worker_task_slots_used', 9, { worker_type: 'ActivityWorker' }),
  ]);
  const text = await metrics.text();
  expect(text).toContain('collimate_temporal_request_duration_seconds_sum{operation="StartWorkflowExecution"} 0.02\n');
  expect(text).toContain('collimate_temporal_activity_failures_total{activity="awaitGang"} 2\n');
  expect(text).toContain('collimate_temporal_cached_workflows 3\n');
  expect(text).not.toContain('slots');
  expect(text).not.toContain('namespace');
});
