/** What a run leaves to see and to use: metrics in Prometheus form, its event log, and the lists over gRPC. */
import { spawnSync } from 'node:child_process';
import { readFile } from 'node:fs/promises';

import { status } from '@grpc/grpc-js';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';

import { loadService, makeClient, unary } from '../../orchestrator/fleet/channel.js';
import type { RecommendServiceClient } from '../../proto/generated/collimate/v1/RecommendService.js';
import type { RunResult } from '../../workflows/contract.js';
import { Cluster } from '../support/cluster.js';

describe('after a run', () => {
  let cluster: Cluster;
  let result: RunResult;
  let metricsText = '';
  beforeAll(async () => {
    cluster = await Cluster.start([{ id: 'w-0' }, { id: 'w-1' }]);
    result = await cluster.run(await cluster.plan());
    metricsText = await (await fetch(`http://${cluster.controllerMetrics}/metrics`)).text();
  });
  afterAll(async () => {
    await cluster.close();
  });

  it.each([
    'collimate_run_state{run="RUN",state="done"} 1',
    'collimate_steps_total{run="RUN",stage="align_tasks"}',
    'collimate_tokens_total{run="RUN",stage="align_tasks"}',
    'collimate_samples_total{run="RUN",stage="align_tasks"}',
    'collimate_loss{run="RUN",stage="align_tasks",task="total"}',
    'collimate_step_duration_seconds_count{run="RUN",stage="align_tasks",rank="1"}',
    'collimate_checkpoint_duration_seconds_count{run="RUN",stage="align_tasks"}',
    'collimate_checkpoint_size_bytes{run="RUN",stage="align_tasks"}',
    'collimate_dispatch_duration_seconds_count{run="RUN",stage="align_tasks"}',
    'collimate_codebook_perplexity{run="RUN",level="1"}',
    'collimate_workers{state="idle"} 2',
    'collimate_worker_last_seen_timestamp_seconds{worker="w-0"}',
  ])('the controller exports %s', (series) => {
    expect(metricsText).toContain(series.replace('RUN', result.runId));
  });

  it('exports what promtool accepts', (context) => {
    const { error, stdout, stderr } = spawnSync('promtool', ['check', 'metrics'], { input: metricsText });
    if (error !== undefined) {
      context.skip('promtool is not installed (Debian package prometheus)');
      return;
    }
    expect(`${String(stdout)}${String(stderr)}`).toBe('');
  });

  it('keeps the events of the run', async () => {
    const events = await cluster.store.readRunEvents(result.runId);
    const types = new Set(events.map((event) => event['type']));
    for (const type of ['note', 'step', 'checkpoint', 'finished']) expect(types).toContain(type);
  });

  it('serves exactly the published lists, and knows no others', async () => {
    const address = await cluster.startServer();
    const client = makeClient<RecommendServiceClient>(loadService('RecommendService'), address);
    try {
      const published = await readFile(
        await cluster.store.localPath(result.jobs['assemble']?.outputs['published'] ?? ''),
        'utf8',
      );
      const lines = published.trimEnd().split('\n').slice(0, 20);
      for (const line of lines) {
        const { user, items } = JSON.parse(line) as { user: string; items: string[] };
        const answer = await unary(client, 'recommend', { userId: user, k: 5 }, { deadlineMs: 5_000 });
        expect(answer.items.map((item) => item.itemId)).toEqual(items.slice(0, 5));
        expect(answer.items.every((item) => item.title !== '')).toBe(true);
        expect(answer.generation).toBe(result.generation);
      }
      const unknown = unary(client, 'recommend', { userId: 'nobody', k: 5 }, { deadlineMs: 5_000 });
      await expect(unknown).rejects.toMatchObject({ code: status.NOT_FOUND });
    } finally {
      client.close();
    }
  });
});
