/** Failure classes that a process does not die of: what is done about each, and what a person is told. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';

import { STAGE_STATUS_QUERY, stageWorkflowId, type StageResult } from '../../workflows/contract.js';
import { Cluster, stepOf } from '../support/cluster.js';

let cluster: Cluster;

beforeAll(async () => {
  cluster = await Cluster.start([{ id: 'w-0' }, { id: 'w-1' }]);
});

afterAll(async () => {
  await cluster.close();
});

describe('failure classes', () => {
  it('a loss that is not finite is replayed once, then ends the run with the step and its samples', async () => {
    const plan = await cluster.plan(['tune.learningRate=1e29', 'tune.clipNorm=1e29', 'tune.warmupSteps=0']);
    await cluster.submit(plan);
    await expect(cluster.result(plan.runId)).rejects.toThrow();
    const { state, failure, incidents } = await cluster.status(plan.runId);
    expect(state).toBe('failed');
    expect(incidents.map(({ cause }) => cause)).toEqual(['nan_loss', 'nan_loss']);
    expect(incidents[1]?.failedAtStep).toBe(incidents[0]?.failedAtStep);
    expect(failure).toMatch(/step \d+: loss .*examples \[.*fails again/);
    await expect.poll(async () => await cluster.leases(), { timeout: 10_000 }).toEqual([]);
  });

  it('a second, different result for one key is an incident that names both, and the first stays', async () => {
    const plan = await cluster.plan(['seed=77', 'tune.steps=300']);
    const reached = cluster.firstEvent(plan.runId, stepOf('tune', 5));
    await cluster.submit(plan);
    await reached;
    const key = await tuneKeyOf(plan.runId);
    const other = await cluster.store.putBytes(Buffer.from('another result'));
    await cluster.store.commitJobResult({ key, outputs: { model: other }, summary: {} });
    await expect(cluster.result(plan.runId)).rejects.toThrow();
    const { failure, incidents } = await cluster.status(plan.runId);
    expect(incidents.at(-1)?.cause).toBe('nondeterminism');
    expect(failure).toContain(key);
    expect(failure).toContain(other);
    expect((await cluster.store.getJobResult(key))?.outputs).toEqual({ model: other });
  });

  it('an artifact that is damaged under way is made again, and the run ends with the same digest', async () => {
    const settings = ['seed=5', 'tune.steps=400', 'tune.batchSequences=64'];
    const plan = await cluster.plan(settings);
    const undisturbed = await cluster.run(plan);
    await cluster.forgetJob(undisturbed.jobs['tune']?.key ?? '');
    const codes = undisturbed.jobs['codebooks']?.outputs['codes'] ?? '';
    const again = await cluster.plan(settings);
    const reached = cluster.firstEvent(again.runId, stepOf('tune', 20));
    await cluster.submit(again);
    await reached;
    // The catalogue is needed again by what follows tuning.
    await cluster.damage(undisturbed.jobs['ingest']?.outputs['catalogue'] ?? '');
    await cluster.damage(codes);
    const result = await cluster.result(again.runId);
    expect(result.resultDigest).toBe(undisturbed.resultDigest);
    expect((await cluster.store.readBytes(codes)).length).toBeGreaterThan(0);
  });
});

/** The key of the tuning job under way. */
async function tuneKeyOf(runId: string): Promise<string> {
  const stage = cluster.client.workflow.getHandle(stageWorkflowId(runId, 'align_tasks'));
  const { progress } = await stage.query<StageResult>(STAGE_STATUS_QUERY);
  return progress.find((job) => job.kind === 'tune')?.key ?? '';
}
