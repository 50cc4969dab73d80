/** The Rendezvous gRPC service over the in-memory store. */
import { status } from '@grpc/grpc-js';

import type { RendezvousServiceHandlers } from '../../proto/generated/collimate/v1/RendezvousService.js';
import { StaleEpochError, type RendezvousStore } from '../fleet/rendezvous.js';

/** One gather waits at most so long; ranks ask again until their own deadline. */
const GATHER_WAIT_MS = 5_000;

export function rendezvousService(store: RendezvousStore): RendezvousServiceHandlers {
  return {
    Put(call, callback) {
      const { job, rank, world, blob } = call.request;
      try {
        store.put({ jobId: job?.jobId ?? '', epoch: job?.epoch ?? 0, world }, rank, Buffer.from(blob));
        callback(null, {});
      } catch (error) {
        callback(asStatus(error));
      }
    },

    Gather(call, callback) {
      const { job, world } = call.request;
      store.gather({ jobId: job?.jobId ?? '', epoch: job?.epoch ?? 0, world }, GATHER_WAIT_MS).then(
        (blobs) => {
          if (blobs !== undefined) callback(null, { blobs });
          else callback(asStatus(new Error('not every rank has come yet'), status.DEADLINE_EXCEEDED));
        },
        (error: unknown) => {
          callback(asStatus(error));
        },
      );
    },
  };
}

function asStatus(error: unknown, code?: status) {
  const message = error instanceof Error ? error.message : String(error);
  const byType =
    error instanceof StaleEpochError
      ? status.FAILED_PRECONDITION
      : error instanceof RangeError
        ? status.INVALID_ARGUMENT
        : status.INTERNAL;
  return Object.assign(new Error(message), { code: code ?? byType, details: message });
}
