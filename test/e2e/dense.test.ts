/** The dense model beside the language model: laned and elastic as it is, and a row of its own in the metrics. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';

import type { EvaluationReport } from '../../orchestrator/recommender/evaluation.js';
import { Cluster, stepOf } from '../support/cluster.js';

const DENSE = ['dense.dim=32', 'dense.epochs=60', 'dense.batchSequences=32', 'dense.seeds=2', 'checkpoints.dense=20'];

describe('the dense model', () => {
  let cluster: Cluster;
  beforeAll(async () => {
    cluster = await Cluster.start([{ id: 'w-0' }, { id: 'w-1' }]);
  });
  afterAll(async () => {
    await cluster.close();
  });

  it('ends with the same bytes when a worker of its gang is killed, and is reported beside the other rows', async () => {
    const undisturbed = await cluster.run(await cluster.plan([...DENSE, 'fleet.workers.max=1']));
    const key = undisturbed.jobs['dense/0']?.key ?? '';
    expect(undisturbed.jobs['dense/1']?.key).not.toBe(key);
    const metrics = undisturbed.jobs['evaluate']?.summary as EvaluationReport | undefined;
    expect(metrics?.dense?.hr['10']).toBeGreaterThan(0);

    await cluster.forgetJob(key);
    const plan = await cluster.plan([...DENSE, 'fleet.workers.max=2']);
    const reached = cluster.firstEvent(plan.runId, stepOf('dense/0', 30));
    await cluster.submit(plan);
    const { workerId } = await reached;
    await cluster.workers.get(workerId)?.kill('SIGKILL');
    expect((await cluster.result(plan.runId)).resultDigest).toBe(undisturbed.resultDigest);
    expect((await cluster.status(plan.runId)).incidents).toMatchObject([{ cause: 'worker_lost', job: 'dense/0' }]);
  });
});
