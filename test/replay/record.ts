/**
 * Records the histories that the replay test holds today's workflows to: a tiny run in which a worker is killed while it
 * tunes. Run it after a deliberate change of the workflows: `node dist/test/replay/record.js`.
 *
 * Names of hosts and processes are taken out; they are no part of what replays.
 */
import { writeFile } from 'node:fs/promises';
import { hostname } from 'node:os';
import { join } from 'node:path';

import proto from '@temporalio/proto';

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
    const bytes = proto.temporal.api.history.v1.History.encode(withoutIdentities(history)).finish();
    await writeFile(join(ROOT, 'test/replay/histories', `${workflowId.replace('/', '-')}.binpb`), bytes);
  }
} finally {
  await cluster.close();
}

/** A copy in which every `identity` (process and host) is empty. */
function withoutIdentities<T>(value: T): T {
  // Sticky task queues are named after the process and its host.
  if (typeof value === 'string') return value.replaceAll(hostname(), 'host') as T;
  if (Array.isArray(value)) return value.map(withoutIdentities) as T;
  // Only plain messages are walked: byte arrays and 64-bit numbers are kept as they are.
  if (typeof value !== 'object' || value === null || value instanceof Uint8Array || 'unsigned' in value) return value;
  const entries = Object.entries(value).map(([key, inner]: [string, unknown]) => [
    key,
    key === 'identity' ? '' : withoutIdentities(inner),
  ]);
  return Object.fromEntries(entries) as T;
}
