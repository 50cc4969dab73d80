/** Trouble from outside: one clear error, the right class, and earlier results stay usable. */
import { execFileSync } from 'node:child_process';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { afterAll, beforeAll, describe, expect, it } from 'vitest';

import { Cluster } from '../support/cluster.js';

describe('bad input', () => {
  let cluster: Cluster;
  let folder = '';
  beforeAll(async () => {
    cluster = await Cluster.start([{ id: 'w-0' }]);
    folder = await mkdtemp(join(tmpdir(), 'collimate-logs-'));
  });
  afterAll(async () => {
    await cluster.close();
    await rm(folder, { recursive: true, force: true });
  });

  /** Runs the tiny run on a log of the given lines and answers the failure that status shows. */
  async function failureOf(lines: string[]): Promise<string | null> {
    const interactions = join(folder, 'interactions.ndjson');
    const items = join(folder, 'items.ndjson');
    await writeFile(interactions, `${lines.join('\n')}\n`);
    await writeFile(items, `${JSON.stringify({ item: 'i1', title: 'One' })}\n`);
    const plan = await cluster.plan();
    plan.recipes.simulate = null;
    plan.inputs = {
      interactions: await cluster.store.putFile(interactions),
      items: await cluster.store.putFile(items),
    };
    await expect(cluster.run(plan)).rejects.toThrow();
    const status = await cluster.status(plan.runId);
    expect(status.state).toBe('failed');
    // Bad input is told once, never retried.
    expect(status.incidents.length).toBeLessThanOrEqual(1);
    return status.failure;
  }

  it('names the first malformed line of a log that is mostly malformed', async () => {
    const lines = Array.from({ length: 40 }, (_, index) => (index === 2 ? '{"user": "u1", "it' : 'not json'));
    expect(await failureOf(lines)).toMatch(/line 1\b/);
  });

  it('refuses an empty log', async () => {
    expect(await failureOf([''])).toMatch(/expected/);
  });

  it('fails with no_workers when nobody of the pinned class joins, and says what to do', async () => {
    const plan = await cluster.plan(['fleet.waitSeconds=2']);
    plan.numericsClass = 'cpu-none-such';
    await expect(cluster.run(plan)).rejects.toThrow();
    expect((await cluster.status(plan.runId)).failure).toMatch(/cpu-none-such.*collimate worker/);
  });

  it('still runs good input afterwards', async () => {
    const result = await cluster.run(await cluster.plan());
    expect(result.resultDigest).toMatch(/^[0-9a-f]{64}$/);
  });
});

const mountable = process.getuid?.() === 0;

describe.skipIf(!mountable)('full disk (needs root for a small tmpfs)', () => {
  it('is waited for, with the path and the remedy in the journal, and the run goes on once there is room', async () => {
    const cluster = await Cluster.start([{ id: 'w-0' }]);
    const objects = join(cluster.folder, 'store');
    try {
      execFileSync('mkdir', ['-p', objects]);
      execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=256k', 'tmpfs', objects]);
    } catch (error) {
      await cluster.close();
      throw error;
    }
    try {
      const plan = await cluster.plan();
      const noticed = cluster.firstEvent(plan.runId, ({ note }) => /^incident .*store_unavailable/.test(note ?? ''));
      await cluster.submit(plan);
      expect((await noticed).note).toMatch(/ENOSPC.*free space|disk is full/);
      execFileSync('mount', ['-o', 'remount,size=512m', objects]);
      const result = await cluster.result(plan.runId);
      expect(result.resultDigest).toMatch(/^[0-9a-f]{64}$/);
      const { incidents } = await cluster.status(plan.runId);
      expect(new Set(incidents.map(({ cause }) => cause))).toEqual(new Set(['store_unavailable']));
    } finally {
      await cluster.workers.get('w-0')?.kill();
      await cluster.controller.kill();
      execFileSync('umount', ['-l', objects]);
      await cluster.close();
    }
  });
});
