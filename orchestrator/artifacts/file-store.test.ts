import { execFileSync, spawnSync } from 'node:child_process';
import { chmod, mkdir, mkdtemp, readdir, readFile, rm, stat, unlink, utimes, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';

import { afterEach, beforeEach, describe, expect, it } from 'vitest';

import { artifactStoreContract, type Stored } from './artifact-store-contract.js';
import { StoreUnavailableError } from './errors.js';
import { sha256Hex } from './job-key.js';
import { FileArtifactStore, openStore, StoreAddressError } from './store.js';

function pathIn(root: string, what: Stored): string {
  if ('object' in what) return join(root, 'objects', what.object);
  if ('job' in what) return join(root, 'jobs', `${what.job}.json`);
  if ('eventsOf' in what) return join(root, 'runs', what.eventsOf, 'events.ndjson');
  return join(root, 'checkpoints', what.checkpointOf, `${String(what.step).padStart(12, '0')}.json`);
}

artifactStoreContract('folder', (root) =>
  Promise.resolve({
    open: (onWarning) => new FileArtifactStore(root, { onWarning }),
    async damage(what, how) {
      const path = pathIn(root, what);
      const bytes = how(await readFile(path));
      await (bytes === null ? unlink(path) : writeFile(path, bytes));
    },
    dropCopies: () => Promise.resolve(),
    leftOfProbe: () => readdir(join(root, 'probe')),
    close: () => Promise.resolve(),
  }),
);

let folder: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'collimate-file-store-'));
});
afterEach(async () => {
  await rm(folder, { recursive: true, force: true });
});

async function strays(root: string): Promise<string[]> {
  const names = await readdir(root, { recursive: true });
  return names.filter((name) => name.includes('.tmp-'));
}

describe('openStore', () => {
  it('takes paths and file addresses', async () => {
    const root = join(folder, 'a b%c');
    const digest = await openStore(root).putBytes(Buffer.from('x'));
    expect(await openStore(pathToFileURL(root).href).has(digest)).toBe(true);
    expect(openStore(root).url).toBe(pathToFileURL(root).href);
  });

  it.each([
    ['http://host/store', /expected file:\/\/\/folder, a path or s3:\/\/bucket\/prefix, got "http:\/\/"$/],
    ['file://host/folder', /expected file:\/\/\/absolute\/folder/],
    ['', /got an empty string/],
  ])('refuses %s', (url, message) => {
    expect(() => openStore(url)).toThrow(StoreAddressError);
    expect(() => openStore(url)).toThrow(message);
  });
});

describe('folder store', () => {
  it('hashes an unchanged object once per client, and again when only its time was set back', async () => {
    const root = join(folder, 'store');
    const store = new FileArtifactStore(root);
    const digest = await store.putBytes(Buffer.from('content'));
    const path = join(root, 'objects', digest);
    const { atime, mtime } = await stat(path);
    await writeFile(path, 'CONTENT');
    await utimes(path, atime, mtime);
    await expect(store.localPath(digest)).rejects.toThrow(/found bytes with the SHA-256 .*moved to .*damaged/);
    expect(await readdir(join(root, 'damaged'))).toHaveLength(1);
  });

  it('keeps what another process wrote when that process is killed in the middle', async () => {
    const root = join(folder, 'store');
    // A child that dies between the temporary file and the rename leaves a stray file and no object.
    const script = `
      const { mkdirSync, writeFileSync } = require('node:fs');
      mkdirSync(${JSON.stringify(join(root, 'objects'))}, { recursive: true });
      writeFileSync(${JSON.stringify(join(root, 'objects', '.tmp-1-dead'))}, 'half');
      process.kill(process.pid, 'SIGKILL');`;
    expect(spawnSync(process.execPath, ['-e', script]).signal).toBe('SIGKILL');
    const store = new FileArtifactStore(root);
    const digest = await store.putBytes(Buffer.from('half and half'));
    expect((await store.readBytes(digest)).toString()).toBe('half and half');
    expect(await store.collectGarbage({ olderThanSeconds: -1 })).toMatchObject({ objects: 2 });
    expect(await strays(root)).toEqual([]);
  });

  it('leaves no temporary file after successes', async () => {
    const root = join(folder, 'store');
    const store = new FileArtifactStore(root);
    const output = await store.putBytes(Buffer.from('x'));
    const result = { key: sha256Hex('k'), outputs: { output }, summary: {} };
    await store.commitJobResult(result);
    await store.commitJobResult(result);
    await store.writeRunFile('r', 'f', 'x');
    expect(await strays(root)).toEqual([]);
  });

  it('says what to do when a parent of the store is a file', async () => {
    await writeFile(join(folder, 'file'), '');
    await expect(new FileArtifactStore(join(folder, 'file', 'store')).putBytes(Buffer.from('x'))).rejects.toThrow(
      /ENOTDIR/,
    );
  });

  it('fails a probe of a store whose parent is a file', async () => {
    await writeFile(join(folder, 'file'), '');
    const probe = new FileArtifactStore(join(folder, 'file', 'store')).probe();
    await expect(probe).rejects.toMatchObject({ name: 'StoreUnavailableError', code: 'ENOTDIR' });
  });

  it.skipIf(process.getuid?.() === 0)('reports a folder without write permission', async () => {
    await mkdir(join(folder, 'store'));
    await chmod(join(folder, 'store'), 0o500);
    const put = new FileArtifactStore(join(folder, 'store')).putBytes(Buffer.from('x'));
    await expect(put).rejects.toMatchObject({ name: 'StoreUnavailableError', code: 'EACCES' });
  });
});

/** Mounts a small tmpfs; the reason why not otherwise (only root may, and not in every container). */
const mountRefusal = ((): string | null => {
  if (process.platform !== 'linux' || process.getuid?.() !== 0) return 'mounting needs root on Linux';
  const probe = spawnSync('unshare', ['-m', 'mount', '-t', 'tmpfs', 'tmpfs', '/mnt'], { encoding: 'utf8' });
  return probe.status === 0 ? null : `mount is refused here: ${probe.error?.message ?? probe.stderr.trim()}`;
})();

describe.skipIf(mountRefusal !== null)(
  `folder store on a small disk${mountRefusal === null ? '' : ` (skipped: ${mountRefusal})`}`,
  () => {
    let disk: string;
    beforeEach(async () => {
      disk = join(folder, 'disk');
      await mkdir(disk);
      execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=1m', 'tmpfs', disk]);
    });
    afterEach(() => {
      execFileSync('umount', ['-l', disk]);
    });

    it('reports a full disk, leaves nothing behind, and goes on when there is room again', async () => {
      const store = new FileArtifactStore(disk);
      const small = await store.putBytes(Buffer.from('small'));
      const big = Buffer.alloc(2_000_000, 7);
      const error = await store.putBytes(big).catch((reason: unknown) => reason);
      expect(error).toBeInstanceOf(StoreUnavailableError);
      expect(error).toMatchObject({ code: 'ENOSPC', failureCause: 'store_unavailable' });
      expect((error as Error).message).toMatch(/objects: ENOSPC: the disk is full; free space/);
      expect(await strays(disk)).toEqual([]);
      execFileSync('mount', ['-o', 'remount,size=8m', disk]);
      const digest = await store.putBytes(big);
      expect((await store.readBytes(digest)).equals(big)).toBe(true);
      expect((await store.readBytes(small)).toString()).toBe('small');
    });

    it('fails a probe where a mebibyte does not fit, and passes it when there is room again', async () => {
      const store = new FileArtifactStore(disk);
      await store.putBytes(Buffer.alloc(100_000, 7));
      await expect(store.probe()).rejects.toMatchObject({ name: 'StoreUnavailableError', code: 'ENOSPC' });
      expect(await strays(disk)).toEqual([]);
      execFileSync('mount', ['-o', 'remount,size=8m', disk]);
      await store.probe();
      execFileSync('mount', ['-o', 'remount,ro', disk]);
      await expect(store.probe()).rejects.toMatchObject({ name: 'StoreUnavailableError', code: 'EROFS' });
    });

    it('reports a full disk in the middle of a checkpoint and keeps the one before', async () => {
      const store = new FileArtifactStore(disk);
      const key = sha256Hex('job');
      const dir = join(folder, 'checkpoint');
      await mkdir(dir);
      await writeFile(join(dir, 'state.json'), '{"step":1}');
      const good = await store.putCheckpoint(key, 1, dir);
      await writeFile(join(dir, 'weights'), Buffer.alloc(2_000_000, 1));
      await expect(store.putCheckpoint(key, 2, dir)).rejects.toThrow(StoreUnavailableError);
      expect(await store.latestCheckpoint(key)).toEqual(good);
      expect(await strays(disk)).toEqual([]);
    });

    it('reads from a read-only disk and reports what it cannot write', async () => {
      const digest = await new FileArtifactStore(disk).putBytes(Buffer.from('before'));
      await new FileArtifactStore(disk).writeRunFile('r', 'f', 'x');
      execFileSync('mount', ['-o', 'remount,ro', disk]);
      const store = new FileArtifactStore(disk);
      expect((await store.readBytes(digest)).toString()).toBe('before');
      await expect(store.putBytes(Buffer.from('after'))).rejects.toMatchObject({ code: 'EROFS' });
      await expect(store.writeRunFile('r', 'f', 'y')).rejects.toThrow(StoreUnavailableError);
      await expect(store.appendRunEvents('r', [{ n: 1 }])).rejects.toThrow(/EROFS: the file system is read-only/);
      expect((await store.readRunFile('r', 'f'))?.toString()).toBe('x');
    });
  },
);
