/** The benchmark's report as one Markdown table: a row a figure, a column a system; times in seconds, medians with their range. */
import { spreadOf, type Recovery, type Work } from './recovery.js';

export interface Rows {
  system: string;
  undisturbed: Recovery;
  /** The same work in one process. */
  alone: Recovery;
  killed: Recovery[];
  stopped: Recovery | null;
}

export interface Report {
  machine: string;
  command: string;
  node: string;
  work: Work;
  fault: { atStep: number; watchMs: number };
  kills: number;
  /** Systems that could not be measured, and why. */
  missing: string[];
  rows: Rows[];
}

type Figure = [name: string, of: (row: Rows) => string];

export function markdownTable({ machine, command, node, work, fault, kills, missing, rows }: Report): string {
  const watched = String(fault.watchMs / 1000);
  const figures: Figure[] = [
    ['SIGKILL → first sign that somebody knows, s', spread(({ detectionMs }) => seconds(detectionMs))],
    ['who knows first', ({ killed }) => [...new Set(killed.map((run) => run.detectedBy ?? 'nobody'))].join(', ')],
    ['SIGKILL → first step, s', spread(({ firstStepMs }) => seconds(firstStepMs))],
    ['SIGKILL → first step beyond the last one before, s', spread(({ newGroundMs }) => seconds(newGroundMs))],
    ['steps repeated', spread(({ stepsRepeated }) => stepsRepeated, 0)],
    ['digest equal to the undisturbed run', ({ killed, undisturbed }) => equal(killed, undisturbed)],
    ['digest of one process equal to that of two', ({ alone, undisturbed }) => equal([alone], undisturbed)],
    ['training undisturbed, s', ({ undisturbed }) => fixed(seconds(undisturbed.trainingMs))],
    ['training with the kill, s', spread(({ trainingMs }) => seconds(trainingMs))],
    ['whole run undisturbed, s', ({ undisturbed }) => fixed(seconds(undisturbed.wallMs))],
    ['whole run with the kill, s', spread(({ wallMs }) => seconds(wallMs))],
    [`SIGSTOP instead, watched for ${watched} s`, ({ stopped, undisturbed }) => stop(stopped, undisturbed)],
  ];
  return [
    `${machine}; Node ${node}; \`${command}\``,
    '',
    `Two processes of one thread, ${String(work.steps)} steps of ${String(work.batchSequences)} sequences, a checkpoint every ` +
      `${String(work.checkpointSteps)}, rank 0 faulted at step ${String(fault.atStep)}; ${String(kills)} kills, median (range).`,
    '',
    `| | ${rows.map(({ system }) => system).join(' | ')} |`,
    `|---|${rows.map(() => '---|').join('')}`,
    ...figures.map(([name, of]) => `| ${name} | ${rows.map(of).join(' | ')} |`),
    ...missing.map((reason) => `\nNot measured: ${reason}`),
  ].join('\n');
}

function seconds(ms: number | null): number | null {
  return ms === null ? null : ms / 1000;
}

function fixed(value: number | null, digits = 2): string {
  return value === null ? 'none' : value.toFixed(digits);
}

function spread(of: (run: Recovery) => number | null, digits = 2): (row: Rows) => string {
  return ({ killed }) => {
    const found = spreadOf(killed.map(of));
    if (found === null) return 'none';
    const { median, min, max, count } = found;
    const few = count < killed.length ? `, ${String(count)} of ${String(killed.length)}` : '';
    return `${fixed(median, digits)} (${fixed(min, digits)}–${fixed(max, digits)}${few})`;
  };
}

function equal(runs: Recovery[], { digest }: Recovery): string {
  const same = runs.filter((run) => run.digest !== null && run.digest === digest).length;
  if (runs.length === 1) return same === 1 ? 'yes' : 'no';
  return `${String(same)} of ${String(runs.length)}`;
}

function stop(run: Recovery | null, undisturbed: Recovery): string {
  if (run === null) return 'not measured';
  if (run.detectionMs === null && run.firstStepMs === null) return 'nothing happens';
  const detected = run.detectionMs === null ? 'no sign' : `known after ${fixed(seconds(run.detectionMs))} s`;
  const step = run.firstStepMs === null ? 'no step' : `first step after ${fixed(seconds(run.firstStepMs))} s`;
  return `${detected}, ${step}, ${run.digest === null ? 'no end' : `digest equal: ${equal([run], undisturbed)}`}`;
}
