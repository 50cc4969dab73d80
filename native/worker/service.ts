/** The worker's gRPC service: a thin layer from messages to the lease and to job runs. */
import { Metadata, status, type sendUnaryData, type ServerUnaryCall } from '@grpc/grpc-js';

import type { JobRef__Output } from '../../proto/generated/collimate/v1/JobRef.js';
import type { WorkerServiceHandlers } from '../../proto/generated/collimate/v1/WorkerService.js';
import type { Logger } from '../../orchestrator/telemetry/logger.js';
import type { AttemptRef } from './lease.js';
import { isTerminal } from './event-log.js';
import type { JobHost } from './job-host.js';

/** An operating error with the gRPC status it is answered with. */
class ServiceError extends Error {
  constructor(
    readonly code: status,
    message: string,
  ) {
    super(message);
  }
}

export interface ServiceOptions {
  workerId: string;
  numericsClass: string;
  host: JobHost;
  log: Logger;
}

export function workerService({ workerId, numericsClass, host, log }: ServiceOptions): WorkerServiceHandlers {
  const requireRun = (ref: JobRef__Output | null) => {
    const attempt = attemptOf(ref);
    const run = host.find(attempt);
    if (run === undefined) {
      throw new ServiceError(
        status.NOT_FOUND,
        `worker ${workerId} knows nothing of ${attempt.jobId} epoch ${String(attempt.epoch)}`,
      );
    }
    return run;
  };
  return {
    Reserve: unary(async (request) => {
      const attempt = attemptOf(request.job);
      const outcome = await host.reserve(attempt, request.ttlMs);
      if (outcome.type === 'granted') return { warm: outcome.warmStep !== null, warmStep: outcome.warmStep ?? 0 };
      if (outcome.type === 'draining') {
        throw new ServiceError(status.RESOURCE_EXHAUSTED, `worker ${workerId} was told to end and takes no more work`);
      }
      if (outcome.type === 'cordoned') {
        throw new ServiceError(status.RESOURCE_EXHAUSTED, `worker ${workerId} is cordoned and takes no new job`);
      }
      if (outcome.type === 'stale') {
        throw new ServiceError(
          status.FAILED_PRECONDITION,
          `epoch ${String(attempt.epoch)} of ${attempt.jobId} is stale: ${String(outcome.currentEpoch)} is current`,
        );
      }
      throw new ServiceError(status.RESOURCE_EXHAUSTED, `worker ${workerId} works for ${outcome.holder.jobId}`);
    }),
    Release: unary(async (request) => {
      await host.release(attemptOf(request.job));
      return {};
    }),
    StartJob: unary((request) => {
      const attempt = attemptOf(request.job);
      if (request.definition === null) throw new ServiceError(status.INVALID_ARGUMENT, 'StartJob without a definition');
      if (host.staleness(attempt) !== null) {
        throw new ServiceError(
          status.FAILED_PRECONDITION,
          `epoch ${String(attempt.epoch)} of ${attempt.jobId} is stale`,
        );
      }
      const known = host.find(attempt);
      if (known === undefined) {
        const started = host.start({
          ...attempt,
          definition: request.definition,
          rank: request.place?.rank ?? 0,
          world: request.place?.world ?? 1,
          rendezvousAddress: request.place?.rendezvousAddress ?? '',
          resumeManifestDigest: request.resumeManifestDigest,
          checkpointIntervalSteps: request.checkpointIntervalSteps,
          joinSurvivors: request.joinSurvivors,
          memorySaving: request.memorySaving,
          untilStep: request.untilStep,
          dryRun: request.dryRun,
          checkpointsKept: request.checkpointsKept,
          runId: request.runId,
          stage: request.stage,
        });
        if (!started) {
          throw new ServiceError(
            status.FAILED_PRECONDITION,
            `worker ${workerId} holds no lease for ${attempt.jobId} epoch ${String(attempt.epoch)}: reserve first`,
          );
        }
      }
      return {};
    }),
    StopJob: unary((request) => {
      requireRun(request.job).requestStop();
      return {};
    }),
    RegroupJob: unary((request) => {
      requireRun(request.job).requestRegroup();
      return {};
    }),
    CancelJob: unary((request) => {
      requireRun(request.job).abort();
      return {};
    }),
    CheckpointNow: unary((request) => {
      requireRun(request.job).requestCheckpoint();
      return {};
    }),
    Schedule: unary(({ scheduling }) => {
      log.info(`scheduling: ${scheduling}`);
      if (scheduling === 'SCHEDULING_OPEN') host.cordon(false);
      else if (scheduling === 'SCHEDULING_CORDONED') host.cordon(true);
      else if (scheduling === 'SCHEDULING_DRAINED') {
        host.cordon(true);
        host.drain().catch((error: unknown) => {
          log.error({ error }, 'hand-over failed');
        });
      } else throw new ServiceError(status.INVALID_ARGUMENT, `expected a kind of scheduling, got ${scheduling}`);
      return {};
    }),
    Health: unary(() => {
      const lease = host.holder;
      return { workerId, numericsClass, jobId: lease?.jobId ?? '', epoch: lease?.epoch ?? 0 };
    }),
    WatchJob: (call) => {
      let run;
      try {
        run = requireRun(call.request.job);
      } catch (error) {
        // Not `destroy`: that ends the stream without telling the caller why, or that it ended at all.
        call.emit('error', asServiceError(error));
        return;
      }
      const { order } = run;
      // Tells the caller that it is attached, however long the first event takes.
      call.sendMetadata(new Metadata());
      const unfollow = run.events.follow(call.request.afterSequence, (event) => {
        call.write({ event: { jobId: order.jobId, epoch: order.epoch, rank: order.rank, ...event } });
        if (isTerminal(event)) call.end();
      });
      call.on('cancelled', unfollow);
      call.on('close', unfollow);
      call.on('error', unfollow);
    },
  };
}

function attemptOf(ref: JobRef__Output | null): AttemptRef {
  if (ref === null || ref.jobId === '' || ref.epoch === 0) {
    throw new ServiceError(status.INVALID_ARGUMENT, 'expected a job id and an epoch of at least 1');
  }
  return { jobId: ref.jobId, epoch: ref.epoch };
}

/** One place where handlers' errors become gRPC statuses. */
function unary<Request, Response>(handle: (request: Request) => Response | Promise<Response>) {
  return (call: ServerUnaryCall<Request, Response>, callback: sendUnaryData<Response>): void => {
    Promise.resolve()
      .then(() => handle(call.request))
      .then(
        (response) => {
          callback(null, response);
        },
        (error: unknown) => {
          callback(asServiceError(error));
        },
      );
  };
}

function asServiceError(error: unknown) {
  const message = error instanceof Error ? error.message : String(error);
  const code = error instanceof ServiceError ? error.code : status.INTERNAL;
  return Object.assign(new Error(message), { code, details: message });
}
