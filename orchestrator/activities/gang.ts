/**
 * Gangs: lease workers, start a job on them, follow it, give them back.
 *
 * 1. Leases are all-or-nothing, taken in worker-id order, and released again on the first refusal: two gangs that want
 *    the same workers cannot hold each other up.
 * 2. A retried wait finds the attempt's watch, or attaches anew after a restart of this process; it never starts anything.
 */
import { Context } from '@temporalio/activity';

import type { AcquireRequest, Activities, Attempt } from '../../workflows/activity-contract.js';
import type { GangMember } from '../../workflows/contract.js';
import { canonicalJson } from '../artifacts/job-key.js';
import type { FleetMember } from '../fleet/registry.js';
import type { ActivityDependencies } from './dependencies.js';
import { classified, classifyingStoreErrors } from './failures.js';

const LEASE_TTL_MS = 15_000;
const HEARTBEAT_MS = 1_000;
const POLL_MS = 250;

type GangActivities = Pick<Activities, 'acquireGang' | 'startGang' | 'awaitGang' | 'stopGang' | 'releaseGang'>;

export function gangActivities(dependencies: ActivityDependencies): GangActivities {
  const { store, fleet, workers, events, metrics, rendezvousAddress } = dependencies;

  /** Reserves every candidate or none. */
  async function reserveAll(request: AcquireRequest, candidates: FleetMember[]): Promise<boolean> {
    const reserved: GangMember[] = [];
    for (const member of candidates) {
      if (await workers.reserve(member, request, LEASE_TTL_MS)) {
        reserved.push(member);
        fleet.setLease(member, { jobId: request.jobId, epoch: request.epoch });
      } else {
        await Promise.all(reserved.map((taken) => workers.release(taken, request)));
        return false;
      }
    }
    return true;
  }

  return {
    async acquireGang(request) {
      const startedMs = Date.now();
      let tooFewSinceMs: number | null = null;
      let enoughSinceMs: number | null = null;
      for (;;) {
        heartbeat();
        const compatible = fleet.compatible(request);
        if (compatible.length < request.min) {
          tooFewSinceMs ??= Date.now();
          if (Date.now() - tooFewSinceMs > request.waitSeconds * 1000) throw tooFewWorkers(request, compatible);
        } else {
          tooFewSinceMs = null;
        }
        const free = compatible
          .filter((member) => member.lease === null || member.lease.jobId === request.jobId)
          .slice(0, request.max);
        if (free.length >= request.min) {
          enoughSinceMs ??= Date.now();
          const waitedMs = Date.now() - enoughSinceMs;
          if (free.length === request.max || waitedMs > request.fullGangWaitSeconds * 1000) {
            if (await reserveAll(request, free)) {
              metrics.observe(
                'collimate_queue_wait_duration_seconds',
                { run: request.runId, stage: request.stage },
                (Date.now() - startedMs) / 1000,
              );
              return free.map(({ workerId, address }) => ({ workerId, address }));
            }
          }
        } else {
          enoughSinceMs = null;
        }
        await fleet.changed(POLL_MS);
      }
    },

    async startGang({ members, key, spec, checkpointIntervalSteps, ...attempt }) {
      const startedMs = Date.now();
      const checkpoint = await classifyingStoreErrors(() => store.latestCheckpoint(key));
      await Promise.all(
        members.map(async (member, rank) => {
          await workers.start(member, {
            attempt,
            definition: { key, specJson: canonicalJson(spec) },
            place: { rank, world: members.length, rendezvousAddress: members.length > 1 ? rendezvousAddress() : '' },
            resumeManifestDigest: checkpoint?.manifestDigest ?? '',
            checkpointIntervalSteps,
          });
        }),
      ).catch((error: unknown) => {
        throw classified('worker_lost', `starting ${attempt.jobId}: ${messageOf(error)}`);
      });
      metrics.observe(
        'collimate_dispatch_duration_seconds',
        { run: attempt.runId, stage: attempt.stage },
        (Date.now() - startedMs) / 1000,
      );
      const names = members.map((member) => member.workerId).join(', ');
      const from = checkpoint === null ? 'the beginning' : `step ${String(checkpoint.step)}`;
      events.note(attempt, `${attempt.jobId} epoch ${String(attempt.epoch)} started on ${names} from ${from}`);
      return { resumedFromStep: checkpoint?.step ?? 0 };
    },

    async awaitGang({ members, afterStep, ...attempt }) {
      const watch = workers.watch(attempt, members, (member, event) => {
        events.jobEvent(attempt, member, event);
      });
      const beat = setInterval(() => {
        heartbeat(watch.progress);
      }, HEARTBEAT_MS);
      try {
        return await watch.next(afterStep, Context.current().cancellationSignal);
      } finally {
        clearInterval(beat);
      }
    },

    async stopGang({ members, ...attempt }) {
      await Promise.all(members.map((member) => workers.stop(member, attempt).catch(() => undefined)));
      events.note(attempt, `${attempt.jobId} asked to stop after a checkpoint`);
    },

    async releaseGang({ members, ...attempt }: Attempt & { members: GangMember[] }) {
      workers.endWatch(attempt);
      await Promise.all(
        members.map(async (member) => {
          await workers.release(member, attempt);
          const known = fleet.get(member.workerId);
          if (known?.lease?.jobId === attempt.jobId && known.lease.epoch === attempt.epoch) fleet.setLease(known, null);
        }),
      );
    },
  };
}

function tooFewWorkers(request: AcquireRequest, compatible: FleetMember[]): Error {
  const { jobId, min, waitSeconds, numericsClass } = request;
  return classified(
    'no_workers',
    `${jobId} expected at least ${String(min)} worker(s) of numerics class ${numericsClass} within ` +
      `${String(waitSeconds)} s, but ${String(compatible.length)} joined; start workers with "collimate worker", ` +
      'or lower fleet.min in the run file',
  );
}

/** Records a heartbeat; throws once the activity is cancelled. */
function heartbeat(details?: unknown): void {
  const context = Context.current();
  context.heartbeat(details);
  context.cancellationSignal.throwIfAborted();
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
