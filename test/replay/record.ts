/**
 * Records the histories that the replay test holds today's workflows to: a tiny run in which a worker is killed while it
 * tunes. Run it after a deliberate change of the workflows: `node dist/test/replay/record.js`.
 *
 * Names of hosts and processes are taken out; they are no part of what replays.
 */
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';

import { historyToJSON } from '@temporalio/common/lib/proto-utils.js';

import { STAGES, stageWorkflowId } from '../../workflows/contract.js';
import { Cluster, ROOT, stepOf } from '../support/cluster.js';

const cluster = await Cluster.start([{ id: 'w-0' }, { id: 'w-1' }]);
try {
  const plan = await cluster.plan(['checkpoints.tune=5']);
  plan.runId = 'recorded';
  const reached = cluster.firstEvent(plan.runId, stepOf('tune', 12));
  await cluster.submit(plan);
  const { workerId } = await reached;
  await cluster.workers.get(workerId)?.kill('SIGKILL');
  await cluster.startWorker({ id: 'w-2' });
  await cluster.result(plan.runId);
  for (const workflowId of [plan.runId, ...STAGES.map((stage) => stageWorkflowId(plan.runId, stage))]) {
    const history = await cluster.client.workflow.getHandle(workflowId).fetchHistory();
    const text = JSON.stringify(historyToJSON(history), (key, value: unknown) => (key === 'identity' ? '' : value));
    const file = join(ROOT, 'test/replay/histories', `${workflowId.replace('/', '-')}.json`);
    await writeFile(file, `${text.replaceAll(cluster.folder, '/cluster')}\n`);
  }
} finally {
  await cluster.close();
}
