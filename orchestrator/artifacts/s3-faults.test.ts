/** The S3 store when the network breaks and when servers refuse, are away or full. */
import { execFileSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { mkdir, mkdtemp, readFile, readdir, rm } from 'node:fs/promises';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';

import { sha256Hex } from './job-key.js';
import { parseS3Address } from './s3-address.js';
import { S3ArtifactStore } from './s3-store.js';
import { FaultyProxy, S3_SERVER_REFUSAL, S3TestServer } from './s3-test-server.js';
import { mountRefusal, PART_BYTES, refusalOf, S3World } from './s3-test-world.js';

const KEY = sha256Hex('a job');
const skipped = S3_SERVER_REFUSAL === null ? '' : ` (skipped: ${S3_SERVER_REFUSAL})`;

describe.skipIf(S3_SERVER_REFUSAL !== null)(`S3 store in trouble${skipped}`, () => {
  let world: S3World;
  beforeAll(async () => {
    world = await S3World.start();
  });
  afterAll(() => world.close());
  beforeEach(() => world.next());

  describe('connections that break', () => {
    let proxy: FaultyProxy;
    beforeEach(async () => {
      proxy = await FaultyProxy.start(world.server.port);
    });
    afterEach(async () => {
      await proxy.close();
    });

    it('sends a part again when the connection breaks in its middle', async () => {
      const bytes = randomBytes(3 * PART_BYTES + 5);
      const store = world.open({ port: proxy.port });
      proxy.rule({ direction: 'up', action: 'cut', afterBytes: PART_BYTES / 2, times: 3 });
      const digest = await store.putFile(await world.fileOf(bytes));
      expect(proxy.faults).toBe(3);
      expect((await world.open().readBytes(digest)).equals(bytes)).toBe(true);
      expect(await world.uploads()).toEqual([]);
    });

    it('goes on with a download where it broke', async () => {
      const bytes = randomBytes(3 * PART_BYTES);
      const digest = await world.open().putBytes(bytes);
      const store = world.open({ port: proxy.port });
      proxy.rule({ direction: 'down', action: 'cut', afterBytes: PART_BYTES, times: 2 });
      expect((await readFile(await store.localPath(digest))).equals(bytes)).toBe(true);
      expect(proxy.faults).toBe(2);
      // What was on its way at the cut comes again; the whole does not.
      expect(proxy.bytes.down).toBeLessThan(1.7 * bytes.length);
    });

    it('gives up when it never holds, and leaves neither part of an object nor of a copy', async () => {
      const bytes = randomBytes(PART_BYTES);
      const digest = await world.open().putBytes(bytes);
      const store = world.open({ port: proxy.port, retryBudgetMs: 500 });
      await store.has(digest);
      proxy.rule({ direction: 'down', action: 'cut', afterBytes: 10_000, times: Infinity });
      expect((await refusalOf(store.localPath(digest))).code).toBe('ECONNRESET');
      expect(await readdir(join(world.folder, 'cache', 'objects'))).toEqual([]);
      proxy.rule({ direction: 'up', action: 'cut', afterBytes: 100_000, times: Infinity });
      await refusalOf(store.putFile(await world.fileOf(randomBytes(PART_BYTES * 2))));
      expect(await readdir(world.pathOf(`objects`))).toEqual([digest]);
    });

    it('takes bytes that changed on the way for no damage', async () => {
      const bytes = randomBytes(500_000);
      const digest = await world.open().putBytes(bytes);
      const store = world.open({ port: proxy.port });
      proxy.rule({ direction: 'down', action: 'garble', afterBytes: 200_000, times: 1 });
      expect((await store.readBytes(digest)).equals(bytes)).toBe(true);
      proxy.rule({ direction: 'up', action: 'garble', afterBytes: 200_000, times: 1 });
      expect(await store.putBytes(bytes)).toBe(digest);
      expect(proxy.faults).toBe(2);
      expect((await world.open().readBytes(digest)).equals(bytes)).toBe(true);
      await expect(readdir(world.pathOf(`damaged`))).rejects.toThrow(/ENOENT/);
    });

    it('finds its own record when the answer to its creation was lost', async () => {
      const store = world.open({ port: proxy.port });
      await store.probe();
      // No outputs to look at: the next request is the creation, and it is through when its answer's first byte is cut off.
      proxy.rule({ direction: 'down', action: 'cut', afterBytes: 0, times: 1 });
      const result = { key: KEY, outputs: {}, summary: { loss: 1 } };
      await store.commitJobResult(result);
      expect(proxy.faults).toBe(1);
      expect(await world.open().getJobResult(KEY)).toEqual(result);
    });

    it('writes events once when the answer to their segment was lost', async () => {
      const store = world.open({ port: proxy.port });
      await store.appendRunEvents('r', [{ n: 1 }]);
      for (let n = 2; n < 6; n += 1) {
        proxy.rule({ direction: 'down', action: 'cut', afterBytes: 0, times: 1 });
        await store.appendRunEvents('r', [{ n }]);
        expect(proxy.faults).toBe(n - 1);
      }
      expect((await world.open().readRunEvents('r')).map(({ n }) => n)).toEqual([1, 2, 3, 4, 5]);
    });
  });

  describe('servers that refuse', () => {
    it('waits for a server that is down', async () => {
      const digest = await world.open().putBytes(Buffer.from('before'));
      const store = world.open();
      await world.server.down();
      const read = store.readBytes(digest);
      read.catch(() => undefined);
      await sleep(400);
      await world.server.up();
      expect((await read).toString()).toBe('before');
    });

    it('gives up on a server that stays down, within the budget', async () => {
      const startedMs = Date.now();
      const error = await refusalOf(world.open({ port: 9, retryBudgetMs: 700 }).putBytes(Buffer.from('x')));
      expect(error).toMatchObject({ code: 'ECONNREFUSED', failureCause: 'store_unavailable' });
      expect(error.message).toMatch(/nothing answers at the endpoint; start the server/);
      expect(Date.now() - startedMs).toBeLessThan(5_000);
    });

    it.each([
      ['a missing bucket', { bucket: 'no-such-bucket' }, {}, 'NoSuchBucket', /does not exist; make it/],
      ['a wrong secret', {}, { AWS_SECRET_ACCESS_KEY: 'wrong' }, 'SignatureDoesNotMatch', /secret key is wrong/],
      ['an unknown key', {}, { AWS_ACCESS_KEY_ID: 'nobody' }, 'InvalidAccessKeyId', /does not know the access key/],
    ])('says at once what is wrong: %s', async (_what, place, env, code, words) => {
      const before = { ...process.env };
      Object.assign(process.env, env);
      try {
        const startedMs = Date.now();
        const store = world.open(place);
        for (const action of [
          store.putBytes(Buffer.from('x')),
          store.has(KEY),
          store.probe(),
          store.getJobResult(KEY),
        ]) {
          const error = await refusalOf(action);
          expect(error.code).toBe(code);
          expect(error.message).toMatch(words);
          expect(`${error.message} ${String(error.cause)} ${JSON.stringify(error)}`).not.toContain('secret-');
        }
        expect(Date.now() - startedMs).toBeLessThan(3_000);
      } finally {
        Object.assign(process.env, before);
      }
    });

    it('says that no credentials were found', async () => {
      const before = { ...process.env };
      delete process.env['AWS_ACCESS_KEY_ID'];
      delete process.env['AWS_SECRET_ACCESS_KEY'];
      Object.assign(process.env, {
        AWS_EC2_METADATA_DISABLED: 'true',
        AWS_SHARED_CREDENTIALS_FILE: join(world.folder, 'none'),
        AWS_CONFIG_FILE: join(world.folder, 'none'),
      });
      try {
        const error = await refusalOf(world.open().probe());
        expect(error.message).toMatch(/NoCredentials: no credentials were found; check AWS_ACCESS_KEY_ID/);
      } finally {
        for (const name of ['AWS_EC2_METADATA_DISABLED', 'AWS_SHARED_CREDENTIALS_FILE', 'AWS_CONFIG_FILE']) {
          delete process.env[name];
        }
        Object.assign(process.env, before);
      }
    });

    it('says that the region is another one', async () => {
      const address = parseS3Address(world.server.address(world.prefix).replace('us-east-1', 'eu-west-1'));
      const error = await refusalOf(new S3ArtifactStore(address).probe());
      expect(error.message).toMatch(/WrongRegion: .*another region; give the right one as \?region=/);
    });

    it.each([
      ['one that ignores conditions', 200, '', 'NoConditionalWrites', /use a server that has conditional writes/],
      [
        'one that is busy for ever',
        503,
        '<Error><Code>SlowDown</Code></Error>',
        'SlowDown',
        /answers 503 again and again/,
      ],
      [
        'one that is full',
        507,
        '<Error><Code>XMinioStorageFull</Code></Error>',
        'ENOSPC',
        /bucket is full; free space/,
      ],
      ['one of another kind', 200, '<html>hello', 'NotS3', /does not answer like an S3 server/],
      ['one that never answers', 0, '', 'ETIMEDOUT', /no answer in time/],
    ])('refuses a server: %s', async (_what, status, body, code, words) => {
      const list = '<ListBucketResult><KeyCount>0</KeyCount></ListBucketResult>';
      const fake = createServer((request, response) => {
        request.resume();
        if (status !== 0) response.writeHead(status).end(body === '' && request.method === 'GET' ? list : body);
      });
      await new Promise<void>((resolve) => fake.listen(0, '127.0.0.1', resolve));
      try {
        const { port } = fake.address() as AddressInfo;
        const error = await refusalOf(world.open({ port, retryBudgetMs: 600, callTimeoutMs: 300 }).probe());
        expect(error.code).toBe(code);
        expect(error.message).toMatch(words);
      } finally {
        fake.closeAllConnections();
        await new Promise((resolve) => fake.close(resolve));
      }
    });
  });
});

const refusal = mountRefusal();

describe.skipIf(refusal !== null)(`S3 store and full disks${refusal === null ? '' : ` (skipped: ${refusal})`}`, () => {
  let folder: string;
  let disk: string;
  let server: S3TestServer;
  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), 'collimate-s3-full-'));
    disk = join(folder, 'disk');
    await mkdir(disk);
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=4m', 'tmpfs', disk]);
  });
  afterEach(async () => {
    await server.down();
    execFileSync('umount', ['-l', disk]);
    await rm(folder, { recursive: true, force: true });
  });

  it('reports a full server as a full disk, keeps what it has, and goes on when there is room again', async () => {
    server = await S3TestServer.start(disk);
    const store = new S3ArtifactStore(parseS3Address(server.address('p')), {
      cache: { folder: join(folder, 'cache') },
    });
    const before = await store.putBytes(Buffer.from('before'));
    const big = Buffer.alloc(6 << 20, 7);
    const error = await refusalOf(store.putBytes(big));
    expect(error).toMatchObject({ code: 'ENOSPC', failureCause: 'store_unavailable' });
    expect(error.message).toMatch(/bucket is full; free space/);
    expect((await store.readBytes(before)).toString()).toBe('before');
    execFileSync('mount', ['-o', 'remount,size=32m', disk]);
    const digest = await store.putBytes(big);
    await expect(store.localPath(digest)).resolves.toContain(digest);
  });

  it('gives up copies that are not in use when the disk of the copies is full, and reports it when all are', async () => {
    server = await S3TestServer.start(join(folder, 'server'));
    const store = new S3ArtifactStore(parseS3Address(server.address('p')), { cache: { folder: disk } });
    const [one, two] = await Promise.all([1, 2].map((fill) => store.putBytes(Buffer.alloc(3 << 20, fill))));
    if (one === undefined || two === undefined) throw new Error('nothing was put');
    await store.localPath(one);
    expect(await refusalOf(store.localPath(two))).toMatchObject({ code: 'ENOSPC' });
    await store.releasePaths([one]);
    expect(sha256Hex(await readFile(await store.localPath(two)))).toBe(two);
    expect(await readdir(join(disk, 'objects'))).toEqual([two]);
  });
});
