/**
 * The incidents of one job: opened when a failure is seen, completed as the recovery goes on, closed at the first step after it.
 *
 * 1. At most one is open; the next failure closes it, however far its recovery had come.
 * 2. What an incident cost goes into the stage's timeline: work that was lost is no work.
 */
import { quick } from './activities.js';
import type { Acquired, GangFailure } from './activity-contract.js';
import type { GangMember, Incident, JobKind, StageName } from './contract.js';
import type { Timeline } from './timeline.js';

export interface JournalOptions {
  runId: string;
  stage: StageName;
  job: string;
  jobKind: JobKind;
  timeline: Timeline;
  /** Those of the whole stage; new ones are added. */
  incidents: Incident[];
}

export interface NextGang {
  previous: GangMember[];
  acquired: Acquired;
  /** Unix milliseconds. */
  rescheduledAt: number;
  resumedFromStep: number;
}

export class RecoveryJournal {
  readonly #options: JournalOptions;
  #open: Incident | null = null;
  /** Step and time of the present attempt's first step, to tell what a repeated one is worth. */
  #firstStep: { step: number; at: number } | null = null;

  constructor(options: JournalOptions) {
    this.#options = options;
  }

  /** What is being recovered from; null once the first step after it is done. */
  get open(): Incident | null {
    return this.#open;
  }

  /** `words`: what is done about it. Resolves once it is on record. */
  async opened(failure: GangFailure, epoch: number, words: string): Promise<void> {
    const { runId, stage, job, jobKind, incidents } = this.#options;
    const { cause, message, workerId, rank, step, lastProgressAt, detectedAt, log } = failure;
    // A gang may lose a member while it still leaves its slowest one.
    const id = `${job}#${String(epoch)}${cause === 'straggler' ? ':straggler' : ''}`;
    const incident: Incident = {
      id,
      stage,
      job,
      jobKind,
      cause,
      message,
      workerId,
      rank,
      epoch,
      action: words,
      failedAtStep: step,
      resumedFromStep: step,
      phases: {
        lastProgress: lastProgressAt,
        detected: detectedAt,
        fenced: null,
        rescheduled: null,
        restored: null,
        firstStep: null,
      },
      log,
    };
    incidents.push(incident);
    this.#open = incident;
    await quick.recordIncident(runId, incident, 'opened');
  }

  /** The gang that the job goes on with. */
  continuedWith({ previous, acquired, rescheduledAt, resumedFromStep }: NextGang): void {
    const incident = this.#open;
    if (incident === null) return;
    const { members, fencedAt } = acquired;
    incident.phases.fenced = fencedAt;
    incident.phases.rescheduled = rescheduledAt;
    incident.resumedFromStep = resumedFromStep;
    const names = members.map(({ workerId, warmStep }) => `${workerId}${warmStep === null ? '' : ' (kept its state)'}`);
    const from = resumedFromStep === 0 ? 'the beginning' : `step ${String(resumedFromStep)}`;
    const words = incident.action === '' ? '' : `${incident.action}; `;
    incident.action =
      `${words}went on from ${from} with ${String(members.length)} of ${String(previous.length)} workers: ` +
      names.join(', ');
    this.#loseRepeated(incident);
  }

  /** Also told of first steps that follow no incident. */
  async firstStep({ step, restoredAt, firstStepAt }: FirstStep): Promise<void> {
    this.#firstStep = { step, at: firstStepAt };
    if (this.#open === null) return;
    this.#open.phases.restored = restoredAt;
    this.#open.phases.firstStep = firstStepAt;
    await this.close();
  }

  /** The job is past it, or has failed again. */
  async close(): Promise<void> {
    const incident = this.#open;
    if (incident === null) return;
    this.#open = null;
    await quick.recordIncident(this.#options.runId, incident, 'closed');
  }

  #loseRepeated({ cause, failedAtStep, resumedFromStep, phases }: Incident): void {
    const first = this.#firstStep;
    this.#firstStep = null;
    const repeated = failedAtStep - resumedFromStep;
    if (repeated <= 0 || first === null || failedAtStep <= first.step) return;
    const lastProgress = phases.lastProgress ?? phases.detected;
    const secondsAStep = (lastProgress - first.at) / 1000 / (failedAtStep - first.step);
    this.#options.timeline.lose(repeated * secondsAStep, `repeated:${cause}`);
  }
}

interface FirstStep {
  step: number;
  restoredAt: number;
  firstStepAt: number;
}
