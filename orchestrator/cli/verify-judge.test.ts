import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { afterEach, beforeEach, describe, expect, it } from 'vitest';

import type { IntervalOutcome, JobResult } from '../../workflows/contract.js';
import { sha256Hex } from '../artifacts/job-key.js';
import { FileArtifactStore } from '../artifacts/store.js';
import { encodeSafetensors } from '../recommender/safetensors.js';
import { judgeInterval } from './verify-judge.js';

const KEY = sha256Hex('a job');
const FROM = { step: 10, manifestDigest: sha256Hex('ten') };
const GANG = { workers: ['w-0'], seconds: 1 };

let folder = '';
let store: FileArtifactStore;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'collimate-judge-'));
  store = new FileArtifactStore(join(folder, 'store'));
});
afterEach(async () => {
  await rm(folder, { recursive: true, force: true });
});

const weights = (...values: number[]): Buffer =>
  encodeSafetensors({ w: { shape: [values.length], data: Float32Array.from(values) } });

/** Manifest digest of a checkpoint of step 20 with these files. */
async function checkpoint(name: string, files: Record<string, string | Buffer>): Promise<string> {
  const dir = join(folder, name);
  await mkdir(dir);
  for (const [file, content] of Object.entries(files)) await writeFile(join(dir, file), content);
  return (await store.putUnlistedCheckpoint(KEY, 20, dir)).manifestDigest;
}

async function judgeCheckpoint(recorded: Record<string, string | Buffer>, computed: Record<string, string | Buffer>) {
  const to = { step: 20, manifestDigest: await checkpoint('recorded', recorded) };
  const manifestDigest = await checkpoint('computed', computed);
  const outcome: IntervalOutcome = { ...GANG, end: { type: 'checkpoint', step: 20, manifestDigest } };
  return judgeInterval(store, { job: 'tune', from: FROM, to }, { outcome, recorded: result({}) });
}

const result = (changes: Partial<JobResult>): JobResult => ({ key: KEY, outputs: {}, summary: {}, ...changes });

describe('an interval to a checkpoint', () => {
  it('is exact when the manifests are one', async () => {
    const files = { 'state.json': '{"step":20}', 'a.safetensors': weights(1, 2) };
    expect(await judgeCheckpoint(files, files)).toMatchObject({ verdict: 'exact', difference: null });
  });

  it.each([
    [
      { 'a.safetensors': weights(1, 2, 3), 'state.json': '1' },
      { 'a.safetensors': weights(1, 5, 3), 'state.json': '2' },
      /^a\.safetensors: tensor 'w' \(F32 \[3\]\): element 1 at \[1\]: expected 2 \(.*\), got 5 .*; 1 of 3 elements/,
    ],
    [{ 'state.json': '{"step":20}' }, { 'state.json': '{"step":21}' }, /^state\.json: expected .*20.*, got .*21/],
    [{ a: 'x' }, { a: 'x', b: 'y' }, /^b: expected no such file/],
    [{ a: 'x', b: 'y' }, { a: 'x' }, /^b: expected this file, got none/],
  ])('names what differs first: %#', async (recorded, computed, difference) => {
    const judged = await judgeCheckpoint(recorded, computed);
    expect(judged.verdict).toBe('different');
    expect(judged.difference).toMatch(difference);
  });

  it('is different also when a file that would tell where is damaged', async () => {
    const to = { step: 20, manifestDigest: await checkpoint('recorded', { w: weights(1) }) };
    const manifestDigest = await checkpoint('computed', { w: weights(2) });
    await rm(join(folder, 'store', 'objects'), { recursive: true });
    const outcome: IntervalOutcome = { ...GANG, end: { type: 'checkpoint', step: 20, manifestDigest } };
    const judged = await judgeInterval(store, { job: 'tune', from: FROM, to }, { outcome, recorded: result({}) });
    expect(judged.verdict).toBe('different');
    expect(judged.difference).toMatch(/^the digests differ, and where cannot be told: object [0-9a-f]{64}/);
  });

  it('is different when the job ended before it, and not verified when it could not be computed', async () => {
    const to = { step: 20, manifestDigest: sha256Hex('twenty') };
    const judge = (end: IntervalOutcome['end']) =>
      judgeInterval(store, { job: 'tune', from: FROM, to }, { outcome: { ...GANG, end }, recorded: result({}) });
    expect(await judge({ type: 'result', result: result({}) })).toMatchObject({ verdict: 'different' });
    const failed = await judge({ type: 'failed', cause: 'nan_loss', message: 'step 12' });
    expect(failed).toMatchObject({ verdict: 'not verified', computed: null, difference: 'nan_loss: step 12' });
  });
});

describe('an interval to the end', () => {
  const judge = (recorded: JobResult, computed: JobResult) =>
    judgeInterval(
      store,
      { job: 'tune', from: FROM, to: null },
      { outcome: { ...GANG, end: { type: 'result', result: computed } }, recorded },
    );

  it('is exact when outputs and summary are, and names the first that is not', async () => {
    const [one, other] = [await store.putBytes(weights(1)), await store.putBytes(weights(-1))];
    const recorded = result({ outputs: { model: one }, summary: { lastLoss: 0.5 } });
    expect(await judge(recorded, recorded)).toMatchObject({ verdict: 'exact' });
    expect((await judge(recorded, { ...recorded, outputs: { model: other } })).difference).toMatch(
      /^model: tensor 'w' .*expected 1 .*, got -1/,
    );
    const summary = await judge(recorded, { ...recorded, summary: { lastLoss: 0.25 } });
    expect(summary).toMatchObject({
      verdict: 'different',
      difference: 'summary: expected {"lastLoss":0.5}, got {"lastLoss":0.25}',
    });
  });
});
