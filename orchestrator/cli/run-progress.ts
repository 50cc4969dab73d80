/**
 * Turns a run's events into lines for people, on stderr.
 *
 * 1. On a terminal the current step is one line in place; on a pipe a line at intervals.
 */
import { type JobEvent__Output } from '../../proto/generated/collimate/v1/JobEvent.js';
import { type ParkedEvent__Output } from '../../proto/generated/collimate/v1/ParkedEvent.js';
import { type WatchRunResponse__Output } from '../../proto/generated/collimate/v1/WatchRunResponse.js';
import { type RunStatus } from '../../workflows/contract.js';
import { howToApprove } from './describe-status.js';
import { bold, clearLive, dim, formatSeconds, green, liveProgress, progress, red, yellow } from './output.js';

const STEP_LINE_MS = process.stderr.isTTY ? 10_000 : 5_000;

const STAGE_TITLES: Record<string, string> = {
  ingest: 'ingest: behaviour logs and item text',
  embed: 'embed: collaborative vectors (DCCF) and text vectors',
  align_tokens: 'stage 1, alignment of tokens: codebooks and semantic ids',
  align_tasks: 'stage 2, alignment of tasks: fine-tuning',
  evaluate: 'evaluate: full ranking of the test events',
  publish: 'publish: a list for every user',
};

interface JobView {
  startedMs: number;
  lastLineMs: number;
  step: number;
  stepsTotal: number;
  metrics: Record<string, number>;
}

export class RunProgress {
  private readonly startedMs = Date.now();
  private readonly stages = new Set<string>();
  private readonly jobs = new Map<string, JobView>();
  private readonly told = new Set<string>();

  event = (event: WatchRunResponse__Output): void => {
    if (event.stage !== '') this.openStage(event.stage);
    if (event.note !== undefined && event.entry === 'note') this.note(event.note.replaceAll(`${event.runId}/`, ''));
    else if (event.jobEvent) this.jobEvent(event.workerId, event.jobEvent);
  };

  status = (status: RunStatus): void => {
    if (status.state === 'waiting_for_approval') this.tellOnce(howToApprove(status.runId));
    for (const stage of status.stages) {
      if (stage.state === 'waiting') continue;
      this.openStage(stage.name);
      for (const job of stage.jobs) {
        if (job.blocked !== null) this.tellOnce(`${job.kind} stands still: ${job.blocked}`);
        if (!job.memoised || this.told.has(job.kind)) continue;
        this.told.add(job.kind);
        progress(`  ${green('=')} ${job.kind} ${dim('answered from the store')}`);
      }
    }
  };

  contact = (reachable: boolean): void => {
    progress(
      reachable
        ? `  ${green('the servers answer again')}`
        : `  ${yellow('the controller or the Temporal server does not answer; waiting (the run goes on)')}`,
    );
  };

  /** What lasts, and is heard of again and again. */
  private tellOnce(text: string): void {
    if (this.told.has(text)) return;
    this.told.add(text);
    progress(`  ${yellow('!')} ${yellow(text)}`);
  }

  private elapsed(): string {
    const seconds = Math.round((Date.now() - this.startedMs) / 1000);
    return dim(`[${String(Math.floor(seconds / 60)).padStart(2)}:${String(seconds % 60).padStart(2, '0')}]`);
  }

  private openStage(stage: string): void {
    if (this.stages.has(stage)) return;
    this.stages.add(stage);
    progress(`${this.elapsed()} ${bold(STAGE_TITLES[stage] ?? stage)}`);
  }

  private note(note: string): void {
    // Stage and run states are shown as headings already.
    if (/^(stage|run) .*(running|done)$/.test(note)) return;
    if (/^incident \S+ is over/.test(note)) {
      progress(`  ${green('+')} ${note}`);
      return;
    }
    const serious = note.startsWith('incident') || /\blost\b|failed/.test(note);
    progress(`  ${serious ? yellow('!') : dim('·')} ${serious ? yellow(note) : dim(note)}`);
  }

  private jobEvent(workerId: string, event: JobEvent__Output): void {
    const name = event.jobId.slice(event.jobId.indexOf('/') + 1);
    const job = this.jobs.get(event.jobId) ?? {
      startedMs: Date.now(),
      lastLineMs: Date.now(),
      step: 0,
      stepsTotal: 0,
      metrics: {},
    };
    this.jobs.set(event.jobId, job);
    if (event.step) {
      job.step = event.step.step;
      job.stepsTotal = event.step.stepsTotal;
      job.metrics = event.step.metrics;
      const line = `  ${name} ${describeStep(job)}`;
      if (Date.now() - job.lastLineMs > STEP_LINE_MS) {
        job.lastLineMs = Date.now();
        progress(line);
      } else liveProgress(line);
    } else if (event.finished && event.rank === 0) {
      const seconds = formatSeconds((Date.now() - job.startedMs) / 1000);
      progress(`  ${green('+')} ${name} ${dim(`${describeStep(job)} in ${seconds}`)}`);
      this.told.add(name);
    } else if (event.failed) {
      progress(`  ${red('!')} ${name} on ${workerId}: ${event.failed.message}`);
    } else if (event.ready && event.rank === 0 && event.ready.step > 0) {
      progress(`  ${dim('·')} ${dim(`${name} goes on from step ${event.ready.step}`)}`);
    } else if (event.parked && event.parked.reason !== 'PARK_REASON_DONE') {
      progress(`  ${dim('·')} ${dim(`${name} on ${workerId} ${describeParked(event.parked)}`)}`);
    } else if (event.stopped) {
      progress(`  ${dim('·')} ${name} stopped at step ${event.stopped.step}`);
    } else if (event.log && event.log.level !== 'debug' && event.log.level !== 'trace') {
      progress(`  ${dim('·')} ${dim(`${name}: ${event.log.message}`)}`);
    }
  }

  end(): void {
    clearLive();
  }
}

/** A parked rank is no failure: it waits for the next gang. */
function describeParked({ reason, step }: ParkedEvent__Output): string {
  const why = reason === 'PARK_REASON_PEER_LOST' ? 'a peer was lost' : 'the gang changes';
  return step < 0 ? `waits: ${why}` : `waits with its state of step ${step}: ${why}`;
}

function describeStep(job: JobView): string {
  if (job.stepsTotal === 0) return '';
  const percent = Math.floor((100 * job.step) / job.stepsTotal);
  const shown = ['loss', 'learning_rate']
    .filter((name) => job.metrics[name] !== undefined)
    .map((name) => `${name.replace('_', ' ')} ${(job.metrics[name] ?? 0).toPrecision(4)}`);
  return [`${job.step}/${job.stepsTotal} (${percent}%)`, ...shown].join('  ');
}
