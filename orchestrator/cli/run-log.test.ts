import { appendFileSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';

import { followRunLog, printableLogLine, readRunLog, requireRunFolder } from './run-log.js';
import { homeAt } from './home.js';

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'collimate-run-log-'));
});
afterEach(() => rmSync(folder, { recursive: true }));
const append = (text: string): void => appendFileSync(join(folder, 'events.ndjson'), text);

test('a line that is still being written is left for the next read', () => {
  expect(readRunLog(folder, 0)).toEqual({ lines: [], next: 0 });
  append('{"a":1}\n{"b"');
  const first = readRunLog(folder, 0);
  expect(first.lines).toEqual(['{"a":1}']);
  append(':"ü"}\n');
  expect(readRunLog(folder, first.next).lines).toEqual(['{"b":"ü"}']);
});

test('a follow ends with the run', async () => {
  append('{"type":"note","message":"run running"}\n');
  const lines: string[] = [];
  const followed = followRunLog(folder, new AbortController().signal, (line) => lines.push(line));
  append('{"type":"note","message":"run done"}\n');
  await followed;
  expect(lines).toHaveLength(2);
});

test('a follow is left by its signal', async () => {
  const controller = new AbortController();
  const followed = followRunLog(folder, controller.signal, () => undefined);
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

test('a run that is not there, also one that points outside the store', () => {
  const home = homeAt(folder);
  expect(() => requireRunFolder(home, 'none')).toThrow(/none called "none"/);
  expect(() => requireRunFolder(home, '../..')).toThrow(/none called/);
});
