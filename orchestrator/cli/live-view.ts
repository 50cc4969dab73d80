/**
 * A run while it happens, as one screenful: stages, jobs with their pace, loss, ranks, goodput, the last incidents.
 *
 * 1. `frame` is a function of what was told and of the time given: a terminal shows it again and again, a test reads it.
 * 2. No line is wider than the columns given; 80 are enough.
 */
import { type JobEvent__Output } from '../../proto/generated/collimate/v1/JobEvent.js';
import { type WatchRunResponse__Output } from '../../proto/generated/collimate/v1/WatchRunResponse.js';
import { type RunStatus, type StageState } from '../../workflows/contract.js';
import { totalSeconds } from '../../workflows/timeline.js';
import { formatSeconds } from './output.js';

const LOSSES_KEPT = 4_096;
/** Pace is that of the last so many seconds. */
const PACE_WINDOW_MS = 15_000;
const BAR_WIDTH = 24;
const RANKS_SHOWN = 8;
const INCIDENTS_SHOWN = 3;
const SPARKS = '▁▂▃▄▅▆▇█';
const STAGE_MARKS: Record<StageState, string> = {
  ...{ waiting: '·', running: '▶', paused: '‖', done: '✓', failed: '✗', cancelled: '✗' },
};

interface RankView {
  workerId: string;
  step: number;
  seenMs: number;
}

interface JobView {
  name: string;
  step: number;
  stepsTotal: number;
  /** Of the newest steps: when, and which. */
  pace: { atMs: number; step: number }[];
  losses: number[];
  ranks: Map<number, RankView>;
  over: boolean;
}

export class LiveView {
  readonly #runId: string;
  readonly #startedMs: number;
  readonly #jobs = new Map<string, JobView>();
  #status: RunStatus | null = null;
  #reachable = true;
  #note = '';

  constructor(runId: string, nowMs: number) {
    this.#runId = runId;
    this.#startedMs = nowMs;
  }

  event(event: WatchRunResponse__Output, nowMs: number): void {
    if (event.entry === 'note') this.#note = (event.note ?? '').replaceAll(`${this.#runId}/`, '');
    else if (event.jobEvent) this.#jobEvent(event.workerId, event.jobEvent, nowMs);
  }

  status(status: RunStatus): void {
    this.#status = status;
  }

  contact(reachable: boolean): void {
    this.#reachable = reachable;
  }

  frame(nowMs: number, columns: number): string[] {
    const lines = [this.#headline(nowMs), this.#stageLine()];
    for (const job of this.#jobs.values()) if (!job.over) lines.push('', ...this.#jobLines(job, nowMs, columns));
    const incidents = this.#status?.incidents ?? [];
    if (incidents.length > 0) {
      lines.push('', `incidents ${incidents.length}`);
      for (const { id, cause, workerId, failedAtStep, action } of incidents.slice(-INCIDENTS_SHOWN)) {
        const who = workerId === null ? '' : ` of ${workerId}`;
        lines.push(`  ${id}: ${cause}${who} at step ${failedAtStep}: ${action === '' ? 'recovering' : action}`);
      }
    }
    if (this.#note !== '') lines.push('', this.#note);
    if (!this.#reachable) lines.push('', 'the servers do not answer; waiting (the run goes on)');
    return lines.map((line) => cut(line, columns));
  }

  #headline(nowMs: number): string {
    const seconds = this.#status?.seconds ?? {};
    const total = totalSeconds(seconds);
    const goodput = total > 0 ? `  goodput ${((100 * (seconds['work'] ?? 0)) / total).toFixed(1)} %` : '';
    const watched = formatSeconds((nowMs - this.#startedMs) / 1000);
    return `${this.#runId}  ${this.#status?.state ?? 'starting'}${goodput}  watched ${watched}`;
  }

  #stageLine(): string {
    return (this.#status?.stages ?? []).map(({ name, state }) => `${STAGE_MARKS[state]} ${name}`).join('  ');
  }

  #jobLines(job: JobView, nowMs: number, columns: number): string[] {
    const { name, step, stepsTotal, losses, ranks } = job;
    const share = stepsTotal === 0 ? 0 : Math.min(1, step / stepsTotal);
    const pace = paceOf(job);
    const left = pace > 0 ? `${pace.toFixed(1)} steps/s  ${formatSeconds((stepsTotal - step) / pace)} left` : '';
    const lines = [`${name}  ${bar(share)} ${step}/${stepsTotal}  ${left}`];
    const last = losses.at(-1);
    if (last !== undefined) {
      const value = `  loss ${last.toPrecision(4)}  `;
      lines.push(`${value}${sparkline(losses, Math.max(8, Math.min(60, columns - value.length)))}`);
    }
    if (ranks.size > 1) {
      const shown = [...ranks].sort(([a], [b]) => a - b).slice(0, RANKS_SHOWN);
      for (const [rank, { workerId, step: at, seenMs }] of shown) {
        const silent = Math.round((nowMs - seenMs) / 1000);
        lines.push(`  rank ${rank}  ${workerId}  step ${at}${silent > 2 ? `  nothing for ${silent} s` : ''}`);
      }
      if (ranks.size > RANKS_SHOWN) lines.push(`  and ${ranks.size - RANKS_SHOWN} more`);
    }
    return lines;
  }

  #jobEvent(workerId: string, event: JobEvent__Output, nowMs: number): void {
    const job = this.#jobs.get(event.jobId) ?? {
      ...{ name: event.jobId.slice(event.jobId.indexOf('/') + 1), step: 0, stepsTotal: 0, over: false },
      ...{ pace: [], losses: [], ranks: new Map<number, RankView>() },
    };
    this.#jobs.set(event.jobId, job);
    if (event.step) {
      const { step, stepsTotal, metrics } = event.step;
      job.ranks.set(event.rank, { workerId, step, seenMs: nowMs });
      if (event.rank !== 0) return;
      job.step = step;
      job.stepsTotal = stepsTotal;
      job.pace = [...job.pace.filter(({ atMs }) => nowMs - atMs <= PACE_WINDOW_MS), { atMs: nowMs, step }];
      const loss = metrics['loss'];
      if (loss !== undefined) job.losses = [...job.losses, loss].slice(-LOSSES_KEPT);
    } else if (event.finished && event.rank === 0) job.over = true;
    // The next gang has ranks of its own.
    else if (event.parked ?? event.failed ?? event.stopped) job.ranks.delete(event.rank);
  }
}

function paceOf({ pace }: JobView): number {
  const first = pace[0];
  const last = pace.at(-1);
  if (first === undefined || last === undefined || last.atMs === first.atMs) return 0;
  return Math.max(0, ((last.step - first.step) * 1000) / (last.atMs - first.atMs));
}

export function bar(share: number): string {
  const full = Math.floor(share * BAR_WIDTH);
  return `[${'#'.repeat(full)}${' '.repeat(BAR_WIDTH - full)}]`;
}

/** Means of equal parts of the values, the lowest as the lowest mark. */
export function sparkline(values: readonly number[], width: number): string {
  const count = Math.min(width, values.length);
  const means = Array.from({ length: count }, (_, i) => {
    const part = values.slice(Math.floor((i * values.length) / count), Math.floor(((i + 1) * values.length) / count));
    return part.reduce((sum, value) => sum + value, 0) / part.length;
  });
  const finite = means.filter(Number.isFinite);
  const low = Math.min(...finite);
  const span = Math.max(...finite) - low;
  return means
    .map((mean) => {
      if (!Number.isFinite(mean)) return '?';
      return SPARKS[span === 0 ? 0 : Math.round(((mean - low) / span) * (SPARKS.length - 1))] ?? '';
    })
    .join('');
}

export function cut(line: string, columns: number): string {
  const characters = [...line];
  return characters.length <= columns ? line : `${characters.slice(0, columns - 1).join('')}…`;
}
