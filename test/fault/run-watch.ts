/**
 * What a run tells, heard over every restart of its controller: events once each, in order, with the time of hearing.
 *
 * 1. A restarted controller tells old job events again; what was heard before is left out.
 * 2. A moment is awaited from the beginning of the run, so one that came before it was asked for counts.
 */
import { setTimeout as sleep } from 'node:timers/promises';

import { loadService, makeClient } from '../../orchestrator/fleet/channel.js';
import type { FleetServiceClient } from '../../proto/generated/collimate/v1/FleetService.js';
import type { Incident } from '../../workflows/contract.js';
import type { WatchRunResponse__Output } from '../../proto/generated/collimate/v1/WatchRunResponse.js';
import type { Moment, SteppingJob } from './schedule.js';

const RECONNECT_MS = 150;
/** Steps heard so soon after a fault were done before it. */
const IN_FLIGHT_MS = 250;

export interface Heard {
  atMs: number;
  event: WatchRunResponse__Output;
}

export interface RecoveryTimes {
  /** From the fault to the first word of an incident; null when none was reported. */
  noticedAfterMs: number | null;
  /** From the fault to the first new step, after the incident if there was one. */
  firstStepAfterMs: number | null;
}

export class RunWatch {
  readonly heard: Heard[] = [];
  /** When the first word came over each new stream. */
  readonly #resumedMs: number[] = [];
  readonly #runId: string;
  readonly #seen = new Set<string>();
  readonly #waiters = new Set<() => void>();
  #closed = false;
  #client: FleetServiceClient | null = null;

  constructor(runId: string, controllerAddress: string) {
    this.#runId = runId;
    void this.#follow(controllerAddress);
  }

  /** The first match; null once `signal` is aborted. */
  async first(matches: (heard: Heard) => boolean, signal: AbortSignal): Promise<Heard | null> {
    for (let next = 0; ;) {
      for (; next < this.heard.length; next += 1) {
        const heard = this.heard[next];
        if (heard !== undefined && matches(heard)) return heard;
      }
      if (signal.aborted) return null;
      await new Promise<void>((resolve) => {
        const wake = (): void => {
          this.#waiters.delete(wake);
          signal.removeEventListener('abort', wake);
          resolve();
        };
        this.#waiters.add(wake);
        signal.addEventListener('abort', wake);
      });
    }
  }

  /**
   * By the run's own journal where it is at hand and the fault became an incident, else by what was heard. `throughRestart`: the
   * controller itself was restarted, and what was still on the wire from the old one does not count.
   */
  recovery(
    faultAtMs: number,
    { incidents = [], throughRestart }: { incidents?: Incident[]; throughRestart: boolean },
  ): RecoveryTimes {
    const incident = incidents.find(({ phases }) => phases.detected > faultAtMs);
    const back = throughRestart
      ? (this.#resumedMs.find((atMs) => atMs > faultAtMs) ?? Infinity)
      : faultAtMs + IN_FLIGHT_MS;
    const note = this.heard.find(({ atMs, event }) => atMs > faultAtMs && /^incident \S+: /.test(event.note ?? ''));
    const noticedAtMs = incident?.phases.detected ?? note?.atMs;
    const from = Math.max(back, noticedAtMs ?? faultAtMs);
    const step = this.heard.find(({ atMs, event }) => atMs >= from && event.jobEvent?.step != null);
    const firstStepAtMs = incident?.phases.firstStep ?? step?.atMs;
    return {
      noticedAfterMs: noticedAtMs === undefined ? null : noticedAtMs - faultAtMs,
      firstStepAfterMs: firstStepAtMs === undefined ? null : firstStepAtMs - faultAtMs,
    };
  }

  close(): void {
    this.#closed = true;
    this.#client?.close();
  }

  async #follow(address: string): Promise<void> {
    const service = loadService('FleetService');
    while (!this.#closed) {
      const client = makeClient<FleetServiceClient>(service, address);
      this.#client = client;
      await new Promise<void>((resolve) => {
        const stream = client.watchRun({ runId: this.#runId });
        stream.once('data', () => this.#resumedMs.push(Date.now()));
        stream.on('data', (event: WatchRunResponse__Output) => this.#hear(event));
        stream.on('error', () => resolve());
        stream.on('end', () => resolve());
      });
      client.close();
      await sleep(RECONNECT_MS);
    }
  }

  #hear(event: WatchRunResponse__Output): void {
    const job = event.jobEvent;
    if (job != null) {
      const name = `${job.jobId}#${String(job.epoch)}#${String(job.rank)}#${event.workerId}#${String(job.sequence)}`;
      if (this.#seen.has(name)) return;
      this.#seen.add(name);
    }
    this.heard.push({ atMs: Date.now(), event });
    for (const wake of [...this.#waiters]) wake();
  }
}

/** Whether an event is the moment. `recovery` depends on the fault before and is not answered here. */
export function isMoment(
  moment: Exclude<Moment, { at: 'recovery' }>,
  intervals: Record<SteppingJob, number>,
): (heard: Heard) => boolean {
  let shards = 0;
  return ({ event }) => {
    const job = event.jobEvent;
    switch (moment.at) {
      case 'step':
        return stepOf(event, moment.job) >= moment.step;
      case 'checkpoint_write': {
        const step = stepOf(event, moment.job);
        return step >= moment.after && step % intervals[moment.job] === 0;
      }
      case 'rendezvous':
        return /\/tune epoch \d+ started on /.test(event.note ?? '');
      case 'stage_done':
        return event.note === `stage ${moment.stage} done`;
      case 'rank_shard':
        if (job?.finished != null && /\/rank\//.test(job.jobId)) shards += 1;
        return shards >= moment.shards;
      case 'publish':
        return event.note === 'stage publish done';
    }
  };
}

/** Step of the event when it is one of the job, else −1. */
function stepOf(event: WatchRunResponse__Output, job: string): number {
  const { jobEvent } = event;
  return jobEvent?.step != null && jobEvent.jobId.endsWith(`/${job}`) ? jobEvent.step.step : -1;
}

/** Steps that rank 0 of some job did although the job had been at or beyond them before. */
export function stepsRepeated(heard: readonly Heard[]): number {
  const furthest = new Map<string, number>();
  let repeated = 0;
  for (const { event } of heard) {
    const job = event.jobEvent;
    if (job?.step == null) continue;
    const before = furthest.get(job.jobId) ?? 0;
    if (job.step.step <= before) repeated += 1;
    else furthest.set(job.jobId, job.step.step);
  }
  return repeated;
}
