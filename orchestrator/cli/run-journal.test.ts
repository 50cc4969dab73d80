import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';

import { openStore, type ArtifactStore } from '../artifacts/store.js';
import { readRunJournal } from './run-journal.js';

let folder: string;
let store: ArtifactStore;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'collimate-journal-'));
  store = openStore(folder);
});
afterEach(() => rmSync(folder, { recursive: true }));

const notes = (...messages: string[]): Promise<void> =>
  store.appendRunEvents(
    'r',
    messages.map((message) => ({ type: 'note', message })),
  );

test('a run that failed: why, and what its stages came to', async () => {
  await notes('run running', 'stage ingest running', 'stage ingest done', 'stage embed running');
  expect(await readRunJournal(store, 'r')).toMatchObject({ state: 'running', failure: null });
  await notes('the run fails: dccf: expected numbers, got none', 'run failed');
  const { state, failure, stages } = await readRunJournal(store, 'r');
  expect({ state, failure }).toEqual({ state: 'failed', failure: 'dccf: expected numbers, got none' });
  expect(stages).toEqual([
    { name: 'ingest', state: 'done', jobs: [] },
    { name: 'embed', state: 'failed', jobs: [] },
  ]);
});

test('incidents in the order in which they were seen, and the seconds', async () => {
  const incidentAt = (detected: number) => JSON.stringify({ id: `tune#${detected}`, phases: { detected } });
  await store.writeRunFile('r', 'incident-tune.9.json', incidentAt(9));
  await store.writeRunFile('r', 'incident-tune.10.json', incidentAt(10));
  await store.writeRunFile('r', 'seconds.json', '{"work":3}');
  const { incidents, seconds } = await readRunJournal(store, 'r');
  expect(incidents.map(({ id }) => id)).toEqual(['tune#9', 'tune#10']);
  expect(seconds).toEqual({ work: 3 });
});

test('a run that is not there', async () => {
  await expect(readRunJournal(store, 'r')).rejects.toThrow(/none called "r"/);
});
