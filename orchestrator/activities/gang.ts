/**
 * Gangs: lease workers, start a job on them, follow it, give them back.
 *
 * 1. A retried wait finds the attempt's watch, or attaches anew after a restart of this process; it never starts anything.
 * 2. What a verification computes again is no part of its run: it is neither written to the run's events nor counted.
 * 3. The state that a member holds is worth more than a checkpoint: a gang with such a member starts from there.
 */
import type { Activities, AwaitRequest, GangEvent, Timed } from '../../workflows/activity-contract.js';
import { isVerifyJob } from '../../workflows/contract.js';
import { advanced } from '../../workflows/timeline.js';
import { canonicalJson } from '../artifacts/job-key.js';
import { GangLeases, ReserveRefusedError, TooFewWorkersError } from '../fleet/gang-leases.js';
import type { GangWatch } from '../fleet/gang-watch.js';
import type { ActivityDependencies } from './dependencies.js';
import { AttemptTraces } from './attempt-traces.js';
import { classified, classifyingStoreErrors } from './failures.js';
import { cancellationSignal } from './heartbeat.js';

/** Workers must have been free for so long before a gang grows: one that has just joined may be gone again. */
const FREE_MS_MIN = 1_000;
const FREE_POLL_MS = 250;
const SECONDS_PACE_MS = 1_000;

type GangActivities = Pick<
  Activities,
  'acquireGang' | 'startGang' | 'awaitGang' | 'stopGang' | 'regroupGang' | 'releaseGang'
>;

export function gangActivities(dependencies: ActivityDependencies): GangActivities {
  const { store, fleet, workers, events, metrics, traces, rendezvousAddress } = dependencies;
  const leases = new GangLeases(fleet, workers);
  const attempts = new AttemptTraces(traces);

  /** Moves the run's seconds in the metrics while an activity waits: now, since waits may be short, and every second. */
  function tellSeconds(runId: string, timeline: Timed['timeline']): NodeJS.Timeout | undefined {
    if (timeline === null) return undefined;
    const tell = (): void => {
      events.seconds(runId, advanced(timeline, Date.now()));
    };
    tell();
    return setInterval(tell, SECONDS_PACE_MS);
  }

  /** By job id, since when its gang could have more members; one wait for an event may be shorter than it takes to tell. */
  const freeSinceMs = new Map<string, number>();

  /** Resolves once the gang could have more members than it has, and could for a while. */
  async function workersFree(
    { members, growTo, ...request }: AwaitRequest & { growTo: number },
    signal: AbortSignal,
  ): Promise<GangEvent> {
    for (;;) {
      signal.throwIfAborted();
      const count = Math.min(growTo, leases.available(request, members));
      const sinceMs = freeSinceMs.get(request.jobId) ?? Date.now();
      if (count <= members.length) freeSinceMs.delete(request.jobId);
      else if (Date.now() - sinceMs >= FREE_MS_MIN) return { type: 'workers_free', count };
      else freeSinceMs.set(request.jobId, sinceMs);
      await fleet.changed(FREE_POLL_MS);
    }
  }

  /** Resolves once one member is far slower than all others and another worker is free to take its place. */
  async function straggler(
    watch: GangWatch,
    { members, ...request }: AwaitRequest,
    signal: AbortSignal,
  ): Promise<GangEvent> {
    for (;;) {
      signal.throwIfAborted();
      const seen = watch.straggler;
      const free = leases.available({ ...request, spares: 0 }, members) - members.length;
      if (seen !== null && free > 0) return { type: 'straggler', seen };
      await fleet.changed(FREE_POLL_MS);
    }
  }

  return {
    async acquireGang({ timeline, ...request }) {
      const telling = tellSeconds(request.runId, timeline);
      const startedMs = Date.now();
      freeSinceMs.delete(request.jobId);
      // What an older attempt still says is of no interest any more.
      workers.endWatch({ jobId: request.jobId, epoch: request.epoch - 1 });
      try {
        const acquired = await leases.acquire(request, cancellationSignal());
        attempts.acquired(request, startedMs);
        const labels = { run: request.runId, stage: request.stage };
        if (!isVerifyJob(request.jobId)) {
          metrics.observe('collimate_queue_wait_duration_seconds', labels, (Date.now() - startedMs) / 1000);
        }
        return acquired;
      } catch (error) {
        if (error instanceof TooFewWorkersError) throw classified('no_workers', error.message);
        if (error instanceof ReserveRefusedError) throw classified('internal', error.message, error.workerId);
        throw error;
      } finally {
        clearInterval(telling);
      }
    },

    async startGang({ members, key, spec, checkpointIntervalSteps, checkpointsKept, memorySaving, rerun, ...attempt }) {
      const startedMs = Date.now();
      const warmSteps = members.flatMap(({ warmStep }) => (warmStep === null ? [] : [warmStep]));
      // What is computed again begins at its checkpoint.
      const survived = rerun === undefined && warmSteps.length > 0;
      let checkpoint: { step: number; manifestDigest: string } | null = null;
      if (rerun !== undefined) checkpoint = rerun.from;
      else if (!survived) {
        checkpoint = await classifyingStoreErrors(() => store.latestCheckpoint(key), { tellsWorkflow: true });
      }
      await Promise.all(
        members.map(async (member, rank) => {
          const place = {
            rank,
            world: members.length,
            rendezvousAddress: members.length > 1 ? rendezvousAddress() : '',
          };
          const order = {
            attempt,
            definition: { key, specJson: canonicalJson(spec) },
            place,
            resumeManifestDigest: checkpoint?.manifestDigest ?? '',
            checkpointIntervalSteps,
            joinSurvivors: survived && member.warmStep === null,
            memorySaving,
            untilStep: rerun?.untilStep ?? 0,
            dryRun: rerun !== undefined,
            checkpointsKept,
          };
          const calledMs = Date.now();
          await workers.start(member, order).catch((error: unknown) => {
            const { workerId } = member;
            throw classified('worker_lost', `starting ${attempt.jobId} on ${workerId}: ${messageOf(error)}`, workerId);
          });
          attempts.called(attempt, { rank, workerId: member.workerId, startMs: calledMs });
        }),
      );
      attempts.started(attempt, startedMs);
      const resumedFromStep = survived ? Math.max(...warmSteps) : (checkpoint?.step ?? 0);
      if (rerun !== undefined) return { resumedFromStep };
      metrics.observe(
        'collimate_dispatch_duration_seconds',
        { run: attempt.runId, stage: attempt.stage },
        (Date.now() - startedMs) / 1000,
      );
      const names = members.map((member) => member.workerId).join(', ');
      const from = resumedFromStep === 0 ? 'the beginning' : `step ${String(resumedFromStep)}`;
      const held = survived ? `, which ${String(warmSteps.length)} of them held` : '';
      events.note(attempt, `${attempt.jobId} epoch ${String(attempt.epoch)} started on ${names} from ${from}${held}`);
      return { resumedFromStep };
    },

    async awaitGang(request) {
      const { members, afterStep, untilFirstStep, growTo, replaceStragglers, stallSeconds, timeline, ...attempt } =
        request;
      const watch = workers.watch(attempt, members, {
        fleet,
        stallSeconds,
        onEvent: (member, event) => {
          if (!isVerifyJob(attempt.jobId)) events.jobEvent(attempt, member, event);
        },
      });
      const telling = tellSeconds(attempt.runId, timeline);
      const over = new AbortController();
      const signal = AbortSignal.any([cancellationSignal(), over.signal]);
      const waits: Promise<GangEvent>[] = [];
      // First, where several are ready at once: checkpoints may come faster than one wait follows the other.
      if (growTo !== null) waits.push(workersFree({ ...request, growTo }, signal));
      if (replaceStragglers) waits.push(straggler(watch, request, signal));
      waits.push(watch.next({ afterStep, untilFirstStep }, signal));
      try {
        const event = await Promise.race(waits);
        attempts.heard(attempt, event);
        return event;
      } finally {
        clearInterval(telling);
        over.abort();
        // Each leaves at its next look; what has happened does not wait for that.
        for (const wait of waits) wait.catch(() => undefined);
      }
    },

    async stopGang({ members, ...attempt }) {
      await Promise.all(members.map((member) => workers.stop(member, attempt).catch(() => undefined)));
      events.note(attempt, `${attempt.jobId} asked to stop after a checkpoint`);
    },

    async regroupGang({ members, ...attempt }) {
      await Promise.all(members.map((member) => workers.regroup(member, attempt).catch(() => undefined)));
      events.note(attempt, `${attempt.jobId} asked to regroup: the fleet changed`);
    },

    async releaseGang({ members, ...attempt }) {
      workers.endWatch(attempt);
      freeSinceMs.delete(attempt.jobId);
      await leases.release(attempt, members);
    },
  };
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
