/**
 * Who is in the fleet: filled by the join streams of workers, emptied when a stream ends.
 *
 * 1. Nothing here is durable. A restarted controller starts empty and is full again once the workers have re-joined.
 * 2. A worker id names one process at a time: a second join under the same id replaces the first.
 * 3. The last log lines of a worker outlive it, for the incident that its end may be.
 */
import { EventEmitter } from 'node:events';

import { DOMAIN_NUMERICS_CLASS } from '../../workflows/contract.js';

export interface WorkerIdentity {
  workerId: string;
  address: string;
  metricsAddress: string;
  numericsClass: string;
  engineRevision: string;
  pid: number;
}

export interface LeaseHolder {
  jobId: string;
  epoch: number;
}

/** Where the native job of a worker is. */
export interface WorkerProgress {
  step: number;
  phase: string;
  /** While reducing, the lowest rank that it waits for; -1 for none. */
  waitingForRank: number;
}

export interface FleetMember extends WorkerIdentity {
  lease: LeaseHolder | null;
  joinedUnixSeconds: number;
  lastSeenUnixSeconds: number;
  /** Null while no native job runs. */
  progress: WorkerProgress | null;
  /** It was told to end, or to hand over, and takes no more work. */
  draining: boolean;
  /** It takes no new job. */
  cordoned: boolean;
}

export type Beat = Pick<FleetMember, 'lease' | 'progress' | 'draining' | 'cordoned'>;

export interface Requirements {
  numericsClass: string;
  engineRevision: string;
}

interface RegistryEvents {
  joined: [FleetMember];
  lost: [FleetMember];
  changed: [];
  beat: [FleetMember];
}

const LOG_LINES_KEPT = 40;
/** Logs of workers that are gone are kept for so many ids. */
const LOGS_KEPT = 1_000;

const nowSeconds = (): number => Date.now() / 1000;

export class FleetRegistry extends EventEmitter<RegistryEvents> {
  readonly #members = new Map<string, FleetMember>();
  readonly #logs = new Map<string, string[]>();

  constructor() {
    super();
    // Every gang that waits for workers listens; their number is no sign of a leak.
    this.setMaxListeners(0);
  }

  join(identity: WorkerIdentity): FleetMember {
    const replaced = this.#members.get(identity.workerId);
    if (replaced !== undefined) this.leave(replaced);
    const member: FleetMember = {
      ...identity,
      lease: null,
      joinedUnixSeconds: nowSeconds(),
      lastSeenUnixSeconds: nowSeconds(),
      progress: null,
      draining: false,
      cordoned: false,
    };
    this.#members.set(identity.workerId, member);
    this.emit('joined', member);
    this.emit('changed');
    return member;
  }

  beat(member: FleetMember, { lease, progress, draining, cordoned }: Beat): void {
    member.lastSeenUnixSeconds = nowSeconds();
    member.progress = progress;
    const isOtherwise = draining !== member.draining || cordoned !== member.cordoned;
    member.draining = draining;
    member.cordoned = cordoned;
    this.setLease(member, lease);
    if (isOtherwise) this.emit('changed');
    this.emit('beat', member);
  }

  addLog(workerId: string, lines: readonly string[]): void {
    const kept = [...(this.#logs.get(workerId) ?? []), ...lines].slice(-LOG_LINES_KEPT);
    // Re-inserted, so that the ids are in the order of their last line.
    this.#logs.delete(workerId);
    this.#logs.set(workerId, kept);
    const [oldest] = this.#logs.keys();
    if (this.#logs.size > LOGS_KEPT && oldest !== undefined) this.#logs.delete(oldest);
  }

  /** The last lines that the worker logged, also of one that is gone. */
  lastLog(workerId: string): string[] {
    return this.#logs.get(workerId) ?? [];
  }

  setLease(member: FleetMember, lease: LeaseHolder | null): void {
    const changed = member.lease?.jobId !== lease?.jobId || member.lease?.epoch !== lease?.epoch;
    member.lease = lease;
    if (changed) this.emit('changed');
  }

  /** Called when the member's stream ended. A member that was replaced in the meantime is left alone. */
  leave(member: FleetMember): void {
    if (this.#members.get(member.workerId) !== member) return;
    this.#members.delete(member.workerId);
    this.emit('lost', member);
    this.emit('changed');
  }

  get(workerId: string): FleetMember | undefined {
    return this.#members.get(workerId);
  }

  /** Members in worker-id order. */
  list(): FleetMember[] {
    return [...this.#members.values()].sort((a, b) => (a.workerId < b.workerId ? -1 : 1));
  }

  /** Members that may take a job of this class, in worker-id order. Domain jobs run on every class. */
  compatible({ numericsClass, engineRevision }: Requirements): FleetMember[] {
    return this.list().filter(
      (member) =>
        !member.draining &&
        member.engineRevision === engineRevision &&
        (numericsClass === DOMAIN_NUMERICS_CLASS || member.numericsClass === numericsClass),
    );
  }

  /** Resolves at the next change of membership or lease, or after `timeoutMs`. */
  async changed(timeoutMs: number): Promise<void> {
    await new Promise<void>((resolve) => {
      const done = (): void => {
        clearTimeout(timer);
        this.off('changed', done);
        resolve();
      };
      const timer = setTimeout(done, timeoutMs);
      this.on('changed', done);
    });
  }
}
