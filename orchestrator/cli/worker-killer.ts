/**
 * Fault on demand for the demo and the tests: SIGKILL to a worker at a step of a job, never at a time.
 *
 * 1. Each target fires once, at the first step event at or beyond its fraction of the job.
 * 2. The victim is the worker that sent the event, looked up in the process table and checked by start time.
 */
import { type WatchRunResponse__Output } from '../../proto/generated/collimate/v1/WatchRunResponse.js';
import { type Home, readProcessTable } from './home.js';
import { sendSignal } from './process-control.js';

export interface KillTarget {
  job: string;
  fraction: number;
}

export interface Kill {
  job: string;
  workerId: string;
  pid: number;
  step: number;
  stepsTotal: number;
}

export const DEMO_KILLS: KillTarget[] = [
  { job: 'codebooks', fraction: 0.1 },
  { job: 'tune', fraction: 0.5 },
];

export class WorkerKiller {
  readonly kills: Kill[] = [];

  constructor(
    private readonly home: Home,
    private readonly targets: KillTarget[],
    private readonly onKill: (kill: Kill) => void,
  ) {}

  event(event: WatchRunResponse__Output): void {
    const step = event.jobEvent?.step;
    if (step === null || step === undefined) return;
    const jobId = event.jobEvent?.jobId ?? '';
    const job = jobId.slice(jobId.indexOf('/') + 1);
    const target = this.targets.find((candidate) => candidate.job === job);
    if (target === undefined || this.kills.some((kill) => kill.job === job)) return;
    if (step.step < Math.max(1, Math.ceil(step.stepsTotal * target.fraction))) return;
    const victim = readProcessTable(this.home)?.workers.find((worker) => worker.id === event.workerId);
    if (victim === undefined || !sendSignal(victim, 'SIGKILL')) return;
    const kill = { job, workerId: event.workerId, pid: victim.pid, step: step.step, stepsTotal: step.stepsTotal };
    this.kills.push(kill);
    this.onKill(kill);
  }

  /** Jobs whose kill never came about. */
  missed(): string[] {
    return this.targets.map((target) => target.job).filter((job) => !this.kills.some((kill) => kill.job === job));
  }
}
