/**
 * Looking at and signalling processes that another program started.
 *
 * 1. No signal is sent to a pid whose start mark differs from the recorded one: the pid was given to someone else.
 */
import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';

import { hasCode } from './cli-error.js';
import { type ProcessRecord } from './home.js';

interface Seen {
  startMark: string;
  /** A zombie has ended; only its parent has not asked yet. */
  zombie: boolean;
}

function look(pid: number): Seen | null {
  if (process.platform === 'linux') {
    try {
      const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
      // Fields after the command in parentheses, which may itself hold spaces: state is the 3rd of all, start time the 22nd.
      const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
      return { startMark: fields[19] ?? '', zombie: fields[0] === 'Z' };
    } catch (error) {
      if (hasCode(error, 'ENOENT', 'ESRCH')) return null;
      throw error;
    }
  }
  try {
    const line = execFileSync('ps', ['-o', 'state=,lstart=', '-p', String(pid)], { encoding: 'utf8' }).trim();
    const space = line.indexOf(' ');
    return line === '' ? null : { startMark: line.slice(space + 1).trim(), zombie: line.startsWith('Z') };
  } catch {
    return null;
  }
}

/** Start mark of a live process; empty when there is none with this pid. */
export function startMarkOf(pid: number): string {
  return look(pid)?.startMark ?? '';
}

export function recordOf(pid: number): ProcessRecord {
  return { pid, startMark: startMarkOf(pid) };
}

export function isAlive(record: ProcessRecord): boolean {
  const seen = look(record.pid);
  return seen !== null && !seen.zombie && seen.startMark === record.startMark;
}

/** False when the process is gone already. */
export function sendSignal(record: ProcessRecord, signal: NodeJS.Signals): boolean {
  if (!isAlive(record)) return false;
  try {
    process.kill(record.pid, signal);
    return true;
  } catch (error) {
    if (hasCode(error, 'ESRCH')) return false;
    throw error;
  }
}

export async function waitForEnd(record: ProcessRecord, timeoutMs: number): Promise<boolean> {
  const end = Date.now() + timeoutMs;
  while (isAlive(record)) {
    if (Date.now() > end) return false;
    await sleep(25);
  }
  return true;
}

/** SIGTERM, then SIGKILL to what is left after the grace time. True when every process is gone. */
export async function stopAll(records: ProcessRecord[], graceMs: number): Promise<boolean> {
  for (const record of records) sendSignal(record, 'SIGTERM');
  const ended = await Promise.all(
    records.map(async (record) => {
      if (await waitForEnd(record, graceMs)) return true;
      sendSignal(record, 'SIGKILL');
      return waitForEnd(record, 5_000);
    }),
  );
  return ended.every(Boolean);
}
