/**
 * Machines in miniature: controller and Temporal server on one, a worker on each of two others, every one in a network
 * namespace with an address of its own and, for the workers, a mount namespace in which no other's scratch can be seen. They share
 * no folder: artifacts are on a real S3 server, at the address where the test stands.
 *
 * What it models: addresses that are not loopback, 1 ms one way between any two hosts, a cable that is pulled. What it does not:
 * bandwidth, other clocks, other processors.
 */
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { afterAll, beforeAll, describe, expect, it } from 'vitest';

import { S3_SERVER_REFUSAL, S3TestServer } from '../../orchestrator/artifacts/s3-test-server.js';
import { Cluster, stepOf } from '../support/cluster.js';
import { Network, networkMissing } from '../support/network.js';

const PREFIX = 'machines';
const HOSTS = ['control', 'w-0', 'w-1'] as const;
const WORKERS = ['w-0', 'w-1'] as const;
/** Two cables lie between two hosts. */
const CABLE = { delayMs: 0.5, loss: 0, seed: 1 };
/** Long enough that the cut comes before the end also where a command takes a while. */
const SETTINGS = ['tune.steps=400', 'model.dim=64', 'checkpoints.tune=10'];
/** Another job: a store answers the same one from memory. */
const OTHER_SETTINGS = ['tune.steps=399', 'model.dim=64', 'checkpoints.tune=10'];

const missing = networkMissing() ?? S3_SERVER_REFUSAL;

describe.skipIf(missing !== null)(`across machines${missing === null ? '' : ` (skipped: ${missing})`}`, () => {
  let undisturbed = '';
  let otherUndisturbed = '';
  let folder = '';
  let network: Network;
  let store: S3TestServer;
  let cluster: Cluster;

  beforeAll(async () => {
    const single = await Cluster.start(WORKERS.map((id) => ({ id })));
    try {
      undisturbed = (await single.run(await single.plan(SETTINGS))).resultDigest;
      otherUndisturbed = (await single.run(await single.plan(OTHER_SETTINGS))).resultDigest;
    } finally {
      await single.close();
    }
    folder = mkdtempSync(join(tmpdir(), 'collimate-machines-'));
    network = await Network.create(HOSTS);
    for (const host of HOSTS) network.shape(host, CABLE);
    for (const id of WORKERS) mkdirSync(join(folder, id));
    store = await S3TestServer.start(join(folder, 'server'), { host: network.gateway });
    process.env['COLLIMATE_STORE_CACHE'] = join(folder, 'cache');
    cluster = await Cluster.start(
      WORKERS.map((id) => ({ id, host: network.address(id), scratch: join(folder, id, 'scratch') })),
      {
        host: network.address('control'),
        storeUrl: store.address(PREFIX),
        launch: (name, command) => {
          const isWorker = (WORKERS as readonly string[]).includes(name);
          return isWorker
            ? network.on(name, withDiskOfItsOwn(join(folder, name), command))
            : network.on('control', command);
        },
      },
    );
  }, 240_000);

  afterAll(async () => {
    delete process.env['COLLIMATE_STORE_CACHE'];
    await cluster?.close();
    await store?.down();
    await network?.close();
    rmSync(folder, { recursive: true, force: true });
  });

  /** Runs the tuning with one host cut off in its middle until that is noticed; resolves with what the run came to. */
  async function cutInTheMiddle(host: (typeof WORKERS)[number], settings: string[]) {
    const plan = await cluster.plan([...SETTINGS, ...settings]);
    const reached = cluster.firstEvent(plan.runId, stepOf('tune', 10));
    await cluster.submit(plan);
    await reached;
    const noticed = cluster.firstEvent(plan.runId, ({ note }) => note?.startsWith('incident') === true);
    await network.setLink(host, 'down');
    await noticed;
    await network.setLink(host, 'up');
    const result = await cluster.result(plan.runId);
    return { result, status: await cluster.status(plan.runId) };
  }

  it('a worker is cut off in the middle of tune and comes back: the same digest as on one machine', async () => {
    const { result, status } = await cutInTheMiddle('w-1', []);
    expect(result.resultDigest).toBe(undisturbed);
    expect(status.incidents).toMatchObject([{ jobKind: 'tune' }]);
    // The one that was cut off does not go on for nobody once it is back.
    await expect.poll(() => cluster.leases(), { timeout: 30_000 }).toEqual([]);
    await expect.poll(() => cluster.members(), { timeout: 30_000 }).toEqual([...WORKERS]);
  });

  describe('complaint 3: a collective hangs in silence for hours', () => {
    it('frames between two ranks vanish while both answer the controller: the gang is formed anew within seconds', async () => {
      const plan = await cluster.plan([...OTHER_SETTINGS, 'limits.stallSeconds=3']);
      const reached = cluster.firstEvent(plan.runId, stepOf('tune', 30));
      const noticed = cluster.firstEvent(plan.runId, ({ note }) => note?.startsWith('incident') === true);
      await cluster.submit(plan);
      await reached;
      await network.setPath('w-0', 'w-1', 'broken');
      await noticed;
      await network.setPath('w-0', 'w-1', 'whole');
      expect((await cluster.result(plan.runId)).resultDigest).toBe(otherUndisturbed);
      const { incidents } = await cluster.status(plan.runId);
      expect(incidents[0]).toMatchObject({ jobKind: 'tune', cause: 'worker_hung' });
      const { lastProgress, detected } = incidents[0]?.phases ?? {};
      expect((detected ?? Infinity) - (lastProgress ?? -Infinity)).toBeLessThan(10_000);
    });
  });
});

/** The command in a mount namespace where the folder is an empty disk that nobody else sees. */
function withDiskOfItsOwn(folder: string, command: string[]): string[] {
  const script = 'mount -t tmpfs -o size=256m,mode=0700 tmpfs "$0" && COLLIMATE_STORE_CACHE="$0/cache" exec "$@"';
  return ['unshare', '--mount', '--propagation', 'private', 'sh', '-c', script, folder, ...command];
}
