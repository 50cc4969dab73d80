/** A run's events as the controller wrote them: `runs/<id>/events.ndjson` in the store. */
import { closeSync, existsSync, fstatSync, openSync, readSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

import { openStore } from '../artifacts/store.js';
import { CliError } from './cli-error.js';
import { type Home } from './home.js';

const POLL_MS = 250;

export function requireRunFolder(home: Home, runId: string): string {
  const folder = runFolder(home, runId);
  if (folder === null || !existsSync(folder)) {
    const runs = join(home.store, 'runs');
    throw new CliError(
      'notFound',
      `expected a run in ${runs}, but there is none called "${runId}"; see "collimate ls"`,
    );
  }
  return folder;
}

/** Null for what cannot be a run id: the store refuses names that would leave its folder. */
function runFolder(home: Home, runId: string): string | null {
  try {
    return openStore(home.store).runDir(runId);
  } catch {
    return null;
  }
}

/** Whole lines from a byte offset on; a line that is still being written is left for the next call. */
export function readRunLog(folder: string, offset: number): { lines: string[]; next: number } {
  const file = join(folder, 'events.ndjson');
  if (!existsSync(file)) return { lines: [], next: offset };
  const fd = openSync(file, 'r');
  try {
    const bytes = Buffer.alloc(Math.max(0, fstatSync(fd).size - offset));
    const length = readSync(fd, bytes, 0, bytes.length, offset);
    const end = bytes.subarray(0, length).lastIndexOf(0x0a) + 1;
    const lines = bytes.subarray(0, end).toString('utf8').split('\n').filter(Boolean);
    return { lines, next: offset + end };
  } finally {
    closeSync(fd);
  }
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

export async function followRunLog(folder: string, signal: AbortSignal, print: (line: string) => void): Promise<void> {
  let offset = 0;
  while (!signal.aborted) {
    const { lines, next } = readRunLog(folder, offset);
    offset = next;
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
