/** The Fleet gRPC service: from join streams to the registry, and from run events to followers. */
import { status } from '@grpc/grpc-js';

import type { FleetServiceHandlers } from '../../proto/generated/collimate/v1/FleetService.js';
import type { JoinRequest__Output } from '../../proto/generated/collimate/v1/JoinRequest.js';
import type { FleetMember, FleetRegistry } from '../fleet/registry.js';
import type { RunEvents } from '../fleet/run-events.js';
import type { WorkerClients } from '../fleet/worker-clients.js';

const BEAT_INTERVAL_MS = 1_000;
/** A worker with a job that misses a few of these is frozen (orchestrator/fleet/hang-detector.ts). */
const BUSY_BEAT_INTERVAL_MS = 250;

export interface FleetServiceOptions {
  fleet: FleetRegistry;
  events: RunEvents;
  workers: Pick<WorkerClients, 'schedule'>;
}

export function fleetService({ fleet, events, workers }: FleetServiceOptions): FleetServiceHandlers {
  return {
    Join(call) {
      let member: FleetMember | null = null;
      const leave = (): void => {
        if (member !== null) fleet.leave(member);
        member = null;
      };
      call.on('data', (request: JoinRequest__Output) => {
        if (request.hello != null) {
          leave();
          const { workerId, address, metricsAddress, numericsClass, engineRevision, pid } = request.hello;
          member = fleet.join({ workerId, address, metricsAddress, numericsClass, engineRevision, pid });
          call.write({ beatIntervalMs: BEAT_INTERVAL_MS, busyBeatIntervalMs: BUSY_BEAT_INTERVAL_MS });
        } else if (request.beat != null && member !== null) {
          const { lease, progress, draining, cordoned } = request.beat;
          fleet.beat(member, { lease, progress, draining, cordoned });
        } else if (request.log != null && member !== null) {
          fleet.addLog(member.workerId, request.log.lines);
        }
      });
      call.on('end', () => {
        leave();
        call.end();
      });
      call.on('cancelled', leave);
      call.on('close', leave);
      call.on('error', leave);
    },

    ListWorkers(_call, callback) {
      callback(null, {
        workers: fleet
          .list()
          .map(({ lease, joinedUnixSeconds, lastSeenUnixSeconds, progress, draining, cordoned, ...hello }) => ({
            hello,
            lease,
            joinedUnixSeconds,
            lastSeenUnixSeconds,
            progress,
            draining,
            cordoned,
          })),
      });
    },

    SetScheduling(call, callback) {
      const { workerId, scheduling } = call.request;
      const member = fleet.get(workerId);
      if (member === undefined) {
        callback({ code: status.NOT_FOUND, details: `no worker ${workerId} in the fleet` });
        return;
      }
      workers.schedule(member, scheduling).then(
        () => {
          callback(null, {});
        },
        (error: unknown) => {
          const details = error instanceof Error ? error.message : String(error);
          callback({ code: status.UNAVAILABLE, details: `worker ${workerId} did not answer: ${details}` });
        },
      );
    },

    WatchRun(call) {
      const { runId } = call.request;
      if (runId === '') {
        // Not `destroy`: that would leave the caller without an answer.
        call.emit('error', Object.assign(new Error('expected a run id'), { code: status.INVALID_ARGUMENT }));
        return;
      }
      const unfollow = events.follow(runId, (entry) => {
        call.write(entry);
      });
      call.on('cancelled', unfollow);
      call.on('close', unfollow);
      call.on('error', unfollow);
    },
  };
}
