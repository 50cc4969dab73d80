/** A run's events as the controller wrote them to the store. */
import { setTimeout as sleep } from 'node:timers/promises';

import { canonicalJson } from '../artifacts/job-key.js';
import { type ArtifactStore } from '../artifacts/store.js';
import { CliError } from './cli-error.js';

const POLL_MS = 250;

export async function requireRun(store: ArtifactStore, runId: string): Promise<void> {
  if (isRunId(store, runId) && (await store.listRuns()).includes(runId)) return;
  throw new CliError(
    'notFound',
    `expected a run in ${store.url}, but there is none called "${runId}"; see "collimate ls"`,
  );
}

/** The store refuses names that would leave its folder. */
function isRunId(store: ArtifactStore, runId: string): boolean {
  try {
    store.runAddress(runId);
    return true;
  } catch {
    return false;
  }
}

/** Whole lines after a cursor; a line that is still being written is left for the next call. */
export async function readRunLog(
  store: ArtifactStore,
  runId: string,
  cursor: string | null,
): Promise<{ lines: string[]; next: string }> {
  const page = await store.readRunEventsAfter(runId, cursor);
  return { lines: page.events.map(canonicalJson), next: page.cursor };
}

interface LogLine {
  time?: string;
  stage?: string;
  job?: string;
  type?: string;
  worker?: string;
  [field: string]: unknown;
}

function parse(line: string): LogLine | null {
  try {
    return JSON.parse(line) as LogLine;
  } catch {
    return null;
  }
}

export interface FollowedLog {
  store: ArtifactStore;
  runId: string;
  signal: AbortSignal;
  print: (line: string) => void;
}

export async function followRunLog({ store, runId, signal, print }: FollowedLog): Promise<void> {
  let cursor: string | null = null;
  while (!signal.aborted) {
    const { lines, next } = await readRunLog(store, runId, cursor);
    cursor = next;
    for (const line of lines) {
      print(line);
      const event = parse(line);
      if (event?.type === 'note' && /^run (done|failed|cancelled)$/.test(String(event['message']))) return;
    }
    await sleep(POLL_MS, undefined, { signal }).catch(() => undefined);
  }
}

/** `time stage job worker: what`, for people. */
export function printableLogLine(line: string): string {
  const event = parse(line);
  if (event === null) return line;
  const { time, stage, job, type, worker, ...rest } = event;
  const where = [stage, job === undefined ? '' : job.slice(job.indexOf('/') + 1), worker].filter(Boolean).join(' ');
  return `${time ?? ''} ${where}: ${describe(type ?? '', rest)}`;
}

function describe(type: string, fields: Record<string, unknown>): string {
  if (type === 'note') return String(fields['message']);
  if (type === 'log') return `${String(fields['level'])} ${String(fields['message'])}`;
  const { metrics, ...rest } = fields;
  const pairs = Object.entries({ ...rest, ...(metrics as Record<string, number> | undefined) });
  return [type, ...pairs.map(([name, value]) => `${name}=${text(value)}`)].join(' ');
}

function text(value: unknown): string {
  if (typeof value === 'number' && !Number.isInteger(value)) return value.toPrecision(5);
  return typeof value === 'string' ? value : JSON.stringify(value);
}
