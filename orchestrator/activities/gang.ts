/**
 * Gangs: lease workers, start a job on them, follow it, give them back.
 *
 * 1. Leases are all-or-nothing, taken in worker-id order, and released again on the first refusal: two gangs that want
 *    the same workers cannot hold each other up.
 * 2. A worker that could not be told to let go is told when it shows itself again with that lease: one that was frozen does
 *    not work on for nobody.
 * 3. A retried wait finds the attempt's watch, or attaches anew after a restart of this process; it never starts anything.
 */
import type { AcquireRequest, Activities, Attempt } from '../../workflows/activity-contract.js';
import type { GangMember } from '../../workflows/contract.js';
import { canonicalJson } from '../artifacts/job-key.js';
import type { FleetMember, LeaseHolder } from '../fleet/registry.js';
import { RELEASE_DEADLINE_MS, type Reservation } from '../fleet/worker-clients.js';
import type { ActivityDependencies } from './dependencies.js';
import { classified, classifyingStoreErrors } from './failures.js';
import { withHeartbeats } from './heartbeat.js';

const LEASE_TTL_MS = 15_000;
/** For a worker that the fleet does not see: it hardly answers, and the next gang waits for this. */
const ABSENT_DEADLINE_MS = 2_000;
const POLL_MS = 250;
/** A gang does without a worker that cannot be reached for so long before it is asked again. */
const UNREACHABLE_PAUSE_MS = 3_000;

type GangActivities = Pick<Activities, 'acquireGang' | 'startGang' | 'awaitGang' | 'stopGang' | 'releaseGang'>;

export function gangActivities(dependencies: ActivityDependencies): GangActivities {
  const { store, fleet, workers, events, metrics, rendezvousAddress } = dependencies;

  /** By worker id, the attempt that it was not told to let go of. */
  const unreleased = new Map<string, LeaseHolder>();
  fleet.on('beat', (member) => {
    const attempt = unreleased.get(member.workerId);
    if (attempt === undefined) return;
    unreleased.delete(member.workerId);
    if (holds(member, attempt)) void giveBack(member, attempt);
  });

  async function giveBack(member: GangMember, attempt: LeaseHolder): Promise<void> {
    const present = fleet.get(member.workerId)?.address === member.address;
    const told = await workers.release(member, attempt, present ? RELEASE_DEADLINE_MS : ABSENT_DEADLINE_MS);
    if (!told) unreleased.set(member.workerId, { jobId: attempt.jobId, epoch: attempt.epoch });
    const known = fleet.get(member.workerId);
    if (known !== undefined && holds(known, attempt)) fleet.setLease(known, null);
    if (known?.address !== member.address) workers.forget(member.address);
  }

  /** Reserves every candidate or none; answers the one that refused, if any. */
  async function reserveAll(
    request: AcquireRequest,
    candidates: FleetMember[],
  ): Promise<{ member: FleetMember; why: Exclude<Reservation, 'granted'> } | null> {
    const reserved: FleetMember[] = [];
    const undo = async () => Promise.all(reserved.map((taken) => giveBack(taken, request)));
    for (const member of candidates) {
      const answer = await workers.reserve(member, request, LEASE_TTL_MS).catch(async (error: unknown) => {
        await undo();
        // Only another epoch of this job can come from here: the next attempt has a higher one.
        throw classified('internal', messageOf(error), member.workerId);
      });
      if (answer !== 'granted') {
        await undo();
        return { member, why: answer };
      }
      reserved.push(member);
      fleet.setLease(member, { jobId: request.jobId, epoch: request.epoch });
    }
    return null;
  }

  async function acquire(request: AcquireRequest, signal: AbortSignal): Promise<GangMember[]> {
    const startedMs = Date.now();
    const unreachableSinceMs = new Map<string, number>();
    let tooFewSinceMs: number | null = null;
    let enoughSinceMs: number | null = null;
    for (;;) {
      signal.throwIfAborted();
      const compatible = fleet.compatible(request);
      if (compatible.length < request.min) {
        tooFewSinceMs ??= Date.now();
        if (Date.now() - tooFewSinceMs > request.waitSeconds * 1000) throw tooFewWorkers(request, compatible);
      } else {
        tooFewSinceMs = null;
      }
      const free = compatible
        .filter((member) => member.lease === null || member.lease.jobId === request.jobId)
        .filter(({ workerId }) => Date.now() - (unreachableSinceMs.get(workerId) ?? 0) > UNREACHABLE_PAUSE_MS)
        .slice(0, request.max);
      if (free.length >= request.min) {
        enoughSinceMs ??= Date.now();
        const waitedMs = Date.now() - enoughSinceMs;
        if (free.length === request.max || waitedMs > request.fullGangWaitSeconds * 1000) {
          const refusal = await reserveAll(request, free);
          if (refusal?.why === 'unreachable') unreachableSinceMs.set(refusal.member.workerId, Date.now());
          if (refusal === null) {
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
  }

  return {
    acquireGang: (request) => withHeartbeats((signal) => acquire(request, signal)),

    async startGang({ members, key, spec, checkpointIntervalSteps, ...attempt }) {
      const startedMs = Date.now();
      const checkpoint = await classifyingStoreErrors(() => store.latestCheckpoint(key));
      await Promise.all(
        members.map(async (member, rank) => {
          const place = {
            rank,
            world: members.length,
            rendezvousAddress: members.length > 1 ? rendezvousAddress() : '',
          };
          const definition = { key, specJson: canonicalJson(spec) };
          const resumeManifestDigest = checkpoint?.manifestDigest ?? '';
          const order = { attempt, definition, place, resumeManifestDigest, checkpointIntervalSteps };
          await workers.start(member, order).catch((error: unknown) => {
            const { workerId } = member;
            throw classified('worker_lost', `starting ${attempt.jobId} on ${workerId}: ${messageOf(error)}`, workerId);
          });
        }),
      );
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
      return await withHeartbeats(
        (signal) => watch.next(afterStep, signal),
        () => watch.progress,
      );
    },

    async stopGang({ members, ...attempt }) {
      await Promise.all(members.map((member) => workers.stop(member, attempt).catch(() => undefined)));
      events.note(attempt, `${attempt.jobId} asked to stop after a checkpoint`);
    },

    async releaseGang({ members, ...attempt }: Attempt & { members: GangMember[] }) {
      workers.endWatch(attempt);
      // An acquisition that was cancelled half-way has leases that its workflow never heard of.
      const strays = fleet
        .list()
        .filter((known) => holds(known, attempt) && !members.some(({ workerId }) => workerId === known.workerId));
      await Promise.all([...members, ...strays].map((member) => giveBack(member, attempt)));
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

function holds(member: FleetMember, { jobId, epoch }: LeaseHolder): boolean {
  return member.lease?.jobId === jobId && member.lease.epoch === epoch;
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
