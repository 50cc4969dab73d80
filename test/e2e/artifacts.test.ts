/** `collimate artifacts` as an operator uses it: on the home's store, without any server. */
import { readdir, utimes, writeFile } from 'node:fs/promises';
import { join } from 'node:path';

import { afterAll, expect, it } from 'vitest';

import { FileArtifactStore } from '../../orchestrator/artifacts/store.js';
import { cli, temporaryHome } from '../support/cli.js';

const home = temporaryHome();
const store = new FileArtifactStore(join(home.path, 'store'));
afterAll(() => home.remove());
const artifacts = (...args: string[]) => cli(['artifacts', ...args, '--home', home.path]);

it('says what is there, removes what nobody needs and is old enough, and finds what is damaged', async () => {
  const output = await store.putBytes(Buffer.from('output of a job'));
  await store.commitJobResult({ key: 'a'.repeat(64), outputs: { output }, summary: {} });
  await store.writeRunFile('demo-1', 'result.json', JSON.stringify({ output }));
  const stray = await store.putBytes(Buffer.alloc(3_000));

  const { stdout } = await artifacts('du');
  expect(stdout).toMatch(/^all +2 +2\.9 KiB$/m);
  expect(stdout).toMatch(/^referred to by nothing +1 +2\.9 KiB$/m);
  expect(stdout).toMatch(/^run demo-1 +1 +15 B$/m);
  expect(await artifacts('verify')).toMatchObject({ code: 0, stdout: '2 objects, 2.9 KiB: all whole\n' });

  // Young, so it may be the output of a job that is about to commit.
  expect(await artifacts('gc', '--older-than', '1')).toMatchObject({ code: 0, stdout: 'removed 0 objects, 0 B\n' });
  const old = new Date(Date.now() - 7_200_000);
  for (const digest of [stray, output]) await utimes(join(home.path, 'store', 'objects', digest), old, old);
  const dry = await artifacts('gc', '--older-than', '1', '--dry-run', '-o', 'json');
  expect(JSON.parse(dry.stdout)).toEqual({ objects: 1, bytes: 3_000, dryRun: true });
  expect(await readdir(join(home.path, 'store', 'objects'))).toHaveLength(2);
  expect((await artifacts('gc', '--older-than', '1')).stdout).toBe('removed 1 objects, 2.9 KiB\n');
  expect(await readdir(join(home.path, 'store', 'objects'))).toEqual([output]);

  await writeFile(join(home.path, 'store', 'objects', output), 'output of a jab');
  const damaged = await artifacts('verify');
  expect(damaged).toMatchObject({ code: 1, stderr: expect.stringContaining('the store is not whole') as string });
  expect(damaged.stdout).toContain(`damaged  ${output}`);
  const missing = await artifacts('verify', '-o', 'json');
  expect(JSON.parse(missing.stdout)).toMatchObject({
    missing: [{ digest: output, namedBy: `job ${'a'.repeat(64)}` }],
  });
});

it('refuses limits that would take what running jobs have written', async () => {
  const { code, stderr } = await artifacts('gc', '--older-than', '0');
  expect(code).toBe(2);
  expect(stderr).toContain('--older-than: expected hours from 1 on, got "0"');
});
