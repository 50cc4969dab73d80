/**
 * What every artifact store must do, as tests. An implementation's test file calls `artifactStoreContract` with a way to
 * open it twice over the same data (two processes in small) and a way to damage what it holds.
 */
import { randomBytes } from 'node:crypto';
import { mkdir, mkdtemp, readFile, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { afterEach, beforeEach, describe, expect, it } from 'vitest';

import type { JobResult } from '../../workflows/contract.js';
import type { ArtifactStore, StoreWarning } from './artifact-store.js';
import { CorruptArtifactError, NondeterminismError } from './errors.js';
import { sha256Hex } from './job-key.js';

export interface StoreUnderTest {
  /** A new client of the same data. */
  open(onWarning: (warning: StoreWarning) => void): ArtifactStore;
  /** Changes the stored bytes behind the store's back. */
  damage(what: Stored, how: (bytes: Buffer) => Buffer | null): Promise<void>;
  /** Takes away what this machine has of a remote store: a good local copy may be answered when the stored bytes are not. */
  dropCopies(): Promise<void>;
  /** Names of the files that `probe` has left. */
  leftOfProbe(): Promise<string[]>;
  close(): Promise<void>;
}

export type Stored =
  { object: string } | { job: string } | { checkpointOf: string; step: number } | { eventsOf: string };

const KEY = sha256Hex('a job');
const flip = (bytes: Buffer): Buffer => {
  const copy = Buffer.from(bytes);
  const middle = copy.length >> 1;
  copy[middle] = (copy[middle] ?? 0) ^ 1;
  return copy;
};
const DAMAGES: [string, (bytes: Buffer) => Buffer | null][] = [
  ['a flipped bit', flip],
  ['a lost second half', (bytes) => bytes.subarray(0, bytes.length >> 1)],
  ['a byte too many', (bytes) => Buffer.concat([bytes, Buffer.from('x')])],
  ['a lost file', () => null],
];

export function artifactStoreContract(name: string, make: (folder: string) => Promise<StoreUnderTest>): void {
  describe(`artifact store contract: ${name}`, () => {
    let folder: string;
    let world: StoreUnderTest;
    let store: ArtifactStore;
    let warnings: StoreWarning[];

    beforeEach(async () => {
      folder = await mkdtemp(join(tmpdir(), 'collimate-store-'));
      world = await make(join(folder, 'store'));
      warnings = [];
      store = world.open((warning) => warnings.push(warning));
    });
    afterEach(async () => {
      await world.close();
      await rm(folder, { recursive: true, force: true });
    });
    const another = (): ArtifactStore => world.open((warning) => warnings.push(warning));

    describe('objects', () => {
      it.each([0, 1, 1 << 20, (1 << 20) + 1, 3_000_000])('keeps %i bytes by their SHA-256', async (size) => {
        const bytes = randomBytes(size);
        const path = join(folder, 'in');
        await writeFile(path, bytes);
        const digest = await store.putFile(path);
        expect(digest).toBe(sha256Hex(bytes));
        expect(await store.putBytes(bytes)).toBe(digest);
        expect(await another().putFile(path)).toBe(digest);
        expect(await store.has(digest)).toBe(true);
        expect((await another().readBytes(digest)).equals(bytes)).toBe(true);
        expect((await readFile(await store.localPath(digest))).equals(bytes)).toBe(true);
      });

      it('gives equal paths to many readers at once, and reads on after some have left', async () => {
        const bytes = randomBytes(200_000);
        const digest = await store.putBytes(bytes);
        const paths = await Promise.all(Array.from({ length: 8 }, () => store.localPath(digest)));
        expect(new Set(paths).size).toBe(1);
        await store.releasePaths(Array.from({ length: 7 }, () => digest));
        expect((await readFile(paths[0] ?? '')).equals(bytes)).toBe(true);
        await store.releasePaths([digest]);
        expect((await readFile(await store.localPath(digest))).equals(bytes)).toBe(true);
      });

      it('takes many equal and different puts at once', async () => {
        const contents = Array.from({ length: 24 }, (_, i) => Buffer.from(`content ${String(i % 4)}`));
        const clients = [store, another(), another()] as const;
        const digests = await Promise.all(contents.map((bytes, i) => (clients[i % 3] ?? store).putBytes(bytes)));
        expect(digests).toEqual(contents.map((bytes) => sha256Hex(bytes)));
        for (const bytes of contents) expect((await store.readBytes(sha256Hex(bytes))).equals(bytes)).toBe(true);
      });

      it('stores JSON in canonical form', async () => {
        const digest = await store.putJson({ b: 1, a: [2] });
        expect(digest).toBe(sha256Hex('{"a":[2],"b":1}'));
        expect(await store.readJson(digest)).toEqual({ a: [2], b: 1 });
      });

      it.each(DAMAGES)('notices %s and is healed by the same bytes', async (_what, how) => {
        const bytes = randomBytes(5000);
        const digest = await store.putBytes(bytes);
        await store.localPath(digest);
        await world.damage({ object: digest }, how);
        await world.dropCopies();
        // The same client, which has verified the object before, and a new one.
        for (const client of [store, another()]) {
          await expect(client.localPath(digest)).rejects.toThrow(CorruptArtifactError);
          await expect(client.readBytes(digest)).rejects.toMatchObject({ digest, failureCause: 'corrupt_artifact' });
        }
        expect(await store.has(digest)).toBe(false);
        expect(await store.putBytes(bytes)).toBe(digest);
        expect((await store.readBytes(digest)).equals(bytes)).toBe(true);
      });

      it('heals a damaged object that nobody has read', async () => {
        const bytes = randomBytes(100);
        const digest = await store.putBytes(bytes);
        await world.damage({ object: digest }, flip);
        await another().putBytes(bytes);
        expect((await store.readBytes(digest)).equals(bytes)).toBe(true);
      });

      it('names what was asked for when it is missing, and refuses what is no digest', async () => {
        await expect(store.localPath(KEY)).rejects.toThrow(new RegExp(`object ${KEY}: expected .* found nothing`));
        await expect(store.localPath('../../etc/passwd')).rejects.toThrow(/expected a SHA-256/);
        await expect(store.putFile(join(folder, 'absent'))).rejects.toThrow(/ENOENT/);
      });
    });

    describe('probe', () => {
      it('leaves nothing behind', async () => {
        await store.putBytes(Buffer.from('x'));
        await store.probe();
        await another().probe();
        expect(await world.leftOfProbe()).toEqual([]);
        expect(warnings).toEqual([]);
      });
    });

    describe('jobs', () => {
      const commit = async (content = 'out'): Promise<JobResult> => {
        const result = {
          key: KEY,
          outputs: { model: await store.putBytes(Buffer.from(content)) },
          summary: { loss: 0.5 },
        };
        await store.commitJobResult(result);
        return result;
      };

      it('answers the committed result, to every client, and null before', async () => {
        expect(await store.getJobResult(KEY)).toBeNull();
        const result = await commit();
        expect(await another().getJobResult(KEY)).toEqual(result);
        expect(warnings).toEqual([]);
      });

      it('accepts an equal result again and refuses a different one', async () => {
        const result = await commit();
        await another().commitJobResult({ summary: result.summary, outputs: result.outputs, key: KEY });
        const different = { ...result, outputs: { model: await store.putBytes(Buffer.from('other')) } };
        await expect(another().commitJobResult(different)).rejects.toThrow(NondeterminismError);
        await expect(store.commitJobResult(different)).rejects.toThrow(
          new RegExp(`${result.outputs['model'] ?? ''}.*${different.outputs.model}`),
        );
        await expect(store.commitJobResult({ ...result, summary: { loss: 0.6 } })).rejects.toThrow(NondeterminismError);
        expect(await store.getJobResult(KEY)).toEqual(result);
      });

      it('lets exactly one of many different results win', async () => {
        const results = await Promise.all(
          Array.from({ length: 8 }, async (_, i) => ({
            key: KEY,
            outputs: { model: await store.putBytes(Buffer.from(`result ${String(i)}`)) },
            summary: {},
          })),
        );
        const ends = await Promise.allSettled(results.map((result) => another().commitJobResult(result)));
        expect(ends.filter((end) => end.status === 'fulfilled')).toHaveLength(1);
        const winner = results[ends.findIndex((end) => end.status === 'fulfilled')];
        expect(await store.getJobResult(KEY)).toEqual(winner);
      });

      it.each(DAMAGES)('asks for a new run after an output has %s', async (_what, how) => {
        const result = await commit();
        await world.damage({ object: result.outputs['model'] ?? '' }, how);
        expect(await another().getJobResult(KEY)).toBeNull();
        expect(warnings).toHaveLength(1);
        expect(warnings[0]).toMatchObject({ subject: `job ${KEY}` });
        expect(await commit()).toEqual(result);
        expect(await store.getJobResult(KEY)).toEqual(result);
      });

      it.each(DAMAGES.slice(0, 3))('asks for a new run after its record has %s', async (_what, how) => {
        const result = await commit();
        await world.damage({ job: KEY }, how);
        expect(await store.getJobResult(KEY)).toBeNull();
        expect(warnings).toHaveLength(1);
        await store.commitJobResult(result);
        expect(await store.getJobResult(KEY)).toEqual(result);
      });

      it('notices any single flipped bit of a record', async () => {
        const result = await commit();
        for (let position = 0; position < 260; position += 13) {
          await world.damage({ job: KEY }, (bytes) => {
            bytes[position % bytes.length] = (bytes[position % bytes.length] ?? 0) ^ 4;
            return bytes;
          });
          expect(await store.getJobResult(KEY)).toBeNull();
          await store.commitJobResult(result);
        }
      });

      it('commits over a damaged record, and never a result whose outputs are absent', async () => {
        const result = await commit();
        await world.damage({ job: KEY }, flip);
        await store.commitJobResult(result);
        expect(await store.getJobResult(KEY)).toEqual(result);
        const absent = { key: sha256Hex('other job'), outputs: { model: sha256Hex('absent') }, summary: {} };
        await expect(store.commitJobResult(absent)).rejects.toThrow(/found nothing \(output model/);
      });
    });

    describe('checkpoints', () => {
      const write = async (step: number, extra = ''): Promise<string> => {
        const dir = join(folder, `checkpoint-${String(step)}${extra}`);
        await mkdir(join(dir, 'chunks'), { recursive: true });
        await writeFile(join(dir, 'state.json'), `{"step":${String(step)}${extra}}`);
        await writeFile(join(dir, 'chunks', '0.safetensors'), `weights of step ${String(step)}`);
        await writeFile(join(dir, 'constant'), 'the same in every checkpoint');
        return dir;
      };
      const put = async (step: number) => store.putCheckpoint(KEY, step, await write(step));

      it('answers the newest and restores its files', async () => {
        expect(await store.latestCheckpoint(KEY)).toBeNull();
        for (const step of [5, 100, 20]) await put(step);
        const latest = await another().latestCheckpoint(KEY);
        expect(latest).toMatchObject({ step: 100 });
        expect(latest?.bytes).toBe(
          '{"step":100}'.length + 'weights of step 100'.length + 'the same in every checkpoint'.length,
        );
        expect((await store.listCheckpoints(KEY)).map(({ step }) => step)).toEqual([5, 20, 100]);
        const target = join(folder, 'restored');
        const manifest = await another().restoreCheckpoint(latest?.manifestDigest ?? '', target);
        expect(manifest).toMatchObject({ step: 100, jobKey: KEY });
        expect(Object.keys(manifest.files).sort()).toEqual(['chunks/0.safetensors', 'constant', 'state.json']);
        expect(await readFile(join(target, 'state.json'), 'utf8')).toBe('{"step":100}');
        expect(await readFile(join(target, 'chunks', '0.safetensors'), 'utf8')).toBe('weights of step 100');
      });

      it('restores copies: writing to them does not reach the store', async () => {
        const { manifestDigest } = await put(1);
        await store.restoreCheckpoint(manifestDigest, join(folder, 'one'));
        await writeFile(join(folder, 'one', 'state.json'), 'overwritten');
        await another().restoreCheckpoint(manifestDigest, join(folder, 'two'));
        expect(await readFile(join(folder, 'two', 'state.json'), 'utf8')).toBe('{"step":1}');
        await expect(store.restoreCheckpoint(manifestDigest, join(folder, 'two'))).rejects.toThrow(/expected an empty/);
      });

      it('is a function of its content: the same folder gives the same manifest', async () => {
        const first = await put(3);
        expect(await another().putCheckpoint(KEY, 3, await write(3))).toEqual(first);
        expect(await store.listCheckpoints(KEY)).toHaveLength(1);
      });

      it('refuses another content for a step, and keeps the stored one', async () => {
        const first = await put(3);
        const other = await write(3, ',"more":1');
        await expect(store.putCheckpoint(KEY, 3, other)).rejects.toThrow(NondeterminismError);
        expect(await store.latestCheckpoint(KEY)).toEqual(first);
      });

      it.each(DAMAGES)('goes back to the one before when the newest has a file with %s', async (_what, how) => {
        const older = await put(1);
        await put(2);
        await world.damage({ object: sha256Hex('weights of step 2') }, how);
        expect(await another().latestCheckpoint(KEY)).toEqual(older);
        expect(warnings).toHaveLength(1);
        expect(warnings[0]?.subject).toContain('step 2');
        const again = await put(2);
        expect(await store.latestCheckpoint(KEY)).toEqual(again);
      });

      it.each(DAMAGES)('goes back when the newest manifest has %s', async (_what, how) => {
        const older = await put(1);
        const newest = await put(2);
        await world.damage({ object: newest.manifestDigest }, how);
        expect(await store.latestCheckpoint(KEY)).toEqual(older);
        await expect(store.restoreCheckpoint(newest.manifestDigest, join(folder, 'r'))).rejects.toThrow(
          CorruptArtifactError,
        );
      });

      it.each(DAMAGES.slice(0, 3))('goes back when the newest pointer has %s', async (_what, how) => {
        const older = await put(1);
        await put(2);
        await world.damage({ checkpointOf: KEY, step: 2 }, how);
        expect(await store.latestCheckpoint(KEY)).toEqual(older);
      });

      it('tells every checkpoint and what is wrong with it, and takes none away', async () => {
        for (const step of [1, 2, 3, 4]) await put(step);
        await world.damage({ object: sha256Hex('weights of step 2') }, flip);
        await world.damage({ checkpointOf: KEY, step: 3 }, flip);
        for (const client of [another(), another()]) {
          const states = await client.inspectCheckpoints(KEY);
          expect(states.map(({ step }) => step)).toEqual([1, 2, 3, 4]);
          expect(states[1]?.damage).toContain(`object ${sha256Hex('weights of step 2')}`);
          expect(states[2]).toEqual({ step: 3, manifestDigest: null, damage: 'its pointer is damaged' });
          for (const index of [0, 3]) expect(states[index]).toMatchObject({ damage: null });
        }
        const listed = await store.listCheckpoints(KEY);
        expect(listed.map(({ step }) => step)).toEqual([1, 2, 4]);
        const digests = (await store.inspectCheckpoints(KEY)).flatMap(({ manifestDigest }) => manifestDigest ?? []);
        expect(digests).toEqual(listed.map(({ manifestDigest }) => manifestDigest));
        expect(warnings).toEqual([]);
      });

      it('stores an unlisted checkpoint under the digest of a listed one, and nothing goes on from it', async () => {
        const unlisted = await store.putUnlistedCheckpoint(KEY, 3, await write(3));
        expect(await another().latestCheckpoint(KEY)).toBeNull();
        expect(await store.listCheckpoints(KEY)).toEqual([]);
        await store.restoreCheckpoint(unlisted.manifestDigest, join(folder, 'unlisted'));
        expect(await put(3)).toEqual(unlisted);
        // Other content for a listed step is stored beside it.
        const other = await store.putUnlistedCheckpoint(KEY, 3, await write(3, ',"more":1'));
        expect(other.manifestDigest).not.toBe(unlisted.manifestDigest);
        expect(await store.latestCheckpoint(KEY)).toEqual(unlisted);
      });

      it('answers null when all are damaged', async () => {
        await put(1);
        await put(2);
        await world.damage({ object: sha256Hex('the same in every checkpoint') }, flip);
        expect(await store.latestCheckpoint(KEY)).toBeNull();
        expect(warnings).toHaveLength(2);
      });

      it('replaces a damaged checkpoint of the same step by other content', async () => {
        await put(2);
        await world.damage({ object: sha256Hex('{"step":2}') }, () => null);
        const other = await store.putCheckpoint(KEY, 2, await write(2, ',"more":1'));
        expect(await store.latestCheckpoint(KEY)).toEqual(other);
      });

      it('prunes all but the newest, and only this job', async () => {
        const otherKey = sha256Hex('another job');
        for (const step of [1, 2, 3, 4]) await put(step);
        await store.putCheckpoint(otherKey, 1, await write(1));
        expect(await store.pruneCheckpoints(KEY, 2)).toBe(2);
        expect((await store.listCheckpoints(KEY)).map(({ step }) => step)).toEqual([3, 4]);
        expect(await store.listCheckpoints(otherKey)).toHaveLength(1);
        expect(await store.pruneCheckpoints(KEY, 2)).toBe(0);
      });

      it('refuses an empty folder and a bad step', async () => {
        await mkdir(join(folder, 'empty'));
        await expect(store.putCheckpoint(KEY, 1, join(folder, 'empty'))).rejects.toThrow(/expected files below/);
        await expect(store.putCheckpoint(KEY, -1, folder)).rejects.toThrow(/expected a step >= 0/);
      });
    });

    describe('runs', () => {
      it('replaces files whole and lists runs', async () => {
        expect(await store.readRunFile('run-1', 'plan.json')).toBeNull();
        const path = await store.writeRunFile('run-1', 'plan.json', 'one');
        await another().writeRunFile('run-1', 'plan.json', 'two');
        await store.writeRunFile('run-0', 'plan.json', 'x');
        expect(path).toBe(`${store.runAddress('run-1')}/plan.json`);
        expect((await store.readRunFile('run-1', 'plan.json'))?.toString()).toBe('two');
        expect(await store.listRuns()).toEqual(['run-0', 'run-1']);
        await store.writeRunFile('run-1', 'incident-1.json', '{}');
        expect(await another().listRunFiles('run-1')).toEqual(['incident-1.json', 'plan.json']);
        expect(await store.listRunFiles('run-2')).toEqual([]);
      });

      it('refuses names that would leave the run', () => {
        expect(() => store.runAddress('../up')).toThrow(/run id: expected/);
        expect(() => store.runAddress('')).toThrow(/run id: expected/);
      });

      it('appends events in order, also from many calls at once', async () => {
        await Promise.all(
          Array.from({ length: 20 }, (_, n) => store.appendRunEvents('r', [{ n }, { n, again: true }])),
        );
        const events = await another().readRunEvents('r');
        expect(events.map(({ n }) => n)).toEqual(Array.from({ length: 40 }, (_, i) => i >> 1));
      });

      it('keeps the order of two writers that take turns', async () => {
        const clients = [store, another()] as const;
        for (let n = 0; n < 6; n += 1) await clients[n % 2 === 0 ? 0 : 1].appendRunEvents('r', [{ n }]);
        expect((await another().readRunEvents('r')).map(({ n }) => n)).toEqual([0, 1, 2, 3, 4, 5]);
      });

      it('loses no event of two writers at once', async () => {
        const clients = [store, another()] as const;
        await Promise.all(
          Array.from({ length: 20 }, (_, n) => clients[n % 2 === 0 ? 0 : 1].appendRunEvents('r', [{ n }])),
        );
        const numbers = (await store.readRunEvents('r')).map(({ n }) => Number(n));
        for (const parity of [0, 1]) {
          expect(numbers.filter((n) => n % 2 === parity)).toEqual(Array.from({ length: 10 }, (_, i) => 2 * i + parity));
        }
      });

      it('goes on reading events where it was', async () => {
        expect(await store.readRunEventsAfter('r', null)).toMatchObject({ events: [] });
        await store.appendRunEvents('r', [{ n: 1 }, { n: 2 }]);
        const first = await another().readRunEventsAfter('r', null);
        expect(first.events).toEqual([{ n: 1 }, { n: 2 }]);
        expect((await store.readRunEventsAfter('r', first.cursor)).events).toEqual([]);
        await another().appendRunEvents('r', [{ n: 3 }]);
        expect((await store.readRunEventsAfter('r', first.cursor)).events).toEqual([{ n: 3 }]);
      });

      it('loses only the line that a crash cut short', async () => {
        await store.appendRunEvents('r', [{ n: 1 }, { n: 2 }]);
        await world.damage({ eventsOf: 'r' }, (bytes) => bytes.subarray(0, bytes.length - 3));
        await another().appendRunEvents('r', [{ n: 3 }]);
        expect(await store.readRunEvents('r')).toEqual([{ n: 1 }, { n: 3 }]);
        expect(warnings).toEqual([{ subject: 'events of run r', message: 'line 2 is damaged and left out' }]);
      });
    });

    describe('inventory', () => {
      it('tells what refers to how much, each for itself', async () => {
        const output = await store.putBytes(Buffer.from('output'));
        await store.commitJobResult({ key: KEY, outputs: { output, again: output }, summary: {} });
        const input = await store.putBytes(Buffer.from('input'));
        await store.writeRunFile('r', 'result.json', JSON.stringify({ input, output, key: KEY }));
        await store.putBytes(Buffer.from('stray'));
        await mkdir(join(folder, 'c'));
        await writeFile(join(folder, 'c', 'state.json'), '{}');
        const { manifestDigest, bytes } = await store.putCheckpoint(KEY, 1, join(folder, 'c'));
        const manifest = (await store.readBytes(manifestDigest)).length;
        expect(await store.usage()).toEqual({
          all: { objects: 5, bytes: 6 + 5 + 5 + bytes + manifest },
          jobResults: { objects: 1, bytes: 6 },
          checkpoints: { objects: 2, bytes: bytes + manifest },
          unreferenced: { objects: 1, bytes: 5 },
          runs: { r: { objects: 2, bytes: 11 } },
        });
      });

      it('finds what is damaged and what is missing, and says who named it', async () => {
        const sound = await store.putBytes(Buffer.from('sound'));
        const broken = await store.putBytes(Buffer.from('broken'));
        await store.commitJobResult({ key: KEY, outputs: { sound, broken }, summary: {} });
        expect(await store.checkObjects()).toEqual({ objects: 2, bytes: 11, damaged: [], missing: [] });
        await world.damage({ object: broken }, () => Buffer.from('brokem'));
        const progress: number[] = [];
        const found = await another().checkObjects(({ objects }) => progress.push(objects));
        expect(found).toMatchObject({ objects: 2, damaged: [{ digest: broken }] });
        expect(found.damaged[0]?.message).toContain('SHA-256');
        expect(progress).toEqual([1, 2]);
        // It was moved aside: from now on it is missing, until the job is run again.
        const after = await another().checkObjects();
        expect(after).toMatchObject({ objects: 1, damaged: [], missing: [{ digest: broken, namedBy: `job ${KEY}` }] });
        expect(await another().getJobResult(KEY)).toBeNull();
      });
    });

    describe('garbage', () => {
      it('removes only what nothing refers to and what is old enough', async () => {
        const output = await store.putBytes(Buffer.from('output'));
        await store.commitJobResult({ key: KEY, outputs: { output }, summary: {} });
        const input = await store.putBytes(Buffer.from('input'));
        await store.writeRunFile('r', 'plan.json', JSON.stringify({ inputs: { raw: input } }));
        await mkdir(join(folder, 'c'));
        await writeFile(join(folder, 'c', 'state.json'), '{}');
        const { manifestDigest } = await store.putCheckpoint(KEY, 1, join(folder, 'c'));
        const stray = await store.putBytes(Buffer.from('stray'));
        expect(await store.collectGarbage({ olderThanSeconds: 3600 })).toEqual({ objects: 0, bytes: 0 });
        expect(await store.collectGarbage({ olderThanSeconds: -1, dryRun: true })).toEqual({ objects: 1, bytes: 5 });
        expect(await store.has(stray)).toBe(true);
        expect(await store.collectGarbage({ olderThanSeconds: -1 })).toEqual({ objects: 1, bytes: 5 });
        expect(await store.has(stray)).toBe(false);
        expect(await store.has(input)).toBe(true);
        expect((await store.getJobResult(KEY))?.outputs).toEqual({ output });
        await store.restoreCheckpoint(manifestDigest, join(folder, 'restored'));
        expect(await readdir(join(folder, 'restored'))).toEqual(['state.json']);
      });
    });
  });
}
