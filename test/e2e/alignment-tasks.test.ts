/** Every alignment task at once, groups with their reference included: a gang that loses a member ends with the bytes of a worker alone. */
import { afterAll, beforeAll, expect, it } from 'vitest';

import { Cluster, stepOf } from '../support/cluster.js';

const TASKS = [
  ...['text', 'query', 'negative', 'ranking'].map((task) => `render.tasks.${task}.weight=0.5`),
  'tune.steps=160',
];

let cluster: Cluster;
beforeAll(async () => {
  cluster = await Cluster.start([{ id: 'w-0' }, { id: 'w-1' }, { id: 'w-2' }]);
});
afterAll(async () => {
  await cluster.close();
});

it('trains on all tasks, tells the loss of each, and survives a killed worker to the byte', async () => {
  const alone = await cluster.run(await cluster.plan([...TASKS, 'fleet.workers.max=1']));
  const { tasks } = alone.jobs['render']?.summary as { tasks: Record<string, { examples: number; labels: number }> };
  expect(Object.keys(tasks)).toEqual(['sequential', 'text', 'query', 'negative', 'ranking']);
  for (const { examples, labels } of Object.values(tasks)) expect(labels).toBeGreaterThan(examples);

  await cluster.forgetJob(alone.jobs['tune']?.key ?? '');
  const plan = await cluster.plan([...TASKS, 'fleet.workers.max=2', 'fleet.workers.spares=1']);
  const reached = cluster.firstEvent(plan.runId, stepOf('tune', 30));
  await cluster.submit(plan);
  const { workerId, jobEvent } = await reached;
  // A batch of sixteen may lack a task or two.
  const losses = Object.keys(jobEvent?.step?.metrics ?? {}).filter((name) => name.startsWith('loss_'));
  expect(losses.length).toBeGreaterThanOrEqual(2);
  await cluster.workers.get(workerId)?.kill('SIGKILL');
  // The spare takes the state from the survivor, and computes the reference again.
  expect((await cluster.result(plan.runId)).resultDigest).toBe(alone.resultDigest);
  expect((await cluster.status(plan.runId)).incidents).toMatchObject([{ cause: 'worker_lost', job: 'tune' }]);
});
