/**
 * Which workers a gang gets: all of them or none, and how they are given back.
 *
 * 1. Leases are taken in worker-id order and released again on the first refusal: two gangs that want the same workers cannot
 *    hold each other up. Only members that the job holds already (`keep`) stay its own meanwhile, for a bounded time.
 * 2. A worker that could not be told to let go is told when it shows itself again with that lease, and so is one that shows an
 *    attempt older than a newer one of the same job: what was frozen does not work on for nobody.
 */
import type { Acquired, AcquireRequest } from '../../workflows/activity-contract.js';
import type { GangMember } from '../../workflows/contract.js';
import type { FleetMember, FleetRegistry, LeaseHolder } from './registry.js';
import { RELEASE_DEADLINE_MS, type Reservation, type WorkerRef } from './worker-clients.js';

const LEASE_TTL_MS = 15_000;
/** For a worker that the fleet does not see: it hardly answers, and the next gang waits for this. */
const ABSENT_DEADLINE_MS = 2_000;
const POLL_MS = 250;
/** A gang does without a worker that cannot be reached for so long before it is asked again. */
const UNREACHABLE_PAUSE_MS = 3_000;
/** Survivors that are too few wait so long with their state for others; then they let go, since two such jobs may wait for each other. */
const KEEP_MS_MAX = 30_000;

/** The calls to workers that leasing needs; `WorkerClients` makes them. */
export interface LeaseCalls {
  reserve(member: WorkerRef, attempt: LeaseHolder, ttlMs: number): Promise<Reservation>;
  release(member: WorkerRef, attempt: LeaseHolder, deadlineMs?: number): Promise<boolean>;
  forget(address: string): void;
}

/** Too few workers have joined for as long as the run file allows. */
export class TooFewWorkersError extends Error {
  override readonly name = 'TooFewWorkersError';
}

/** A worker refused for good: a newer attempt at the job is known to it. */
export class ReserveRefusedError extends Error {
  override readonly name = 'ReserveRefusedError';

  constructor(
    message: string,
    readonly workerId: string,
  ) {
    super(message);
  }
}

interface Refusal {
  member: WorkerRef;
  type: 'busy' | 'unreachable';
}

export class GangLeases {
  readonly #fleet: FleetRegistry;
  readonly #calls: LeaseCalls;
  /** By worker id, the attempt that it was not told to let go of. */
  readonly #unreleased = new Map<string, LeaseHolder>();
  /** By job id, the newest attempt that this process has leased workers for. */
  readonly #newest = new Map<string, number>();

  constructor(fleet: FleetRegistry, calls: LeaseCalls) {
    this.#fleet = fleet;
    this.#calls = calls;
    fleet.on('beat', (member) => {
      this.#freeStray(member);
    });
  }

  async acquire(request: AcquireRequest, signal: AbortSignal): Promise<Acquired> {
    this.#newest.set(request.jobId, Math.max(request.epoch, this.#newest.get(request.jobId) ?? 0));
    const unreachableSinceMs = new Map<string, number>();
    const isReachable = ({ workerId }: WorkerRef): boolean =>
      Date.now() - (unreachableSinceMs.get(workerId) ?? 0) > UNREACHABLE_PAUSE_MS;
    const startedMs = Date.now();
    let keep = request.keep;
    let tooFewSinceMs: number | null = null;
    let enoughSinceMs: number | null = null;
    for (;;) {
      signal.throwIfAborted();
      const compatible = this.#candidates(request);
      if (compatible.length < request.min) {
        tooFewSinceMs ??= Date.now();
        if (Date.now() - tooFewSinceMs > request.waitSeconds * 1000)
          throw tooFewWorkers(request, compatible, this.#fleet.list());
      } else {
        tooFewSinceMs = null;
      }
      if (keep.length > 0 && Date.now() - startedMs > KEEP_MS_MAX) {
        await this.release(request, keep);
        keep = [];
      }
      const chosen = choose(request, keep, compatible.filter(isReachable));
      if (chosen.length >= request.min) {
        enoughSinceMs ??= Date.now();
        const waitedMs = Date.now() - enoughSinceMs;
        if (chosen.length === request.max || waitedMs >= request.fullGangWaitSeconds * 1000) {
          const outcome = await this.#reserveAll(request, chosen, keep);
          if ('members' in outcome) return outcome;
          if (outcome.type === 'unreachable') unreachableSinceMs.set(outcome.member.workerId, Date.now());
          keep = keep.filter(({ workerId }) => workerId !== outcome.member.workerId);
        }
      } else {
        enoughSinceMs = null;
      }
      await this.#fleet.changed(POLL_MS);
    }
  }

  /** How many workers a gang with these members could have, them included, if `spares` free ones are left alone. */
  available(
    request: Pick<AcquireRequest, 'numericsClass' | 'engineRevision' | 'jobId' | 'spares' | 'avoid'>,
    members: readonly WorkerRef[],
  ): number {
    const taken = new Set([...members.map(({ workerId }) => workerId), ...request.avoid]);
    const free = this.#fleet
      .compatible(request)
      .filter(({ lease, workerId, cordoned }) => lease === null && !cordoned && !taken.has(workerId));
    return members.length + Math.max(0, free.length - request.spares);
  }

  /** Ends the attempt on these members, and on any other that still has its lease. Never fails because a worker is gone. */
  async release(attempt: LeaseHolder, members: readonly WorkerRef[]): Promise<void> {
    // An acquisition that was cancelled half-way has leases that its workflow never heard of.
    const strays = this.#fleet
      .list()
      .filter((known) => holds(known, attempt) && !members.some(({ workerId }) => workerId === known.workerId));
    await Promise.all([...members, ...strays].map((member) => this.#giveBack(member, attempt)));
  }

  /** Compatible workers, without those to avoid while there are enough others. */
  #candidates(request: AcquireRequest): FleetMember[] {
    const all = this.#fleet.compatible(request).filter((member) => takesJob(member, request.jobId));
    // A process that was started again under the same id is another one.
    const avoided = request.keep.filter(({ workerId }) => request.avoid.includes(workerId));
    const others = all.filter((member) => !avoided.some((one) => sameProcess(one, member)));
    return others.length >= request.min ? others : all;
  }

  /** Reserves every candidate or none of those that the job did not hold before; answers the first that refused. */
  async #reserveAll(request: AcquireRequest, chosen: FleetMember[], keep: GangMember[]): Promise<Acquired | Refusal> {
    const isKept = (member: WorkerRef): boolean => keep.some((kept) => sameProcess(kept, member));
    const warmSteps = new Map<string, number | null>();
    let fencedAt: number | null = null;
    const reserve = async (member: FleetMember): Promise<Refusal | null> => {
      const answer = await this.#calls.reserve(member, request, LEASE_TTL_MS).catch((error: unknown) => {
        // Only another epoch of this job can come from here: the next attempt has a higher one.
        throw new ReserveRefusedError(error instanceof Error ? error.message : String(error), member.workerId);
      });
      if (answer.type !== 'granted') return { member, type: answer.type };
      fencedAt ??= Date.now();
      warmSteps.set(member.workerId, answer.warmStep);
      this.#fleet.setLease(member, { jobId: request.jobId, epoch: request.epoch });
      return null;
    };
    const taken: FleetMember[] = [];
    const undo = async (): Promise<void> => {
      await Promise.all(taken.map((member) => this.#giveBack(member, request)));
    };
    try {
      // Nobody else can want these: they are the job's own. Each may still have to finish what it computes.
      const kept = await Promise.all(chosen.filter(isKept).map(reserve));
      const lost = kept.find((refusal) => refusal !== null);
      if (lost !== undefined) return lost;
      const others = chosen.filter((member) => !isKept(member));
      for (const member of others.sort((a, b) => (a.workerId < b.workerId ? -1 : 1))) {
        const refusal = await reserve(member);
        if (refusal !== null) {
          await undo();
          return refusal;
        }
        taken.push(member);
      }
    } catch (error) {
      await undo();
      throw error;
    }
    const members = chosen.map(({ workerId, address }) => ({
      workerId,
      address,
      warmStep: warmSteps.get(workerId) ?? null,
    }));
    // Those with state first; otherwise as they were.
    const warm = members.filter((member) => member.warmStep !== null);
    const cold = members.filter((member) => member.warmStep === null);
    return { members: [...warm, ...cold], fencedAt: fencedAt ?? Date.now() };
  }

  async #giveBack(member: WorkerRef, attempt: LeaseHolder): Promise<void> {
    const present = this.#fleet.get(member.workerId)?.address === member.address;
    const told = await this.#calls.release(member, attempt, present ? RELEASE_DEADLINE_MS : ABSENT_DEADLINE_MS);
    if (!told) this.#unreleased.set(member.workerId, { jobId: attempt.jobId, epoch: attempt.epoch });
    const known = this.#fleet.get(member.workerId);
    if (known !== undefined && holds(known, attempt)) this.#fleet.setLease(known, null);
    if (known?.address !== member.address) this.#calls.forget(member.address);
  }

  #freeStray(member: FleetMember): void {
    if (member.lease === null) return;
    const unreleased = this.#unreleased.get(member.workerId);
    this.#unreleased.delete(member.workerId);
    const newest = this.#newest.get(member.lease.jobId);
    const given = unreleased !== undefined && holds(member, unreleased);
    // The newest attempt's own acquisition takes its survivors over; what is two behind was left behind.
    const left = newest !== undefined && member.lease.epoch < newest - 1;
    if (given || left) void this.#giveBack(member, member.lease);
  }
}

function choose(request: AcquireRequest, keep: readonly GangMember[], compatible: FleetMember[]): FleetMember[] {
  const kept = keep.flatMap((member) => compatible.filter((candidate) => sameProcess(candidate, member)));
  const others = compatible.filter(
    (member) => (member.lease === null || member.lease.jobId === request.jobId) && !kept.includes(member),
  );
  const total = kept.length + others.length;
  const limit = Math.min(request.max, Math.max(request.min, kept.length, total - request.spares));
  return [...kept, ...others].slice(0, limit);
}

/** A cordoned worker belongs to the job that it has until that lets it go. */
function takesJob({ cordoned, lease }: FleetMember, jobId: string): boolean {
  return !cordoned || lease?.jobId === jobId;
}

function sameProcess(a: WorkerRef, b: WorkerRef): boolean {
  return a.workerId === b.workerId && a.address === b.address;
}

function tooFewWorkers(request: AcquireRequest, compatible: FleetMember[], fleet: FleetMember[]): Error {
  const { jobId, min, waitSeconds, numericsClass, engineRevision } = request;
  const kinds = new Set(fleet.map((member) => `${member.numericsClass} of engine ${member.engineRevision}`));
  return new TooFewWorkersError(
    `${jobId} expected at least ${String(min)} worker(s) of numerics class ${numericsClass} and engine ${engineRevision} ` +
      `within ${String(waitSeconds)} s, but ${String(compatible.length)} joined (the fleet has ` +
      `${kinds.size === 0 ? 'no workers' : [...kinds].join(', ')}); start workers with "collimate worker", ` +
      'or lower fleet.min in the run file',
  );
}

/** Whether the member's lease is of this attempt, or of an older one at the same job. */
function holds(member: FleetMember, { jobId, epoch }: LeaseHolder): boolean {
  return member.lease?.jobId === jobId && member.lease.epoch <= epoch;
}
