import { spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { mkdir, open, readFile, readdir, rm, truncate, unlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';

import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';

import { artifactStoreContract, type Stored } from './artifact-store-contract.js';
import { sha256Hex } from './job-key.js';
import { parseS3Address } from './s3-address.js';
import { S3ArtifactStore } from './s3-store.js';
import { S3_SERVER_REFUSAL } from './s3-test-server.js';
import { built, PART_BYTES, runScript, S3World, scriptArgs } from './s3-test-world.js';

const KEY = sha256Hex('a job');
const skipped = S3_SERVER_REFUSAL === null ? '' : ` (skipped: ${S3_SERVER_REFUSAL})`;

describe.skipIf(S3_SERVER_REFUSAL !== null)(`S3 store${skipped}`, () => {
  let world: S3World;
  beforeAll(async () => {
    world = await S3World.start();
  });
  afterAll(() => world.close());
  beforeEach(() => world.next());

  artifactStoreContract('S3', (root) => {
    const prefix = world.newPrefix();
    const cache = join(root, 'cache');
    return Promise.resolve({
      open: (onWarning) =>
        new S3ArtifactStore(parseS3Address(world.server.address(prefix)), { onWarning, cache: { folder: cache } }),
      async damage(what, how) {
        const path = await pathOf(prefix, what);
        const bytes = how(await readFile(path));
        await (bytes === null ? unlink(path) : writeFile(path, bytes));
      },
      dropCopies: () => rm(cache, { recursive: true, force: true }),
      leftOfProbe: () => readdir(world.server.pathOf(`${prefix}/probe`)).catch(() => []),
      close: () => Promise.resolve(),
    });
  });

  describe('objects in parts', () => {
    it.each([0, 1, PART_BYTES / 2])('keeps a file of two parts and %i bytes', async (more) => {
      const bytes = randomBytes(2 * PART_BYTES + more);
      const digest = await world.open().putFile(await world.fileOf(bytes));
      expect(digest).toBe(sha256Hex(bytes));
      expect((await readFile(world.pathOf(`objects/${digest}`))).equals(bytes)).toBe(true);
      expect((await world.open().readBytes(digest)).equals(bytes)).toBe(true);
    });

    it('holds no more than the parts in flight of a large file, both ways', async () => {
      // A process of its own: its peak is that of this transfer.
      const path = join(world.folder, 'large');
      const block = randomBytes(1 << 20);
      for (let i = 0; i < 256; i += 1) await writeFile(path, block, { flag: 'a' });
      const script = `
        import { openStore } from ${built('store')};
        const store = openStore(${JSON.stringify(world.server.address(world.prefix))});
        await store.probe();
        const before = process.resourceUsage().maxRSS;
        const digest = await store.putFile(${JSON.stringify(path)});
        await store.localPath(digest);
        console.log(Math.round((process.resourceUsage().maxRSS - before) / 1024));`;
      const grown = Number(await runScript(script, { COLLIMATE_STORE_CACHE: join(world.folder, 'cache') }));
      expect(grown).toBeGreaterThan(0);
      expect(grown).toBeLessThan(200);
    }, 120_000);

    it('refuses a file that changes while it is stored, and leaves no upload behind', async () => {
      const bytes = randomBytes(24 * PART_BYTES);
      const path = await world.fileOf(bytes);
      const put = world.open().putFile(path);
      put.catch(() => undefined);
      await world.untilUpload();
      // Its last byte: some parts are on their way by now.
      const file = await open(path, 'r+');
      await file.write(Buffer.from([(bytes.at(-1) ?? 0) ^ 1]), 0, 1, bytes.length - 1);
      await file.close();
      const outcome = await put.catch((error: unknown) => error);
      // A fast machine may have read it to its end before. Else it is refused; never is it stored under the name of what it was.
      if (typeof outcome === 'string') {
        expect(sha256Hex(await readFile(world.pathOf(`objects/${outcome}`)))).toBe(outcome);
      } else {
        expect((outcome as Error).message).toMatch(/changed while it was being stored/);
        await expect(readdir(world.pathOf('objects'))).rejects.toThrow(/ENOENT/);
      }
      expect(await world.uploads()).toEqual([]);
    });

    it('leaves what a killed process began to collectGarbage', async () => {
      const path = await world.fileOf(randomBytes(8 * PART_BYTES));
      const script = `
        import { parseS3Address } from ${built('s3-address')};
        import { S3ArtifactStore } from ${built('s3-store')};
        const address = parseS3Address(${JSON.stringify(world.server.address(world.prefix))});
        const store = new S3ArtifactStore(address, { partBytes: ${String(PART_BYTES)} });
        for (;;) await store.putFile(${JSON.stringify(path)});`;
      const child = spawn(process.execPath, scriptArgs(script), { stdio: 'ignore', cwd: process.cwd() });
      await world.untilUpload();
      child.kill('SIGKILL');
      await new Promise((resolve) => child.once('exit', resolve));
      expect(await world.uploads()).toHaveLength(1);
      const whole = await readdir(world.pathOf(`objects`)).catch(() => []);
      expect(await world.open().collectGarbage({ olderThanSeconds: 3600 })).toEqual({ objects: 0, bytes: 0 });
      const removed = await world.open().collectGarbage({ olderThanSeconds: -2 });
      expect(removed.objects).toBe(whole.length + 1);
      expect(await world.uploads()).toEqual([]);
    });

    it('moves a damaged object aside in parts where the server copies no more at once', async () => {
      const bytes = randomBytes(PART_BYTES + 1000);
      const digest = await world.open().putBytes(bytes);
      const damaged = Buffer.concat([bytes, Buffer.from('x')]);
      await writeFile(world.pathOf(`objects/${digest}`), damaged);
      const store = world.open({ copyBytesMax: PART_BYTES, copyPartBytes: PART_BYTES });
      await expect(store.localPath(digest)).rejects.toThrow(/moved to s3:\/\/.*damaged/);
      const [name = ''] = await readdir(world.pathOf(`damaged`));
      expect((await readFile(world.pathOf(`damaged/${name}`))).equals(damaged)).toBe(true);
      expect(await store.has(digest)).toBe(false);
    });
  });

  describe('two processes', () => {
    it('let one result of a job win: equal ones are accepted, different ones refused', async () => {
      const store = world.open();
      const one = await store.putBytes(Buffer.from('one'));
      const two = await store.putBytes(Buffer.from('two'));
      const commit = (output: string): Promise<string> =>
        runScript(`
          import { openStore } from ${built('store')};
          const store = openStore(${JSON.stringify(world.server.address(world.prefix))});
          const result = { key: ${JSON.stringify(KEY)}, outputs: { output: ${JSON.stringify(output)} }, summary: {} };
          await store.commitJobResult(result).then(() => console.log('accepted'), (error) => console.log(error.name));`);
      const ends = await Promise.all([one, one, two].map(commit));
      const winner = (await store.getJobResult(KEY))?.outputs['output'];
      const expected = [one, one, two].map((output) => (output === winner ? 'accepted' : 'NondeterminismError'));
      expect(ends).toEqual(expected);
    });

    it('share one copy of an object, and one may come while the other leaves', async () => {
      const bytes = randomBytes(1 << 20);
      const digest = await world.open().putBytes(bytes);
      const first = world.open();
      const second = world.open();
      const path = await first.localPath(digest);
      // What the second answers comes from the copy: the server has nothing any more.
      await unlink(world.pathOf(`objects/${digest}`));
      const shared = await second.localPath(digest);
      await first.releasePaths([digest]);
      await expect(readFile(path)).rejects.toThrow(/ENOENT/);
      expect((await readFile(shared)).equals(bytes)).toBe(true);
      expect(await readdir(join(world.folder, 'cache', 'objects'))).toEqual([digest]);
    });
  });

  describe('damage on the server', () => {
    it('answers a good copy of its own, but never calls the job done', async () => {
      const store = world.open();
      const output = await store.putBytes(Buffer.from('output of a job'));
      await store.commitJobResult({ key: KEY, outputs: { output }, summary: {} });
      const path = await store.localPath(output);
      await truncate(world.pathOf(`objects/${output}`), 5);
      expect((await readFile(path)).toString()).toBe('output of a job');
      expect(await world.open().getJobResult(KEY)).toBeNull();
      expect(await readdir(world.pathOf(`damaged`))).toHaveLength(2);
    });

    it('downloads again what was damaged in the copies', async () => {
      const bytes = randomBytes(3000);
      const digest = await world.open().putBytes(bytes);
      await world.open().localPath(digest);
      await writeFile(join(world.folder, 'cache', 'objects', digest), 'something else');
      expect((await readFile(await world.open().localPath(digest))).equals(bytes)).toBe(true);
    });
  });

  it('does many things at once', async () => {
    const store = world.open();
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
    const store = world.open();
    await store.writeRunFile('r', 'plan.json', 'x');
    const runs = world.pathOf(`runs`);
    await Promise.all(
      Array.from({ length: 1100 }, async (_, i) => {
        await mkdir(join(runs, `q-${String(i)}`));
        await writeFile(join(runs, `q-${String(i)}`, 'plan.json'), '{}');
      }),
    );
    expect(await store.listRuns()).toHaveLength(1101);
  });

  async function pathOf(place: string, what: Stored): Promise<string> {
    if ('object' in what) return world.server.pathOf(`${place}/objects/${what.object}`);
    if ('job' in what) return world.server.pathOf(`${place}/jobs/${what.job}.json`);
    if ('eventsOf' in what) {
      const names = (await readdir(world.server.pathOf(`${place}/runs/${what.eventsOf}`))).sort();
      return world.server.pathOf(`${place}/runs/${what.eventsOf}/${names.at(-1) ?? ''}`);
    }
    return world.server.pathOf(`${place}/checkpoints/${what.checkpointOf}/${String(what.step).padStart(12, '0')}.json`);
  }
});
