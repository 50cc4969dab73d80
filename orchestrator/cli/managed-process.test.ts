import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';

import { ManagedProcess } from './managed-process.js';
import { isAlive, recordOf, sendSignal, stopAll, waitForEnd } from './process-control.js';

let folder: string;
let started: ManagedProcess[];
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'collimate-managed-'));
  started = [];
});
afterEach(async () => {
  await Promise.all(started.map((managed) => managed.stop()));
  rmSync(folder, { recursive: true, force: true });
});

/** A child that runs this script. */
function managed(script: string): ManagedProcess {
  const file = join(folder, 'child.mjs');
  writeFileSync(file, script);
  const made = new ManagedProcess({
    name: 'child',
    command: process.execPath,
    args: [file],
    logFile: join(folder, 'child.log'),
    readyTimeoutMs: 20_000,
    stopGraceMs: 500,
    onChange: () => undefined,
  });
  started.push(made);
  return made;
}

async function until(check: () => boolean): Promise<void> {
  const end = Date.now() + 20_000;
  while (!check()) {
    if (Date.now() > end) throw new Error('expected within 20 s');
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

const READY = `console.log(JSON.stringify({ ready: true, address: '127.0.0.1:1', metrics: null }));`;
const STAY = `setInterval(() => undefined, 1000);`;

describe('a managed process', () => {
  test('is ready with its ready line, and other lines go to the log', async () => {
    const child = managed(`console.log('{"other": 1}'); ${READY} console.log('afterwards'); ${STAY}`);
    await child.start();
    expect(child.ready).toEqual({ ready: true, address: '127.0.0.1:1', metrics: null });
    await until(() => readFileSync(join(folder, 'child.log'), 'utf8') === '{"other": 1}\nafterwards\n');
  });

  test('is started again when it dies', async () => {
    const child = managed(`${READY} ${STAY}`);
    await child.start();
    const first = child.record;
    if (first === null) throw new Error('no record');
    sendSignal(first, 'SIGKILL');
    await until(() => child.ready !== null && child.record?.pid !== first.pid);
    expect(child.restarts).toBe(1);
    expect(isAlive(first)).toBe(false);
  });

  test('that never gets ready is given up, with the end of its log', async () => {
    const child = managed(`console.error('no such engine'); process.exit(3);`);
    await expect(child.start()).rejects.toThrow(
      /ended 3 times before it was ready \(last: exit code 3\).*no such engine/s,
    );
  });

  test('whose program is missing is given up, too', async () => {
    const child = new ManagedProcess({
      name: 'nothing',
      command: join(folder, 'no-such-program'),
      args: [],
      logFile: join(folder, 'child.log'),
      readyTimeoutMs: 5_000,
      stopGraceMs: 500,
      onChange: () => undefined,
    });
    started.push(child);
    await expect(child.start()).rejects.toThrow(/ENOENT/);
  });

  test('that ignores SIGTERM is killed after the grace time, and stays down', async () => {
    const child = managed(`process.on('SIGTERM', () => undefined); ${READY} ${STAY}`);
    await child.start();
    const record = child.record;
    if (record === null) throw new Error('no record');
    await child.stop();
    expect(isAlive(record)).toBe(false);
    await new Promise((resolve) => setTimeout(resolve, 600));
    expect(child.record).toBeNull();
  });
});

describe('signals', () => {
  test('never reach a process whose start mark differs: its pid was recycled', async () => {
    const child = managed(`${READY} ${STAY}`);
    await child.start();
    const record = child.record;
    if (record === null) throw new Error('no record');
    const stale = { pid: record.pid, startMark: `${record.startMark}0` };
    expect(sendSignal(stale, 'SIGKILL')).toBe(false);
    expect(await stopAll([stale], 100)).toBe(true);
    expect(isAlive(record)).toBe(true);
  });

  test('a process that is gone is not alive', async () => {
    const child = managed(`${READY} ${STAY}`);
    await child.start();
    const record = recordOf(child.record?.pid ?? 0);
    expect(await waitForEnd(record, 50)).toBe(false);
    await child.stop();
    expect(await waitForEnd(record, 5_000)).toBe(true);
  });
});
