import { appendFileSync, mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';

import { openStore, type ArtifactStore } from '../artifacts/store.js';
import { followRunLog, printableLogLine, readRunLog, requireRun } from './run-log.js';

let folder: string;
let store: ArtifactStore;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'collimate-run-log-'));
  mkdirSync(join(folder, 'runs', 'r'), { recursive: true });
  store = openStore(folder);
});
afterEach(() => rmSync(folder, { recursive: true }));
const append = (text: string): void => appendFileSync(join(folder, 'runs', 'r', 'events.ndjson'), text);

test('a line that is still being written is left for the next read', async () => {
  expect((await readRunLog(store, 'r', null)).lines).toEqual([]);
  append('{"a":1}\n{"b"');
  const first = await readRunLog(store, 'r', null);
  expect(first.lines).toEqual(['{"a":1}']);
  append(':"ü"}\n');
  expect((await readRunLog(store, 'r', first.next)).lines).toEqual(['{"b":"ü"}']);
});

test('a follow ends with the run', async () => {
  append('{"type":"note","message":"run running"}\n');
  const lines: string[] = [];
  const { signal } = new AbortController();
  const followed = followRunLog({ store, runId: 'r', signal, print: (line) => lines.push(line) });
  append('{"type":"note","message":"run done"}\n');
  await followed;
  expect(lines).toHaveLength(2);
});

test('a follow is left by its signal', async () => {
  const controller = new AbortController();
  const followed = followRunLog({ store, runId: 'r', signal: controller.signal, print: () => undefined });
  controller.abort();
  await followed;
});

test('lines for people name time, stage, job and worker', () => {
  const line = JSON.stringify({
    time: '2026-01-02T03:04:05Z',
    stage: 'align_tasks',
    job: 'run-1/tune',
    worker: 'w-1',
    type: 'step',
    epoch: 1,
    step: 5,
    metrics: { loss: 2.123456789 },
  });
  expect(printableLogLine(line)).toBe('2026-01-02T03:04:05Z align_tasks tune w-1: step epoch=1 step=5 loss=2.1235');
  expect(printableLogLine('not json')).toBe('not json');
});

test('a run that is not there, also one that points outside the store', async () => {
  await requireRun(store, 'r');
  await expect(requireRun(store, 'none')).rejects.toThrow(/none called "none"/);
  await expect(requireRun(store, '../..')).rejects.toThrow(/none called/);
});
