/** Kill any process in the middle of a run: the run ends with the digest of an undisturbed one. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';

import {
  STAGE_STATUS_QUERY,
  stageWorkflowId,
  type JobKind,
  type JobProgress,
  type StageResult,
} from '../../workflows/contract.js';
import { Cluster, stepOf } from '../support/cluster.js';

const WORKERS = [{ id: 'w-0' }, { id: 'w-1' }];

async function withCluster<T>(body: (cluster: Cluster) => Promise<T>): Promise<T> {
  const cluster = await Cluster.start(WORKERS);
  try {
    return await body(cluster);
  } finally {
    await cluster.close();
  }
}

describe('faults', () => {
  let undisturbed = '';

  beforeAll(async () => {
    undisturbed = await withCluster(async (cluster) => (await cluster.run(await cluster.plan())).resultDigest);
  });

  /** Kills the worker that reports the step first, starts another, and expects the digest of an undisturbed run. */
  async function killWorkerAt(cluster: Cluster, kind: JobKind, step: number, settings: string[], expected: string) {
    const plan = await cluster.plan(settings);
    const reached = cluster.firstEvent(plan.runId, stepOf(kind, step));
    await cluster.submit(plan);
    const { workerId } = await reached;
    await cluster.workers.get(workerId)?.kill('SIGKILL');
    await cluster.startWorker({ id: `${workerId}-replacement` });
    const result = await cluster.result(plan.runId);
    expect(result.resultDigest).toBe(expected);
    const { incidents } = await cluster.status(plan.runId);
    expect(incidents).toMatchObject([{ cause: 'worker_lost', workerId, jobKind: kind }]);
  }

  it('worker killed in the middle of codebooks', async () => {
    // The tiny run's codebooks are done before a kill can reach them.
    const settings = ['data.simulate.items=4000', 'codebooks.codes=512', 'codebooks.iterations=100', 'tune.steps=4'];
    const expected = await withCluster(
      async (cluster) => (await cluster.run(await cluster.plan(settings))).resultDigest,
    );
    await withCluster((cluster) => killWorkerAt(cluster, 'codebooks', 2, settings, expected));
  });

  it('Temporal server killed in the middle of tune: the run goes on after its restart', async () => {
    await withCluster(async (cluster) => {
      const plan = await cluster.plan();
      const reached = cluster.firstEvent(plan.runId, stepOf('tune', 5));
      await cluster.submit(plan);
      await reached;
      await cluster.temporal.kill('SIGKILL');
      await cluster.startTemporal();
      const result = await cluster.result(plan.runId);
      expect(result.resultDigest).toBe(undisturbed);
    });
  });

  describe('operators', () => {
    let cluster: Cluster;
    beforeAll(async () => {
      cluster = await Cluster.start(WORKERS);
    });
    afterAll(async () => {
      await cluster.close();
    });

    /** The tuning job as its stage, in whatever execution it is now, reports it. */
    async function tuneOf(runId: string): Promise<JobProgress | undefined> {
      const stage = cluster.client.workflow.getHandle(stageWorkflowId(runId, 'align_tasks'));
      const { progress } = await stage.query<StageResult>(STAGE_STATUS_QUERY);
      return progress.find((job) => job.kind === 'tune');
    }

    /** Id of the stage's newest execution: a new one each time it has continued as new. */
    async function stageExecution(runId: string): Promise<string> {
      return (await cluster.client.workflow.getHandle(stageWorkflowId(runId, 'align_tasks')).describe()).runId;
    }

    it('pause frees the workers at a checkpoint, resume goes on to the same digest', async () => {
      // With so low a limit a stage may also continue as new under way; neither may change the result.
      const plan = await cluster.plan(['historyEventsMax=50', 'checkpoints.tune=3']);
      const reached = cluster.firstEvent(plan.runId, stepOf('tune', 4));
      const handle = await cluster.submit(plan);
      await reached;
      await handle.executeUpdate('pause');
      await expect.poll(async () => (await cluster.status(plan.runId)).state).toBe('paused');
      await expect.poll(async () => (await tuneOf(plan.runId))?.workers, { timeout: 20_000 }).toEqual([]);
      await handle.executeUpdate('resume');
      const result = await cluster.result(plan.runId);
      expect(result.resultDigest).toBe(undisturbed);
      await expect(handle.executeUpdate('pause')).rejects.toThrow();
    });

    it('a stage that has continued as new runs on, and still hears pause, resume and cancel', async () => {
      const plan = await cluster.plan(['tune.steps=50000', 'checkpoints.tune=10', 'historyEventsMax=50']);
      const reached = cluster.firstEvent(plan.runId, stepOf('tune', 1));
      const handle = await cluster.submit(plan);
      await reached;
      const renewed = async (before: string): Promise<void> => {
        await expect.poll(() => stageExecution(plan.runId), { timeout: 60_000, interval: 200 }).not.toBe(before);
      };
      await renewed(await stageExecution(plan.runId));
      expect(await tuneOf(plan.runId)).toMatchObject({ epoch: 1, workers: ['w-0', 'w-1'] });

      await handle.executeUpdate('pause');
      await expect.poll(async () => (await tuneOf(plan.runId))?.workers, { timeout: 20_000 }).toEqual([]);
      expect(await cluster.leases()).toEqual([]);
      const paused = await tuneOf(plan.runId);

      await handle.executeUpdate('resume');
      await renewed(await stageExecution(plan.runId));
      const resumed = await tuneOf(plan.runId);
      expect(resumed?.epoch).toBe(2);
      expect(resumed?.checkpointStep).toBeGreaterThan(paused?.checkpointStep ?? Infinity);

      await handle.cancel();
      await expect(cluster.result(plan.runId)).rejects.toThrow();
      const { state, incidents } = await cluster.status(plan.runId);
      expect({ state, incidents }).toEqual({ state: 'cancelled', incidents: [] });
      await expect.poll(async () => await cluster.leases(), { timeout: 10_000 }).toEqual([]);
    });

    it('cancel gives every worker back', async () => {
      const plan = await cluster.plan(['tune.steps=5000']);
      const reached = cluster.firstEvent(plan.runId, stepOf('tune', 2));
      const handle = await cluster.submit(plan);
      await reached;
      await handle.cancel();
      await expect(cluster.result(plan.runId)).rejects.toThrow();
      expect((await cluster.status(plan.runId)).state).toBe('cancelled');
      await expect.poll(async () => await cluster.leases(), { timeout: 10_000 }).toEqual([]);
    });
  });
});
