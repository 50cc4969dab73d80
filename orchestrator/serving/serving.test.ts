import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { status } from '@grpc/grpc-js';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';

import { loadService, makeClient, unary } from '../fleet/channel.js';
import { writeSafetensors } from '../recommender/safetensors.js';
import { Metrics } from '../telemetry/metrics.js';
import { generationsDir, readCurrent } from './generation.js';
import { HEALTH_SERVICE } from './health-service.js';
import { ListReader, NothingPublishedError, UnknownUserError } from './list-reader.js';
import { publishGeneration, StalePublicationError, undoPublication, type PublishRequest } from './publish.js';
import { startRecommendServer, type RecommendServer } from './recommend-service.js';

const ITEMS = ['i0', 'i1', 'i2', 'i3', 'i4'];
const LONG_USER = `user-${'é'.repeat(3000)}`;
let folder: string;
let servingDir: string;
const readers: ListReader[] = [];

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'collimate-serving-'));
  servingDir = join(folder, 'serving');
  const catalogue = ITEMS.map((item) => JSON.stringify({ item, title: `Title of ${item}`, brand: '' }));
  await writeFile(join(folder, 'catalogue'), `${catalogue.join('\n')}\n`);
});
afterEach(async () => {
  for (const reader of readers.splice(0)) await reader.close();
  await rm(folder, { recursive: true, force: true });
});

async function request(generation: string, options: { first?: string; epoch?: number } = {}): Promise<PublishRequest> {
  const items = [options.first ?? 'i0', 'i3', 'i4'];
  const lists = ['alice', 'bob', LONG_USER].map((user) =>
    JSON.stringify({ user, items, scores: [-0.5, -1.25, -3], historyHash: `hash of ${user.slice(0, 10)}` }),
  );
  const publishedPath = join(folder, `published-${generation}`);
  await writeFile(publishedPath, `${lists.join('\n')}\n`);
  const { epoch } = options;
  return {
    servingDir,
    publishedPath,
    cataloguePath: join(folder, 'catalogue'),
    versions: { model: 'm1', catalogue: 'c1', prompt: 'p1' },
    generation,
    ...(epoch === undefined ? {} : { epoch }),
  };
}

async function reader(warnings: string[] = []): Promise<ListReader> {
  const made = await ListReader.open({
    servingDir,
    followIntervalMs: 5,
    onWarning: (message) => warnings.push(message),
  });
  readers.push(made);
  return made;
}
async function first(of: ListReader): Promise<string | undefined> {
  await of.follow();
  return of.recommend({ user: 'alice', k: 1 }).items[0]?.item;
}

describe('publication', () => {
  it('makes lists readable with titles, scores and versions', async () => {
    await publishGeneration(await request('g1'));
    const answer = (await reader()).recommend({ user: 'alice', k: 2 });
    expect(answer.items).toEqual([
      { item: 'i0', title: 'Title of i0', score: -0.5 },
      { item: 'i3', title: 'Title of i3', score: -1.25 },
    ]);
    expect(answer.historyHash).toBe('hash of alice');
    expect(answer.meta).toMatchObject({
      generation: 'g1',
      versions: { model: 'm1', catalogue: 'c1', prompt: 'p1' },
      users: 3,
    });
    expect(answer.meta.createdUnixSeconds).toBeGreaterThan(Date.now() / 1000 - 60);
    expect((await reader()).recommend({ user: LONG_USER, k: 10 }).items).toHaveLength(3);
  });

  it('is followed by open readers, keeps the one before and removes older ones', async () => {
    await publishGeneration(await request('g1', { first: 'i0' }));
    const open = await reader();
    expect(await first(open)).toBe('i0');
    await publishGeneration(await request('g2', { first: 'i1' }));
    expect(await first(open)).toBe('i1');
    await publishGeneration(await request('g3', { first: 'i2' }));
    expect(await first(open)).toBe('i2');
    expect((await readdir(generationsDir(servingDir))).sort()).toEqual(['g2', 'g3']);
    expect(readCurrent(servingDir)).toEqual({ generation: 'g3', previous: 'g2', epoch: 0 });
  });

  it('can be undone, and done again', async () => {
    await publishGeneration(await request('g1', { first: 'i0' }));
    await expect(undoPublication(servingDir)).rejects.toThrow(/g1 .* is the first; there is none before it/);
    await publishGeneration(await request('g2', { first: 'i1' }));
    const open = await reader();
    await undoPublication(servingDir);
    expect(await first(open)).toBe('i0');
    await undoPublication(servingDir);
    expect(await first(open)).toBe('i1');
  });

  it('is idempotent, also when two callers publish the same at once', async () => {
    const same = await request('g1');
    const [one, two] = await Promise.all([publishGeneration(same), publishGeneration(same)]);
    expect(one.generation).toBe('g1');
    expect(two.generation).toBe('g1');
    const created = (await reader()).meta?.createdUnixSeconds;
    expect(await publishGeneration(same)).toEqual({ generation: 'g1', previous: null, epoch: 0 });
    expect((await reader()).meta?.createdUnixSeconds).toBe(created);
    expect(await readdir(generationsDir(servingDir))).toEqual(['g1']);
  });

  it('refuses a stale epoch and leaves everything as it was', async () => {
    await publishGeneration(await request('g1', { epoch: 5 }));
    const late = publishGeneration(await request('g0', { epoch: 4 }));
    await expect(late).rejects.toThrow(StalePublicationError);
    await expect(late).rejects.toThrow(/stale epoch 4; generation g1 was published with epoch 5 and stays/);
    expect(await readdir(generationsDir(servingDir))).toEqual(['g1']);
    expect(await publishGeneration(await request('g2', { epoch: 5 }))).toMatchObject({ generation: 'g2', epoch: 5 });
  });

  it.each([
    ['{"user":"u","items":["i0"],"scores":[],"historyHash":"h"}', /line 4: expected .*of equal length/],
    ['{"user":"u","items":["i9"],"scores":[1],"historyHash":"h"}', /line 4: expected items of the catalogue, got "i9"/],
    ['not json', /line 4: expected \{"user"/],
  ])('refuses a bad line and leaves no trace: %s', async (line, message) => {
    const bad = await request('g1');
    await writeFile(bad.publishedPath, `${line}\n`, { flag: 'a' });
    await expect(publishGeneration(bad)).rejects.toThrow(message);
    expect(await readdir(generationsDir(servingDir))).toEqual([]);
    expect(readCurrent(servingDir)).toBeNull();
  });

  it('refuses a name that would leave the folder, and an empty list', async () => {
    await expect(publishGeneration({ ...(await request('g1')), generation: '../g' })).rejects.toThrow(
      /generation name/,
    );
    const empty = await request('g1');
    await writeFile(empty.publishedPath, '');
    await expect(publishGeneration(empty)).rejects.toThrow(/expected at least one list/);
  });
});

describe('reading', () => {
  it('leaves out the history and what is excluded, keeping the order', async () => {
    const users = ['bob', 'alice'];
    await writeFile(join(folder, 'users'), users.map((user) => `${JSON.stringify({ user })}\n`).join(''));
    await writeSafetensors(join(folder, 'dataset'), {
      user_offsets: { shape: [3], data: BigInt64Array.from([0n, 1n, 4n]) },
      items: { shape: [4], data: Int32Array.from([1, 3, 2, 3]) },
    });
    const history = { datasetPath: join(folder, 'dataset'), usersPath: join(folder, 'users') };
    await publishGeneration({ ...(await request('g1')), history });
    const open = await reader();
    const items = (user: string, exclude: string[] = []) =>
      open.recommend({ user, k: 10, exclude }).items.map(({ item }) => item);
    expect(items('alice')).toEqual(['i0', 'i4']);
    expect(items('bob')).toEqual(['i0', 'i3', 'i4']);
    expect(items('bob', ['i0', 'i4', 'unknown'])).toEqual(['i3']);
    expect(items(LONG_USER)).toEqual(['i0', 'i3', 'i4']);
  });

  it('says who is unknown and when nothing is published', async () => {
    const open = await reader();
    expect(() => open.recommend({ user: 'alice', k: 1 })).toThrow(NothingPublishedError);
    await publishGeneration(await request('g1'));
    await open.follow();
    expect(() => open.recommend({ user: 'carol', k: 1 })).toThrow(UnknownUserError);
    expect(() => open.recommend({ user: 'carol', k: 1 })).toThrow(
      /user "carol" has no list in generation g1, which holds 3 users/,
    );
    expect(() => open.recommend({ user: '', k: 1 })).toThrow(UnknownUserError);
  });

  const damage = async (generation: string): Promise<void> => {
    const path = join(generationsDir(servingDir), generation, 'data.mdb');
    const bytes = await readFile(path);
    bytes[bytes.length >> 1] = (bytes[bytes.length >> 1] ?? 0) ^ 1;
    await writeFile(path, bytes);
  };

  it('stays with the old lists when the new ones are damaged, and says so once', async () => {
    await publishGeneration(await request('g1', { first: 'i1' }));
    await publishGeneration(await request('g2', { first: 'i2' }));
    await undoPublication(servingDir);
    const warnings: string[] = [];
    const open = await reader(warnings);
    await damage('g2');
    await undoPublication(servingDir);
    expect(await first(open)).toBe('i1');
    expect(await first(open)).toBe('i1');
    expect(warnings).toHaveLength(1);
    expect(warnings[0]).toMatch(
      /serving stays with g1: generation g2 is damaged, publish it again: .*expected the SHA-256/,
    );
    await publishGeneration(await request('g2', { first: 'i2' }));
    expect(await first(open)).toBe('i2');
  });

  it('starts with the generation before when the current one is damaged or lost', async () => {
    await publishGeneration(await request('g1', { first: 'i1' }));
    await publishGeneration(await request('g2', { first: 'i2' }));
    await damage('g2');
    expect(await first(await reader())).toBe('i1');
    await rm(join(generationsDir(servingDir), 'g2'), { recursive: true });
    expect(await first(await reader())).toBe('i1');
  });

  it('reads whole lists throughout many swaps', async () => {
    await publishGeneration(await request('g0', { first: 'i0' }));
    const open = await reader();
    // Each reader's own timer follows; nothing here asks it to.
    for (let n = 1; n <= 6; n++) {
      const publishing = publishGeneration(await request(`g${String(n)}`, { first: ITEMS[n % 3] ?? '' }));
      let done = false;
      void publishing.finally(() => (done = true));
      do {
        const { items, meta } = open.recommend({ user: 'bob', k: 3 });
        expect(items.map(({ item }) => item)).toEqual([ITEMS[Number(meta.generation.slice(1)) % 3], 'i3', 'i4']);
        await new Promise(setImmediate);
      } while (!done);
      await publishing;
    }
    await expect.poll(() => open.meta?.generation, { timeout: 3000 }).toBe('g6');
  });
});

describe('service', () => {
  let server: RecommendServer;
  const metrics = new Metrics({ exporter: 'serve', version: '1' });
  const closers: (() => void)[] = [];
  beforeEach(async () => {
    server = await startRecommendServer({ address: '127.0.0.1:0', servingDir, metrics });
  });
  afterEach(async () => {
    for (const close of closers.splice(0)) close();
    await server.close();
  });
  const client = () => {
    const made = makeClient(loadService('RecommendService'), `127.0.0.1:${String(server.port)}`);
    closers.push(() => made.close());
    return made;
  };
  const health = async (service: string): Promise<string> => {
    const { makeGenericClientConstructor } = await import('@grpc/grpc-js');
    const Health = makeGenericClientConstructor(HEALTH_SERVICE, 'Health');
    const made = makeClient(Health, `127.0.0.1:${String(server.port)}`);
    closers.push(() => made.close());
    return new Promise((resolve, reject) => {
      const check = made['check'] as (
        request: object,
        done: (error: Error | null, answer: { status: string }) => void,
      ) => void;
      check.call(made, { service }, (error, answer) => (error === null ? resolve(answer.status) : reject(error)));
    });
  };

  it('answers with every field of the contract', async () => {
    await publishGeneration(await request('g1'));
    await expect.poll(() => server.ready(), { timeout: 3000 }).toBe(true);
    const answer = await unary(
      client(),
      'recommend',
      { userId: 'bob', k: 0, excludeItemIds: ['i3'] },
      { deadlineMs: 2000 },
    );
    expect(answer).toEqual({
      userId: 'bob',
      items: [
        { itemId: 'i0', title: 'Title of i0', score: -0.5 },
        { itemId: 'i4', title: 'Title of i4', score: -3 },
      ],
      generation: 'g1',
      historyHash: 'hash of bob',
      modelVersion: 'm1',
      catalogueVersion: 'c1',
      promptVersion: 'p1',
      createdUnixSeconds: expect.any(Number) as number,
    });
    await expect(unary(client(), 'recommend', { userId: 'carol' }, { deadlineMs: 2000 })).rejects.toMatchObject({
      code: status.NOT_FOUND,
      details: expect.stringContaining('user "carol" has no list') as string,
    });
    const text = await metrics.text();
    expect(text).toContain('collimate_serve_request_duration_seconds_count{code="OK"} 1');
    expect(text).toContain('collimate_serve_request_duration_seconds_count{code="NOT_FOUND"} 1');
    expect(text).toContain('collimate_serve_generation_info{generation="g1",model_version="m1"} 1');
    expect(text).toContain('collimate_serve_users 3');
  });

  it('is ready from the first publication on, by the standard health service', async () => {
    expect(server.ready()).toBe(false);
    expect(await health('')).toBe('NOT_SERVING');
    await expect(unary(client(), 'recommend', { userId: 'bob' }, { deadlineMs: 2000 })).rejects.toMatchObject({
      code: status.UNAVAILABLE,
      details: expect.stringContaining('nothing has been published') as string,
    });
    await publishGeneration(await request('g1'));
    await expect.poll(() => health('collimate.v1.RecommendService'), { timeout: 3000 }).toBe('SERVING');
    await expect(health('unknown.Service')).rejects.toMatchObject({ code: status.NOT_FOUND });
  });
});
