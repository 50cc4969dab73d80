/** The artifact store on S3 under a whole run: the same bytes as on a folder, also when a worker and the server die on the way. */
import { mkdtemp, readdir, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { afterAll, beforeAll, describe, expect, it } from 'vitest';

import { S3_SERVER_REFUSAL, S3TestServer } from '../../orchestrator/artifacts/s3-test-server.js';
import { loadService, makeClient, unary } from '../../orchestrator/fleet/channel.js';
import type { RecommendServiceClient } from '../../proto/generated/collimate/v1/RecommendService.js';
import type { RunResult } from '../../workflows/contract.js';
import { cli } from '../support/cli.js';
import { Cluster, stepOf } from '../support/cluster.js';

const WORKERS = [{ id: 'w-0' }, { id: 'w-1' }];
const skipped = S3_SERVER_REFUSAL === null ? '' : ` (skipped: ${S3_SERVER_REFUSAL})`;

describe.skipIf(S3_SERVER_REFUSAL !== null)(`a run on S3${skipped}`, () => {
  let folder: string;
  let server: S3TestServer;
  let onFolder: RunResult;
  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'collimate-s3-run-'));
    // The cluster's processes inherit both.
    process.env['COLLIMATE_STORE_CACHE'] = join(folder, 'cache');
    server = await S3TestServer.start(join(folder, 'server'));
    const cluster = await Cluster.start(WORKERS);
    try {
      onFolder = await cluster.run(await cluster.plan());
    } finally {
      await cluster.close();
    }
  });
  afterAll(async () => {
    delete process.env['COLLIMATE_STORE_CACHE'];
    await server.down();
    await rm(folder, { recursive: true, force: true });
  });

  it('ends with the digest of the same run on a folder, serves its lists and keeps its events', async () => {
    const cluster = await Cluster.start(WORKERS, { storeUrl: server.address('plain') });
    try {
      const result = await cluster.run(await cluster.plan());
      expect(result.resultDigest).toBe(onFolder.resultDigest);
      const published = await cluster.store.readBytes(result.jobs['assemble']?.outputs['published'] ?? '');
      const { user, items } = JSON.parse(published.toString().split('\n')[0] ?? '') as {
        user: string;
        items: string[];
      };
      const client = makeClient<RecommendServiceClient>(loadService('RecommendService'), await cluster.startServer());
      try {
        const answer = await unary(client, 'recommend', { userId: user, k: 5 }, { deadlineMs: 5_000 });
        expect(answer.items.map((item) => item.itemId)).toEqual(items.slice(0, 5));
      } finally {
        client.close();
      }
      const env = { COLLIMATE_STORE: server.address('plain') };
      const logs = await cli(['logs', result.runId, '--home', join(folder, 'home')], { env });
      expect(logs.stdout, logs.stderr).toMatch(/run done/);
      expect((await cli(['logs', 'no-such-run', '--home', join(folder, 'home')], { env })).code).toBe(3);

      // Inputs that the jobs are through with may make room for others.
      const users = await readdir(join(folder, 'cache', 'in-use'));
      const ofWorkers = users.filter((name) =>
        [...cluster.workers.values()].some((child) => name.includes(`~${String(child.process.pid)}~`)),
      );
      expect(ofWorkers.length).toBeGreaterThan(0);
      for (const name of ofWorkers) expect(await readdir(join(folder, 'cache', 'in-use', name))).toEqual([]);
    } finally {
      await cluster.close();
    }
  });

  it('ends with the same digest when a worker is killed, and when the server is away for seconds', async () => {
    const cluster = await Cluster.start(WORKERS, { storeUrl: server.address('faults') });
    try {
      const plan = await cluster.plan();
      const tuning = cluster.firstEvent(plan.runId, stepOf('tune', 4));
      await cluster.submit(plan);
      await tuning;
      await cluster.workers.get('w-1')?.kill();
      await server.down();
      await cluster.startWorker({ id: 'w-2' });
      await new Promise((resolve) => setTimeout(resolve, 3_000));
      await server.up();
      const result = await cluster.result(plan.runId);
      expect(result.resultDigest).toBe(onFolder.resultDigest);
      expect((await cluster.status(plan.runId)).incidents.map(({ cause }) => cause)).toContain('worker_lost');
    } finally {
      await cluster.close();
    }
  });

  it('is known to a home that was started with it, and says at once when it cannot be used', async () => {
    const home = join(folder, 'home-2');
    const missing = server.address('x', { bucket: 'no-such-bucket' });
    const refused = await cli(['up', '--workers', '0', '--store', missing, '--home', home]);
    expect(refused.code).toBe(2);
    expect(refused.stderr).toMatch(/NoSuchBucket: the bucket does not exist; make it/);
    await expect(readFile(join(home, 'store-address'))).rejects.toThrow(/ENOENT/);
    const up = await cli(['up', '--workers', '0', '--store', server.address('home'), '--home', home]);
    try {
      expect(up.code, up.stderr).toBe(0);
      expect(await readFile(join(home, 'store-address'), 'utf8')).toBe(`${server.address('home')}\n`);
      const doctor = await cli(['doctor', '--home', home]);
      expect(doctor.stdout).toContain(`${server.address('home')}: writes and reads`);
      const other = await cli(['up', '--store', server.address('other'), '--home', home]);
      expect(other.stderr).toMatch(/is up with the store s3:.*"collimate down" first/);
    } finally {
      await cli(['down', '--home', home]);
    }
  });
});
