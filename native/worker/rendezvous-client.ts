/** A rank's side of the rendezvous: put the own address, then ask for all until they are there. */
import { status } from '@grpc/grpc-js';

import type { RendezvousServiceClient } from '../../proto/generated/collimate/v1/RendezvousService.js';
import { loadService, makeClient, RpcError, unary } from '../../orchestrator/fleet/channel.js';
import type { JobOrder } from './job-runner.js';

const CALL_DEADLINE_MS = 8_000;
const RETRY_DELAY_MS = 200;
/** A rank that has not come by then is not coming: the workflow forms another gang. */
const MEET_DEADLINE_MS = 30_000;

/** Addresses of all ranks in rank order. Repeats over a controller restart; a stale epoch or `signal` ends it at once. */
export async function meet(order: JobOrder, address: string, signal: AbortSignal): Promise<string[]> {
  const client = makeClient<RendezvousServiceClient>(loadService('RendezvousService'), order.rendezvousAddress);
  const job = { jobId: order.jobId, epoch: order.epoch };
  const { rank, world } = order;
  const deadline = Date.now() + MEET_DEADLINE_MS;
  try {
    for (;;) {
      try {
        const blob = Buffer.from(address);
        await unary(client, 'put', { job, rank, world, blob }, { deadlineMs: CALL_DEADLINE_MS, signal });
        const { blobs } = await unary(client, 'gather', { job, world }, { deadlineMs: CALL_DEADLINE_MS, signal });
        return blobs.map((entry) => entry.toString('utf8'));
      } catch (error) {
        signal.throwIfAborted();
        const final = error instanceof RpcError && error.code === status.FAILED_PRECONDITION;
        if (final || Date.now() > deadline) {
          const message = error instanceof Error ? error.message : String(error);
          throw Object.assign(new Error(`rank ${String(rank)} of ${String(world)} found no gang: ${message}`), {
            code: 'peer_lost',
          });
        }
        await new Promise((resolve) => setTimeout(resolve, RETRY_DELAY_MS));
      }
    }
  } finally {
    client.close();
  }
}
