/** Principle 2: bits do not depend on the fleet. 1, 2, 3 and 4 workers with 1, 2 and 3 threads give one result digest. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';

import { Cluster } from '../support/cluster.js';

const SHAPES = [
  { workers: 1, threads: 1 },
  { workers: 2, threads: 1 },
  { workers: 3, threads: 2 },
  { workers: 4, threads: 1 },
  { workers: 1, threads: 3 },
];

describe('fleet size', () => {
  const digests: string[] = [];

  for (const { workers, threads } of SHAPES) {
    it(`gives one digest with ${String(workers)} worker(s) of ${String(threads)} thread(s)`, async () => {
      const shape = Array.from({ length: workers }, (_, index) => ({ id: `w-${String(index)}`, threads }));
      const cluster = await Cluster.start(shape);
      try {
        const plan = await cluster.plan([`fleet.workers.min=${String(workers)}`]);
        const result = await cluster.run(plan);
        digests.push(result.resultDigest);
        expect(result.resultDigest).toBe(digests[0]);
      } finally {
        await cluster.close();
      }
    });
  }
});

describe('complaint 10: a finished job is created again', () => {
  let cluster: Cluster;
  beforeAll(async () => {
    cluster = await Cluster.start([{ id: 'w-0' }]);
  });
  afterAll(async () => {
    await cluster.close();
  });

  it('answers an unchanged run from the store, and only what changed runs again', async () => {
    const first = await cluster.run(await cluster.plan());
    const startedMs = Date.now();
    const again = await cluster.plan();
    const second = await cluster.run(again);
    expect(second.resultDigest).toBe(first.resultDigest);
    expect(Date.now() - startedMs).toBeLessThan(10_000);
    const jobs = (await cluster.status(again.runId)).stages.flatMap((stage) => stage.jobs);
    expect(jobs.length).toBeGreaterThan(6);
    expect(jobs.every((job) => job.memoised)).toBe(true);

    const changed = await cluster.plan(['rank.beams=24']);
    const third = await cluster.run(changed);
    expect(third.resultDigest).not.toBe(first.resultDigest);
    const ran = (await cluster.status(changed.runId)).stages
      .flatMap((stage) => stage.jobs)
      .filter((job) => !job.memoised);
    expect(new Set(ran.map((job) => job.kind))).toEqual(
      new Set(['rank', 'fit_fusion', 'fuse', 'evaluate', 'assemble']),
    );
  });

  it('rebuilds an object that was damaged, with the same digest', async () => {
    const first = await cluster.run(await cluster.plan());
    const model = first.jobs['tune']?.outputs['model'];
    if (model === undefined) throw new Error('no model');
    const { truncate } = await import('node:fs/promises');
    await truncate(await cluster.store.localPath(model), 100);
    const second = await cluster.run(await cluster.plan());
    expect(second.resultDigest).toBe(first.resultDigest);
  });
});
