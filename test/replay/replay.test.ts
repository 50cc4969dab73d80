/** Histories of earlier real runs replay against today's workflows; a workflow that was broken on purpose does not. */
import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import proto from '@temporalio/proto';
import { DefaultLogger, Runtime, Worker } from '@temporalio/worker';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';

import { ROOT } from '../support/cluster.js';

const HISTORIES = join(ROOT, 'test/replay/histories');
const BUNDLE = join(ROOT, 'dist/workflow-bundle.js');

async function replay(codePath: string, file: string): Promise<void> {
  const history = proto.temporal.api.history.v1.History.decode(await readFile(join(HISTORIES, file)));
  await Worker.runReplayHistory({ workflowBundle: { codePath } }, history);
}

describe('recorded histories', async () => {
  const files = (await readdir(HISTORIES)).filter((name) => name.endsWith('.binpb'));
  let folder = '';
  beforeAll(async () => {
    Runtime.install({ logger: new DefaultLogger('ERROR', () => undefined) });
    folder = await mkdtemp(join(tmpdir(), 'collimate-replay-'));
  });
  afterAll(async () => {
    await rm(folder, { recursive: true, force: true });
  });

  it('are there, the run and its stages', () => {
    expect(files.length).toBeGreaterThanOrEqual(7);
  });

  it.each(files)('%s replays', async (file) => {
    await replay(BUNDLE, file);
  });

  it('does not replay with a workflow that looks jobs up twice', async () => {
    const code = await readFile(BUNDLE, 'utf8');
    const broken = code.replace(
      // The bundler puts the module's name before `quick`.
      /await ([\w$.]*quick)\.lookUpJob\(spec\)/,
      '(await $1.lookUpJob(spec), await $1.lookUpJob(spec))',
    );
    expect(broken).not.toBe(code);
    const codePath = join(folder, 'broken.js');
    await writeFile(codePath, broken);
    await expect(replay(codePath, 'recorded-align_tasks.binpb')).rejects.toThrow(/[Nn]ondeterminism/);
  });
});
