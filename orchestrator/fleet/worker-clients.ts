/**
 * The controller's side of the Worker service: one channel per worker address, one watch per attempt.
 *
 * 1. Every unary call carries job id and epoch and has a deadline.
 * 2. A refusal that is an answer (busy, stale) is a value; giving back what is already gone is not an error.
 */
import { status } from '@grpc/grpc-js';

import type { GangPlace } from '../../proto/generated/collimate/v1/GangPlace.js';
import type { JobDefinition } from '../../proto/generated/collimate/v1/JobDefinition.js';
import type { Scheduling__Output } from '../../proto/generated/collimate/v1/Scheduling.js';
import type { WorkerServiceClient } from '../../proto/generated/collimate/v1/WorkerService.js';
import type { Attempt } from '../../workflows/activity-contract.js';
import type { GangMember } from '../../workflows/contract.js';
import { loadService, makeClient, RpcError, unary } from './channel.js';
import { GangWatch, type GangWatchOptions } from './gang-watch.js';

const RESERVE_DEADLINE_MS = 5_000;
const CALL_DEADLINE_MS = 5_000;
/** Aborting a job waits for its current step. */
export const RELEASE_DEADLINE_MS = 20_000;

type AttemptRef = Pick<Attempt, 'jobId' | 'epoch'>;
export type WorkerRef = Pick<GangMember, 'workerId' | 'address'>;

/** `busy` works for another job, or is told to end; `unreachable` may be tried again later. */
export type Reservation = { type: 'granted'; warmStep: number | null } | { type: 'busy' | 'unreachable' };

export interface StartOrder {
  attempt: Attempt;
  definition: JobDefinition;
  place: GangPlace;
  resumeManifestDigest: string;
  checkpointIntervalSteps: number;
  joinSurvivors: boolean;
  memorySaving: number;
  untilStep: number;
  dryRun: boolean;
  checkpointsKept: number;
}

export class WorkerClients {
  readonly #clients = new Map<string, WorkerServiceClient>();
  readonly #watches = new Map<string, GangWatch>();

  /** Throws when the epoch is stale. */
  async reserve(member: WorkerRef, attempt: AttemptRef, ttlMs: number): Promise<Reservation> {
    const client = this.#client(member.address);
    try {
      const request = { job: refOf(attempt), ttlMs };
      const { warm, warmStep } = await unary(client, 'reserve', request, { deadlineMs: RESERVE_DEADLINE_MS });
      return { type: 'granted', warmStep: warm ? warmStep : null };
    } catch (error) {
      if (!(error instanceof RpcError) || error.code === status.FAILED_PRECONDITION) throw error;
      return { type: error.code === status.RESOURCE_EXHAUSTED ? 'busy' : 'unreachable' };
    }
  }

  /** False when the worker did not say that it let go: it is gone, or cannot be reached for now. */
  async release(member: WorkerRef, attempt: AttemptRef, deadlineMs = RELEASE_DEADLINE_MS): Promise<boolean> {
    try {
      await unary(this.#client(member.address), 'release', { job: refOf(attempt) }, { deadlineMs });
      return true;
    } catch {
      return false;
    }
  }

  async start(member: WorkerRef, { attempt, ...order }: StartOrder): Promise<void> {
    const { runId, stage } = attempt;
    const request = { job: refOf(attempt), runId, stage, ...order };
    await unary(this.#client(member.address), 'startJob', request, { deadlineMs: CALL_DEADLINE_MS });
  }

  async stop(member: WorkerRef, attempt: AttemptRef): Promise<void> {
    const request = { job: refOf(attempt) };
    await unary(this.#client(member.address), 'stopJob', request, { deadlineMs: CALL_DEADLINE_MS });
  }

  /** Asks for leaving the gang, with the state kept. */
  async regroup(member: WorkerRef, attempt: AttemptRef): Promise<void> {
    const request = { job: refOf(attempt) };
    await unary(this.#client(member.address), 'regroupJob', request, { deadlineMs: CALL_DEADLINE_MS });
  }

  async schedule(member: WorkerRef, scheduling: Scheduling__Output): Promise<void> {
    await unary(this.#client(member.address), 'schedule', { scheduling }, { deadlineMs: CALL_DEADLINE_MS });
  }

  /** The attempt's watch; made at the first call and kept until `endWatch`. */
  watch(
    attempt: Attempt,
    members: GangMember[],
    options: Pick<GangWatchOptions, 'onEvent' | 'fleet' | 'stallSeconds'>,
  ): GangWatch {
    const name = watchName(attempt);
    const known = this.#watches.get(name);
    if (known !== undefined) return known;
    const { jobId, epoch } = attempt;
    const watch = new GangWatch({
      ...options,
      target: { jobId, epoch, members },
      openStream: (member, afterSequence) =>
        this.#client(member.address).watchJob({ job: refOf(attempt), afterSequence }),
    });
    this.#watches.set(name, watch);
    return watch;
  }

  /** Ends the watch of the attempt, and those of older ones at the same job. */
  endWatch({ jobId, epoch }: AttemptRef): void {
    for (const [name, watch] of this.#watches) {
      if (watch.target.jobId !== jobId || watch.target.epoch > epoch) continue;
      watch.close();
      this.#watches.delete(name);
    }
  }

  /** Drops the channel to an address at which no worker is any more. */
  forget(address: string): void {
    this.#clients.get(address)?.close();
    this.#clients.delete(address);
  }

  close(): void {
    for (const watch of this.#watches.values()) watch.close();
    for (const address of [...this.#clients.keys()]) this.forget(address);
  }

  #client(address: string): WorkerServiceClient {
    const known = this.#clients.get(address);
    if (known !== undefined) return known;
    const client = makeClient<WorkerServiceClient>(loadWorkerService(), address);
    this.#clients.set(address, client);
    return client;
  }
}

/** Loaded once: parsing the proto files takes a few milliseconds. */
let workerServiceLoaded: ReturnType<typeof loadService<'WorkerService'>> | null = null;
function loadWorkerService(): ReturnType<typeof loadService<'WorkerService'>> {
  return (workerServiceLoaded ??= loadService('WorkerService'));
}

function refOf({ jobId, epoch }: AttemptRef): { jobId: string; epoch: number } {
  return { jobId, epoch };
}

function watchName({ jobId, epoch }: AttemptRef): string {
  return `${jobId}#${String(epoch)}`;
}
