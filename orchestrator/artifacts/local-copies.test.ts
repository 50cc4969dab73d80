import { spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { mkdir, mkdtemp, readFile, readdir, rm, utimes, writeFile } from 'node:fs/promises';
import { hostname, tmpdir } from 'node:os';
import { join } from 'node:path';

import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';

import { StoreAddressError } from './errors.js';
import { sha256Hex } from './job-key.js';
import { LocalCopies } from './local-copies.js';

const BYTES = 1000;
let folder: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'collimate-copies-'));
});
afterEach(async () => {
  vi.unstubAllEnvs();
  await rm(folder, { recursive: true, force: true });
});

const copies = (kept = 3): LocalCopies => new LocalCopies({ folder, bytesMax: kept * BYTES });
const kept = async (): Promise<string[]> => (await readdir(join(folder, 'objects'))).sort();

async function* once(bytes: Uint8Array): AsyncGenerator<Uint8Array> {
  yield await Promise.resolve(bytes);
}

/** Adds random bytes as if they came from a server; last used `ageSeconds` ago. */
async function fill(local: LocalCopies, ageSeconds: number): Promise<string> {
  const bytes = randomBytes(BYTES);
  const digest = sha256Hex(bytes);
  expect(await local.add(digest, once(bytes))).toBe(digest);
  const used = new Date(Date.now() - ageSeconds * 1000);
  await utimes(join(folder, 'objects', digest), used, used);
  return digest;
}

describe('local copies', () => {
  it('keeps nothing under the name of other bytes', async () => {
    const local = copies();
    const digest = sha256Hex('wanted');
    expect(await local.add(digest, once(Buffer.from('came')))).toBe(sha256Hex('came'));
    expect(await kept()).toEqual([]);
    expect(await local.pin(digest)).toBeNull();
  });

  it('lets the least recently used go first', async () => {
    const local = copies();
    const [oldest, middle, newest] = [await fill(local, 30), await fill(local, 20), await fill(local, 10)];
    // Used and given back: now the newest of all.
    await local.pin(oldest);
    await local.release([oldest]);
    const added = await fill(local, 0);
    await local.makeRoom(added);
    expect(await kept()).toEqual([oldest, newest, added].sort());
    expect(await local.pin(middle)).toBeNull();
  });

  it('never lets go what is in use, of this or of another process, even above the limit', async () => {
    const [local, other] = [copies(), copies()];
    const [mine, theirs] = [await fill(local, 40), await fill(local, 30)];
    const path = await local.pin(mine);
    await other.pin(theirs);
    // Long ago, by the looks of it: only being used keeps them.
    const longAgo = new Date(Date.now() - 3_600_000);
    for (const digest of [mine, theirs]) await utimes(join(folder, 'objects', digest), longAgo, longAgo);
    for (let i = 0; i < 4; i += 1) await local.makeRoom(await fill(local, 20 - i));
    expect(await kept()).toEqual(expect.arrayContaining([mine, theirs]));
    expect(sha256Hex(await readFile(path ?? ''))).toBe(mine);
    await local.release([mine]);
    await other.release([theirs]);
    await local.makeRoom(await fill(local, 0));
    expect(await kept()).toHaveLength(3);
  });

  it('keeps the bytes for a user who came while the shared name went', async () => {
    const local = copies(0);
    const digest = await fill(local, 10);
    const path = await local.pin(digest);
    await rm(join(folder, 'objects', digest));
    expect(sha256Hex(await readFile(path ?? ''))).toBe(digest);
    // A second use in the same process needs no download either.
    expect(await local.pin(digest)).toBe(path);
  });

  it('takes the links of dead processes away, not those of living ones', async () => {
    const local = copies(1);
    const child = spawn(process.execPath, ['-e', '']);
    const pid = child.pid ?? 0;
    await new Promise((resolve) => child.once('exit', resolve));
    const users = join(folder, 'in-use');
    const [dead, living] = [`${hostname()}~${String(pid)}~00`, `${hostname()}~${String(process.pid)}~00`];
    const [elsewhere, forgotten] = ['other-host~1~00', 'other-host~1~01'];
    for (const user of [dead, living, elsewhere, forgotten]) await mkdir(join(users, user), { recursive: true });
    const longAgo = new Date(Date.now() - 48 * 3_600_000);
    await utimes(join(users, forgotten), longAgo, longAgo);
    await local.makeRoom(await fill(local, 0));
    expect((await readdir(users)).sort()).toEqual([living, elsewhere].sort());
  });

  it('does not trust a copy that was changed, also one that it has handed out before', async () => {
    const local = copies();
    const digest = await fill(local, 0);
    const path = (await local.pin(digest)) ?? '';
    await writeFile(path, 'changed');
    expect(await local.pin(digest)).toBeNull();
    expect(await kept()).toEqual([]);
  });

  it('sweeps what a killed download left, once it is a day old', async () => {
    const local = copies();
    await mkdir(join(folder, 'objects'), { recursive: true });
    for (const name of ['.tmp-1-old', '.tmp-1-new']) await writeFile(join(folder, 'objects', name), 'half');
    const longAgo = new Date(Date.now() - 48 * 3_600_000);
    await utimes(join(folder, 'objects', '.tmp-1-old'), longAgo, longAgo);
    const digest = await fill(local, 0);
    await local.makeRoom(digest);
    expect(await kept()).toEqual(['.tmp-1-new', digest].sort());
  });

  it('refuses a limit that is no number', () => {
    vi.stubEnv('COLLIMATE_STORE_CACHE_GB', 'much');
    expect(() => new LocalCopies({ folder })).toThrow(StoreAddressError);
  });
});
