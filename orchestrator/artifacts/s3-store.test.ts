import { execFile, execFileSync, spawn, spawnSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { mkdir, mkdtemp, readFile, readdir, rm, truncate, unlink, writeFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';

import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';

import { artifactStoreContract, type Stored } from './artifact-store-contract.js';
import { StoreUnavailableError } from './errors.js';
import { sha256Hex } from './job-key.js';
import { parseS3Address } from './s3-address.js';
import { S3ArtifactStore, type S3StoreOptions } from './s3-store.js';
import { BUCKET, FaultyProxy, S3_SERVER_REFUSAL, S3TestServer } from './s3-test-server.js';

const PART_BYTES = 5 << 20;
const KEY = sha256Hex('a job');

let outer: string;
let server: S3TestServer;
let prefixes = 0;
const skipped = S3_SERVER_REFUSAL === null ? '' : ` (skipped: ${S3_SERVER_REFUSAL})`;

describe.skipIf(S3_SERVER_REFUSAL !== null)(`S3 store${skipped}`, () => {
  beforeAll(async () => {
    outer = await mkdtemp(join(tmpdir(), 'collimate-s3-'));
    server = await S3TestServer.start(join(outer, 'server'));
  });
  afterAll(async () => {
    await server.down();
    await rm(outer, { recursive: true, force: true });
  });

  artifactStoreContract('S3', (root) => {
    const prefix = `contract/${String(++prefixes)}`;
    const cache = join(root, 'cache');
    return Promise.resolve({
      open: (onWarning) =>
        new S3ArtifactStore(parseS3Address(server.address(prefix)), { onWarning, cache: { folder: cache } }),
      async damage(what, how) {
        const path = await pathOf(prefix, what);
        const bytes = how(await readFile(path));
        await (bytes === null ? unlink(path) : writeFile(path, bytes));
      },
      dropCopies: () => rm(cache, { recursive: true, force: true }),
      leftOfProbe: () => readdir(server.pathOf(`${prefix}/probe`)).catch(() => []),
      close: () => Promise.resolve(),
    });
  });

  let folder: string;
  let prefix: string;
  beforeEach(async () => {
    folder = await mkdtemp(join(outer, 'test-'));
    prefix = `special/${String(++prefixes)}`;
  });
  const open = (options: S3StoreOptions & { bucket?: string; port?: number } = {}): S3ArtifactStore => {
    const { bucket, port, ...rest } = options;
    const place = { ...(bucket !== undefined && { bucket }), ...(port !== undefined && { port }) };
    const settings = {
      retryBudgetMs: 10_000,
      partBytes: PART_BYTES,
      cache: { folder: join(folder, 'cache') },
      ...rest,
    };
    return new S3ArtifactStore(parseS3Address(server.address(prefix, place)), settings);
  };
  const fileOf = async (bytes: Uint8Array): Promise<string> => {
    const path = join(folder, sha256Hex(bytes));
    await writeFile(path, bytes);
    return path;
  };
  const failure = async (action: Promise<unknown>): Promise<StoreUnavailableError> => {
    const error = await action.catch((reason: unknown) => reason);
    expect(error).toBeInstanceOf(StoreUnavailableError);
    return error as StoreUnavailableError;
  };

  describe('objects in parts', () => {
    it.each([0, 1, PART_BYTES / 2])('keeps a file of two parts and %i bytes', async (more) => {
      const bytes = randomBytes(2 * PART_BYTES + more);
      const digest = await open().putFile(await fileOf(bytes));
      expect(digest).toBe(sha256Hex(bytes));
      expect((await readFile(server.pathOf(`${prefix}/objects/${digest}`))).equals(bytes)).toBe(true);
      expect((await open().readBytes(digest)).equals(bytes)).toBe(true);
    });

    it('holds no more than the parts in flight of a large file, both ways', async () => {
      // A process of its own: its peak is that of this transfer.
      const path = join(folder, 'large');
      const block = randomBytes(1 << 20);
      for (let i = 0; i < 400; i += 1) await writeFile(path, block, { flag: 'a' });
      const script = `
        import { openStore } from ${built('store')};
        const store = openStore(${JSON.stringify(server.address(prefix))});
        await store.probe();
        const before = process.resourceUsage().maxRSS;
        const digest = await store.putFile(${JSON.stringify(path)});
        await store.localPath(digest);
        console.log(Math.round((process.resourceUsage().maxRSS - before) / 1024));`;
      const grown = Number(await runScript(script, { COLLIMATE_STORE_CACHE: join(folder, 'cache') }));
      expect(grown).toBeGreaterThan(0);
      expect(grown).toBeLessThan(220);
    });

    it('refuses a file that changes while it is stored, and leaves no upload behind', async () => {
      const path = await fileOf(randomBytes(4 * PART_BYTES));
      const put = open().putFile(path);
      put.catch(() => undefined);
      await untilUpload();
      await writeFile(path, randomBytes(4 * PART_BYTES));
      const outcome = await put.catch((error: unknown) => error);
      // Read to its end before the change: whole. Else refused; never stored under the name of what it was.
      if (typeof outcome === 'string') {
        expect(sha256Hex(await readFile(server.pathOf(`${prefix}/objects/${outcome}`)))).toBe(outcome);
      } else expect((outcome as Error).message).toMatch(/changed while it was being stored/);
      expect(await uploads()).toEqual([]);
    });

    it('leaves what a killed process began to collectGarbage', async () => {
      const path = await fileOf(randomBytes(8 * PART_BYTES));
      const script = `
        import { parseS3Address } from ${built('s3-address')};
        import { S3ArtifactStore } from ${built('s3-store')};
        const address = parseS3Address(${JSON.stringify(server.address(prefix))});
        const store = new S3ArtifactStore(address, { partBytes: ${String(PART_BYTES)} });
        for (;;) await store.putFile(${JSON.stringify(path)});`;
      const child = spawn(process.execPath, scriptArgs(script), { stdio: 'ignore', cwd: process.cwd() });
      await untilUpload();
      child.kill('SIGKILL');
      await new Promise((resolve) => child.once('exit', resolve));
      expect(await uploads()).toHaveLength(1);
      const whole = await readdir(server.pathOf(`${prefix}/objects`)).catch(() => []);
      expect(await open().collectGarbage({ olderThanSeconds: 3600 })).toEqual({ objects: 0, bytes: 0 });
      const removed = await open().collectGarbage({ olderThanSeconds: -2 });
      expect(removed.objects).toBe(whole.length + 1);
      expect(await uploads()).toEqual([]);
    });

    it('moves a damaged object aside in parts where the server copies no more at once', async () => {
      const bytes = randomBytes(PART_BYTES + 1000);
      const digest = await open().putBytes(bytes);
      const damaged = Buffer.concat([bytes, Buffer.from('x')]);
      await writeFile(server.pathOf(`${prefix}/objects/${digest}`), damaged);
      const store = open({ copyBytesMax: PART_BYTES, copyPartBytes: PART_BYTES });
      await expect(store.localPath(digest)).rejects.toThrow(/moved to s3:\/\/.*damaged/);
      const [name = ''] = await readdir(server.pathOf(`${prefix}/damaged`));
      expect((await readFile(server.pathOf(`${prefix}/damaged/${name}`))).equals(damaged)).toBe(true);
      expect(await store.has(digest)).toBe(false);
    });
  });

  describe('connections that break', () => {
    let proxy: FaultyProxy;
    beforeEach(async () => {
      proxy = await FaultyProxy.start(server.port);
    });
    afterEach(async () => {
      await proxy.close();
    });

    it('sends a part again when the connection breaks in its middle', async () => {
      const bytes = randomBytes(3 * PART_BYTES + 5);
      const store = open({ port: proxy.port });
      proxy.rule({ direction: 'up', action: 'cut', afterBytes: PART_BYTES / 2, times: 3 });
      const digest = await store.putFile(await fileOf(bytes));
      expect(proxy.faults).toBe(3);
      expect((await open().readBytes(digest)).equals(bytes)).toBe(true);
      expect(await uploads()).toEqual([]);
    });

    it('goes on with a download where it broke', async () => {
      const bytes = randomBytes(3 * PART_BYTES);
      const digest = await open().putBytes(bytes);
      const store = open({ port: proxy.port });
      proxy.rule({ direction: 'down', action: 'cut', afterBytes: PART_BYTES, times: 2 });
      expect((await readFile(await store.localPath(digest))).equals(bytes)).toBe(true);
      expect(proxy.faults).toBe(2);
    });

    it('gives up when it never holds, and leaves neither part of an object nor of a copy', async () => {
      const bytes = randomBytes(PART_BYTES);
      const digest = await open().putBytes(bytes);
      const store = open({ port: proxy.port, retryBudgetMs: 500 });
      await store.has(digest);
      proxy.rule({ direction: 'down', action: 'cut', afterBytes: 10_000, times: Infinity });
      expect((await failure(store.localPath(digest))).code).toBe('ECONNRESET');
      expect(await readdir(join(folder, 'cache', 'objects'))).toEqual([]);
      proxy.rule({ direction: 'up', action: 'cut', afterBytes: 100_000, times: Infinity });
      await failure(store.putFile(await fileOf(randomBytes(PART_BYTES * 2))));
      expect(await readdir(server.pathOf(`${prefix}/objects`))).toEqual([digest]);
    });

    it('takes bytes that changed on the way for no damage', async () => {
      const bytes = randomBytes(500_000);
      const digest = await open().putBytes(bytes);
      const store = open({ port: proxy.port });
      proxy.rule({ direction: 'down', action: 'garble', afterBytes: 200_000, times: 1 });
      expect((await store.readBytes(digest)).equals(bytes)).toBe(true);
      proxy.rule({ direction: 'up', action: 'garble', afterBytes: 200_000, times: 1 });
      expect(await store.putBytes(bytes)).toBe(digest);
      expect(proxy.faults).toBe(2);
      expect((await open().readBytes(digest)).equals(bytes)).toBe(true);
      await expect(readdir(server.pathOf(`${prefix}/damaged`))).rejects.toThrow(/ENOENT/);
    });

    it('finds its own record when the answer to its creation was lost', async () => {
      const store = open({ port: proxy.port });
      await store.probe();
      // No outputs to look at: the next request is the creation, and it is through when its answer's first byte is cut off.
      proxy.rule({ direction: 'down', action: 'cut', afterBytes: 0, times: 1 });
      const result = { key: KEY, outputs: {}, summary: { loss: 1 } };
      await store.commitJobResult(result);
      expect(proxy.faults).toBe(1);
      expect(await open().getJobResult(KEY)).toEqual(result);
    });

    it('writes events once when the answer to their segment was lost', async () => {
      const store = open({ port: proxy.port });
      await store.appendRunEvents('r', [{ n: 1 }]);
      for (let n = 2; n < 6; n += 1) {
        proxy.rule({ direction: 'down', action: 'cut', afterBytes: 0, times: 1 });
        await store.appendRunEvents('r', [{ n }]);
        expect(proxy.faults).toBe(n - 1);
      }
      expect((await open().readRunEvents('r')).map(({ n }) => n)).toEqual([1, 2, 3, 4, 5]);
    });
  });

  describe('servers that refuse', () => {
    it('waits for a server that is down', async () => {
      const digest = await open().putBytes(Buffer.from('before'));
      const store = open();
      await server.down();
      const read = store.readBytes(digest);
      read.catch(() => undefined);
      await sleep(400);
      await server.up();
      expect((await read).toString()).toBe('before');
    });

    it('gives up on a server that stays down, within the budget', async () => {
      const startedMs = Date.now();
      const error = await failure(open({ port: 9, retryBudgetMs: 700 }).putBytes(Buffer.from('x')));
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
        const store = open(place);
        for (const action of [
          store.putBytes(Buffer.from('x')),
          store.has(KEY),
          store.probe(),
          store.getJobResult(KEY),
        ]) {
          const error = await failure(action);
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
        AWS_SHARED_CREDENTIALS_FILE: join(folder, 'none'),
        AWS_CONFIG_FILE: join(folder, 'none'),
      });
      try {
        const error = await failure(open().probe());
        expect(error.message).toMatch(/NoCredentials: no credentials were found; check AWS_ACCESS_KEY_ID/);
      } finally {
        for (const name of ['AWS_EC2_METADATA_DISABLED', 'AWS_SHARED_CREDENTIALS_FILE', 'AWS_CONFIG_FILE']) {
          delete process.env[name];
        }
        Object.assign(process.env, before);
      }
    });

    it('says that the region is another one', async () => {
      const address = parseS3Address(server.address(prefix).replace('us-east-1', 'eu-west-1'));
      const error = await failure(new S3ArtifactStore(address).probe());
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
        const error = await failure(open({ port, retryBudgetMs: 600, callTimeoutMs: 300 }).probe());
        expect(error.code).toBe(code);
        expect(error.message).toMatch(words);
      } finally {
        fake.closeAllConnections();
        await new Promise((resolve) => fake.close(resolve));
      }
    });
  });

  describe('two processes', () => {
    it('let one result of a job win: equal ones are accepted, different ones refused', async () => {
      const store = open();
      const one = await store.putBytes(Buffer.from('one'));
      const two = await store.putBytes(Buffer.from('two'));
      const commit = (output: string): Promise<string> =>
        runScript(`
          import { openStore } from ${built('store')};
          const store = openStore(${JSON.stringify(server.address(prefix))});
          const result = { key: ${JSON.stringify(KEY)}, outputs: { output: ${JSON.stringify(output)} }, summary: {} };
          await store.commitJobResult(result).then(() => console.log('accepted'), (error) => console.log(error.name));`);
      const ends = await Promise.all([one, one, two].map(commit));
      const winner = (await store.getJobResult(KEY))?.outputs['output'];
      const expected = [one, one, two].map((output) => (output === winner ? 'accepted' : 'NondeterminismError'));
      expect(ends).toEqual(expected);
    });

    it('share one copy of an object, and one may come while the other leaves', async () => {
      const bytes = randomBytes(1 << 20);
      const digest = await open().putBytes(bytes);
      const first = open();
      const second = open();
      const path = await first.localPath(digest);
      // What the second answers comes from the copy: the server has nothing any more.
      await unlink(server.pathOf(`${prefix}/objects/${digest}`));
      const shared = await second.localPath(digest);
      await first.releasePaths([digest]);
      await expect(readFile(path)).rejects.toThrow(/ENOENT/);
      expect((await readFile(shared)).equals(bytes)).toBe(true);
      expect(await readdir(join(folder, 'cache', 'objects'))).toEqual([digest]);
    });
  });

  describe('damage on the server', () => {
    it('answers a good copy of its own, but never calls the job done', async () => {
      const store = open();
      const output = await store.putBytes(Buffer.from('output of a job'));
      await store.commitJobResult({ key: KEY, outputs: { output }, summary: {} });
      const path = await store.localPath(output);
      await truncate(server.pathOf(`${prefix}/objects/${output}`), 5);
      expect((await readFile(path)).toString()).toBe('output of a job');
      expect(await open().getJobResult(KEY)).toBeNull();
      expect(await readdir(server.pathOf(`${prefix}/damaged`))).toHaveLength(2);
    });

    it('downloads again what was damaged in the copies', async () => {
      const bytes = randomBytes(3000);
      const digest = await open().putBytes(bytes);
      await open().localPath(digest);
      await writeFile(join(folder, 'cache', 'objects', digest), 'something else');
      expect((await readFile(await open().localPath(digest))).equals(bytes)).toBe(true);
    });
  });

  it('does many things at once', async () => {
    const store = open();
    const contents = Array.from({ length: 60 }, (_, i) => randomBytes(1000 * i));
    const digests = await Promise.all(contents.map((bytes) => store.putBytes(bytes)));
    await Promise.all(
      digests.map(async (digest, i) => {
        await store.commitJobResult({ key: sha256Hex(String(i)), outputs: { digest }, summary: { i } });
        await store.appendRunEvents(`r-${String(i % 3)}`, [{ i }]);
        expect((await readFile(await store.localPath(digest))).equals(contents[i] ?? Buffer.alloc(0))).toBe(true);
      }),
    );
    for (const run of [0, 1, 2]) expect(await store.readRunEvents(`r-${String(run)}`)).toHaveLength(20);
    expect(await store.collectGarbage({ olderThanSeconds: -2 })).toEqual({ objects: 0, bytes: 0 });
  });

  it('lists more than one page', async () => {
    const store = open();
    await store.writeRunFile('r', 'plan.json', 'x');
    const runs = server.pathOf(`${prefix}/runs`);
    await Promise.all(
      Array.from({ length: 1100 }, async (_, i) => {
        await mkdir(join(runs, `q-${String(i)}`));
        await writeFile(join(runs, `q-${String(i)}`, 'plan.json'), '{}');
      }),
    );
    expect(await store.listRuns()).toHaveLength(1101);
  });

  async function pathOf(place: string, what: Stored): Promise<string> {
    if ('object' in what) return server.pathOf(`${place}/objects/${what.object}`);
    if ('job' in what) return server.pathOf(`${place}/jobs/${what.job}.json`);
    if ('eventsOf' in what) {
      const names = (await readdir(server.pathOf(`${place}/runs/${what.eventsOf}`))).sort();
      return server.pathOf(`${place}/runs/${what.eventsOf}/${names.at(-1) ?? ''}`);
    }
    return server.pathOf(`${place}/checkpoints/${what.checkpointOf}/${String(what.step).padStart(12, '0')}.json`);
  }

  /** Uploads in parts that the server knows of, of this test's prefix. */
  async function uploads(): Promise<string[]> {
    const { S3 } = await import('@aws-sdk/client-s3');
    const endpoint = `http://127.0.0.1:${String(server.port)}`;
    const client = new S3({ endpoint, region: 'us-east-1', forcePathStyle: true });
    const { Uploads } = await client.listMultipartUploads({ Bucket: BUCKET, Prefix: `${prefix}/` });
    client.destroy();
    return (Uploads ?? []).map(({ Key }) => Key ?? '').filter((key) => key.startsWith(`${prefix}/`));
  }

  async function untilUpload(): Promise<void> {
    for (const deadline = Date.now() + 20_000; (await uploads()).length === 0;) {
      if (Date.now() > deadline) throw new Error('no upload in parts has begun');
    }
  }
});

const mountRefusal = ((): string | null => {
  if (S3_SERVER_REFUSAL !== null) return S3_SERVER_REFUSAL;
  if (process.platform !== 'linux' || process.getuid?.() !== 0) return 'mounting needs root on Linux';
  const probe = spawnSync('unshare', ['-m', 'mount', '-t', 'tmpfs', 'tmpfs', '/mnt'], { encoding: 'utf8' });
  return probe.status === 0 ? null : `mount is refused here: ${probe.error?.message ?? probe.stderr.trim()}`;
})();

describe.skipIf(mountRefusal !== null)(
  `S3 store on a full server${mountRefusal === null ? '' : ` (skipped: ${mountRefusal})`}`,
  () => {
    it('reports it as a full disk, keeps what it has, and goes on when there is room again', async () => {
      const folder = await mkdtemp(join(tmpdir(), 'collimate-s3-full-'));
      const disk = join(folder, 'disk');
      await mkdir(disk);
      execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=4m', 'tmpfs', disk]);
      const small = await S3TestServer.start(disk);
      try {
        const store = new S3ArtifactStore(parseS3Address(small.address('p')), {
          cache: { folder: join(folder, 'cache') },
        });
        const before = await store.putBytes(Buffer.from('before'));
        const big = Buffer.alloc(6 << 20, 7);
        const error = await store.putBytes(big).catch((reason: unknown) => reason);
        expect(error).toMatchObject({
          name: 'StoreUnavailableError',
          code: 'ENOSPC',
          failureCause: 'store_unavailable',
        });
        expect((error as Error).message).toMatch(/bucket is full; free space/);
        expect((await store.readBytes(before)).toString()).toBe('before');
        execFileSync('mount', ['-o', 'remount,size=32m', disk]);
        const digest = await store.putBytes(big);
        await expect(store.localPath(digest)).resolves.toContain(digest);
      } finally {
        await small.down();
        execFileSync('umount', ['-l', disk]);
        await rm(folder, { recursive: true, force: true });
      }
    });
  },
);

/** A module of the build, for processes of their own. */
function built(name: string): string {
  return JSON.stringify(new URL(`../../dist/orchestrator/artifacts/${name}.js`, import.meta.url).href);
}

const scriptArgs = (script: string): string[] => ['--input-type=module', '-e', script];

/** Runs a module in a process of its own; answers what it printed. */
async function runScript(script: string, env: Record<string, string> = {}): Promise<string> {
  const { stdout } = await promisify(execFile)(process.execPath, scriptArgs(script), {
    env: { ...process.env, ...env },
    timeout: 25_000,
  });
  return stdout.trim();
}
