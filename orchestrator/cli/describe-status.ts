/**
 * A run's status for people: state and what to do about it, goodput, stages and jobs, incidents.
 *
 * 1. Times are of the machine that saw them, in UTC; durations are in seconds.
 */
import { type Incident, type JobProgress, type RunSeconds, type RunStatus } from '../../workflows/contract.js';
import { recoveryPhases, totalSeconds } from '../../workflows/timeline.js';
import { formatSeconds, show, table } from './output.js';

export function describeStatus(status: RunStatus): string {
  const lines = [
    `run       ${status.runId}`,
    `state     ${status.state}${status.failure === null ? '' : `: ${status.failure}`}`,
    `numerics  ${show(status.numericsClass)}`,
    `gangs     ${describeFleet(status)}`,
  ];
  if (status.state === 'waiting_for_approval') lines.splice(2, 0, `          ${howToApprove(status.runId)}`);
  if (totalSeconds(status.seconds) > 0) lines.push(`goodput   ${describeGoodput(status.seconds)}`);
  if (status.result !== null) lines.push(`digest    ${status.result.resultDigest}`);
  lines.push('', stageTable(status));
  const blocked = status.stages.flatMap(({ jobs }) => jobs).filter(({ blocked: reason }) => reason !== null);
  if (blocked.length > 0) lines.push('', 'blocked:', ...blocked.map((job) => `  ${job.kind}: ${show(job.blocked)}`));
  if (status.incidents.length > 0) {
    lines.push('', `incidents (collimate status ${status.runId} --incidents tells more):`);
    lines.push(...status.incidents.map((incident) => `  ${incidentLine(incident)}`));
  }
  return lines.join('\n');
}

export function howToApprove(runId: string): string {
  return `publishing waits for "collimate approve ${runId}", or "collimate approve ${runId} --reject"`;
}

export function describeFleet({ fleet: { min, max, spares } }: Pick<RunStatus, 'fleet'>): string {
  const size = min === max ? String(max) : `${min} to ${max}`;
  return `${size} worker${max === 1 ? '' : 's'}${spares === 0 ? '' : `, ${spares} left free as spares`}`;
}

/** Share of the time that was work, then what the rest went to, the largest first. */
export function describeGoodput(seconds: RunSeconds): string {
  const total = totalSeconds(seconds);
  const { work = 0, ...rest } = seconds;
  const badput = Object.entries(rest)
    .filter(([, spent]) => spent > 0)
    .sort(([, a], [, b]) => b - a)
    .map(([purpose, spent]) => `${purpose} ${formatSeconds(spent)}`);
  const share = `${((100 * work) / total).toFixed(1)} % of ${formatSeconds(total)}`;
  return badput.length === 0 ? share : `${share}; ${badput.join(', ')}`;
}

function stageTable(status: RunStatus): string {
  const rows = status.stages.flatMap((stage) => [
    [stage.name, stage.state, '', '', '', ''],
    ...stage.jobs.map((job) => [
      `  ${job.kind}`,
      jobState(job),
      job.stepsTotal === 0 ? '' : `${job.step}/${job.stepsTotal}`,
      job.checkpointStep === 0 ? '' : String(job.checkpointStep),
      String(job.epoch),
      job.workers.join(' '),
    ]),
  ]);
  const columns = ['STAGE', 'STATE', 'STEP', 'CHECKPOINT', 'EPOCH', 'WORKERS'].map((title) => ({ title }));
  return table(columns, rows);
}

function jobState(job: JobProgress): string {
  if (job.blocked !== null) return 'blocked';
  return job.memoised ? 'from the store' : '';
}

function incidentLine(incident: Incident): string {
  const { id, cause, failedAtStep, action } = incident;
  const recovery = recoverySeconds(incident);
  const back = recovery === null ? '' : `; ${recovery.toFixed(2)} s from the last progress to the next step`;
  return `${id}: ${cause}${blamed(incident)} at step ${failedAtStep}: ${action === '' ? 'recovering' : action}${back}`;
}

function blamed({ workerId, rank }: Incident): string {
  if (workerId === null) return '';
  return rank === null ? ` on ${workerId}` : ` on ${workerId} (rank ${rank})`;
}

/** Null for a recovery that is under way, or that ended without a step. */
function recoverySeconds({ phases: { lastProgress, firstStep } }: Incident): number | null {
  return lastProgress === null || firstStep === null ? null : (firstStep - lastProgress) / 1000;
}

export function describeIncidents(incidents: Incident[]): string {
  return incidents.length === 0 ? 'no incidents' : incidents.map(describeIncident).join('\n\n');
}

function describeIncident(incident: Incident): string {
  const { id, stage, cause, message, workerId, rank, failedAtStep, resumedFromStep, action, log } = incident;
  const again = Math.max(0, failedAtStep - resumedFromStep);
  const lines = [
    `incident  ${id} in stage ${stage}`,
    `cause     ${cause}`,
    `worker    ${workerId ?? 'unknown'}${rank === null ? '' : `, rank ${rank}`}`,
    `seen      ${message}`,
    `done      ${action === '' ? 'recovering' : action}`,
    `steps     failed at ${failedAtStep}, went on from ${resumedFromStep}${again === 0 ? '' : `: ${again} computed again`}`,
    '',
    phaseTable(incident),
  ];
  if (log.length > 0) lines.push('', `last lines of ${workerId ?? 'the worker'}:`, ...log.map((line) => `  ${line}`));
  return lines.join('\n');
}

function phaseTable(incident: Incident): string {
  const rows = recoveryPhases(incident.phases).map(({ phase, at, seconds }) => [
    phase.replace('_', ' '),
    seconds === null ? '-' : seconds.toFixed(3),
    at === null ? '-' : new Date(at).toISOString(),
  ]);
  const total = recoverySeconds(incident);
  rows.push(['all', total === null ? '-' : total.toFixed(3), '']);
  return table([{ title: 'PHASE' }, { title: 'SECONDS', align: 'right' }, { title: 'AT' }], rows);
}
