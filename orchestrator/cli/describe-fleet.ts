/**
 * The fleet for people: a line for each worker, at most 80 columns where names are of usual length.
 *
 * 1. What all workers have in common (numerics class, engine) is said once below, not in every line.
 */
import { type WorkerInfo__Output } from '../../proto/generated/collimate/v1/WorkerInfo.js';
import { table } from './output.js';

/** Nothing heard for so long: the worker is silent. Idle ones beat every second. */
const SILENT_SECONDS = 5;

export function workerState(worker: WorkerInfo__Output, nowSeconds: number): string {
  const { lease, progress, draining, cordoned, lastSeenUnixSeconds } = worker;
  if (nowSeconds - lastSeenUnixSeconds > SILENT_SECONDS) return 'silent';
  if (draining) return lease === null ? 'drained' : 'draining';
  const state = lease === null ? 'idle' : (progress?.phase ?? 'busy');
  return cordoned ? `${state}, cordoned` : state;
}

export function describeWorkers(workers: readonly WorkerInfo__Output[], nowSeconds: number): string {
  if (workers.length === 0) return 'nobody has joined; start workers with "collimate worker"';
  const rows = workers.map((worker) => {
    const { hello, lease, progress, joinedUnixSeconds } = worker;
    return [
      hello?.workerId ?? '?',
      workerState(worker, nowSeconds),
      hello?.address ?? '?',
      String(hello?.pid ?? ''),
      ageOf(nowSeconds - joinedUnixSeconds),
      progress === null ? '' : String(progress.step),
      lease?.jobId ?? '',
    ];
  });
  const columns = [
    { title: 'WORKER' },
    { title: 'STATE' },
    { title: 'ADDRESS' },
    { title: 'PID', align: 'right' as const },
    { title: 'UP', align: 'right' as const },
    { title: 'STEP', align: 'right' as const },
    { title: 'JOB' },
  ];
  return [table(columns, rows), '', ...kindsOf(workers)].join('\n');
}

/** Of each numerics class and engine, which workers have it. */
function kindsOf(workers: readonly WorkerInfo__Output[]): string[] {
  const kinds = new Map<string, string[]>();
  for (const { hello } of workers) {
    const kind = `${hello?.numericsClass ?? '?'}, engine ${hello?.engineRevision ?? '?'}`;
    kinds.set(kind, [...(kinds.get(kind) ?? []), hello?.workerId ?? '?']);
  }
  return [...kinds].map(([kind, ids]) => (kinds.size === 1 ? `all: ${kind}` : `${ids.join(' ')}: ${kind}`));
}

/** 5s, 12m, 3h, 4d: the largest unit that fits. */
export function ageOf(seconds: number): string {
  const whole = Math.max(0, Math.floor(seconds));
  if (whole < 60) return `${whole}s`;
  if (whole < 3_600) return `${Math.floor(whole / 60)}m`;
  return whole < 86_400 ? `${Math.floor(whole / 3_600)}h` : `${Math.floor(whole / 86_400)}d`;
}
