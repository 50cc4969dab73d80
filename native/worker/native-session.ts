/**
 * A native job and what it holds, over as many gangs as it takes part in.
 *
 * 1. At any time one attempt follows the session, or none while it is parked.
 * 2. Parked, it keeps everything (base model, parameters, optimizer state) and waits; `goOn` gives it its next gang, `abort` ends it.
 * 3. Checkpoints are committed one at a time and in order, also across attempts. Where they come faster than the store takes them
 *    only the newest waits: training never does. What cannot be stored ends the job with the store's error.
 */
import { rm } from 'node:fs/promises';

import {
  startJob,
  type JobPhase,
  type NativeGang,
  type NativeJob,
  type NativeJobOptions,
  type NativeJobOutcome,
  type ParkReason,
} from './addon.js';

export const CONTROL_CHECKPOINT = 1;
export const CONTROL_STOP = 2;
export const CONTROL_REGROUP = 4;

/** Kinds whose state outlives their gang. */
const ELASTIC_KINDS: ReadonlySet<string> = new Set(['tune', 'dense']);

export function isElastic(kind: string): boolean {
  return ELASTIC_KINDS.has(kind);
}

export interface SessionFollower {
  onReady(step: number): void;
  onStep(step: number, stepsTotal: number, metrics: Record<string, number>): void;
  onLog(level: string, message: string): void;
  commit(step: number, folder: string, seconds: number): Promise<void>;
}

interface Checkpoint {
  step: number;
  folder: string;
  seconds: number;
  /** The attempt that it was written in. */
  follower: SessionFollower;
}

/** How the present attempt ended; a failure rejects instead. */
export type SessionEnd = NativeJobOutcome | { kind: 'parked'; step: number; reason: ParkReason; message: string };

export class NativeSession {
  readonly jobKey: string;
  readonly #job: NativeJob;
  readonly #ended: Promise<NativeJobOutcome>;
  #follower: SessionFollower;
  #park: { step: number } | null = null;
  #over = false;
  #onParked: ((end: SessionEnd) => void) | null = null;
  /** Settles once nothing is being stored; the end of the job waits for it. */
  #commits: Promise<void> = Promise.resolve();
  #committing = false;
  #waiting: Checkpoint | null = null;

  constructor({ jobKey, options, follower }: { jobKey: string; options: NativeJobOptions; follower: SessionFollower }) {
    this.jobKey = jobKey;
    this.#follower = follower;
    this.#job = startJob(options, {
      onStep: (step, stepsTotal, metrics) => {
        this.#follower.onStep(step, stepsTotal, metrics);
      },
      onLog: (level, message) => {
        this.#follower.onLog(level, message);
      },
      onReady: (step) => {
        this.#follower.onReady(step);
      },
      onCheckpoint: (step, folder, seconds) => {
        this.#take({ step, folder, seconds, follower: this.#follower });
      },
      onParked: (step, reason, message) => {
        this.#park = { step };
        this.#onParked?.({ kind: 'parked', step, reason, message });
      },
    });
    this.#ended = this.#job.promise;
    const over = (): void => {
      this.#over = true;
    };
    this.#ended.then(over, over);
  }

  #take(checkpoint: Checkpoint): void {
    const replaced = this.#waiting;
    this.#waiting = checkpoint;
    if (replaced !== null) void rm(replaced.folder, { recursive: true, force: true });
    if (this.#committing) return;
    this.#commits = this.#commitAll();
    this.#commits.catch(() => {
      this.#job.abort();
    });
  }

  async #commitAll(): Promise<void> {
    this.#committing = true;
    try {
      for (let next = this.#waiting; next !== null; next = this.#waiting) {
        this.#waiting = null;
        await next.follower.commit(next.step, next.folder, next.seconds);
      }
    } finally {
      this.#committing = false;
    }
  }

  /** Updates applied in the state that is waiting here; null while the job runs, and when it waits without state. */
  get warmStep(): number | null {
    return this.#over || this.#park === null || this.#park.step < 0 ? null : this.#park.step;
  }

  get isParked(): boolean {
    return !this.#over && this.#park !== null;
  }

  /** Resolves at the end of the present attempt. */
  async attemptEnd(): Promise<SessionEnd> {
    const parked = new Promise<SessionEnd>((resolve) => {
      this.#onParked = resolve;
    });
    try {
      const end = await Promise.race([parked, this.#ended]);
      // A parked job's checkpoint is stored meanwhile: whoever goes on does not wait for it.
      if (end.kind !== 'parked') await this.#commits;
      return end;
    } catch (error) {
      // A checkpoint that could not be stored is the reason for the end, so it is what gets reported.
      await this.#commits;
      throw error;
    } finally {
      this.#onParked = null;
    }
  }

  /** The next attempt of a parked job; `gang` null: alone. */
  goOn(gang: NativeGang | null, follower: SessionFollower): void {
    this.#follower = follower;
    this.#park = null;
    this.#job.rejoin(gang);
  }

  requestControl(flags: number): void {
    this.#job.requestControl(flags);
  }

  /** Leaves the gang as soon as the present computation allows; `attemptEnd` then resolves. */
  park(): void {
    this.#job.park();
  }

  progress(): { step: number; phase: JobPhase; waitingFor: number } {
    return this.#job.progress();
  }

  /** Ends the job without a checkpoint; resolves once its threads have left. */
  async abort(): Promise<void> {
    this.#job.abort();
    await this.#ended.catch(() => undefined);
    await this.#commits.catch(() => undefined);
  }
}
