/** The worker's service, lease and job runs over real gRPC and a real store. Native code stays out: only domain jobs run. */
import { mkdir, readdir } from 'node:fs/promises';
import { join } from 'node:path';

import { status } from '@grpc/grpc-js';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';

import { canonicalJson, jobKeyOf } from '../../orchestrator/artifacts/job-key.js';
import { FileArtifactStore } from '../../orchestrator/artifacts/store.js';
import { bindServer, loadService, makeClient, makeServer, unary } from '../../orchestrator/fleet/channel.js';
import { domainJobs } from '../../orchestrator/recommender/jobs.js';
import { defaultRecipes } from '../../orchestrator/recommender/default-recipes.js';
import { TestFolder } from '../../orchestrator/recommender/test-folder.js';
import { createLogger } from '../../orchestrator/telemetry/logger.js';
import type { JobEvent__Output } from '../../proto/generated/collimate/v1/JobEvent.js';
import type { WatchJobResponse__Output } from '../../proto/generated/collimate/v1/WatchJobResponse.js';
import type { WorkerServiceClient } from '../../proto/generated/collimate/v1/WorkerService.js';
import type { JobResult, JobSpec } from '../../workflows/contract.js';
import type { DomainRun } from './domain-runner.js';
import { JobHost } from './job-host.js';
import type { AttemptRef } from './lease.js';
import { workerService } from './service.js';

vi.mock('./addon.js', () => ({}));
/** The job itself is real; it runs on this thread, since a thread of its own needs compiled files. */
vi.mock('./domain-runner.js', () => ({
  runDomainJob: async ({ kind, recipe, inputs, outputDir, onReport, signal }: DomainRun) => {
    if (recipe['endless'] === true) {
      await new Promise((_, reject) => {
        signal.addEventListener('abort', () => {
          reject(new Error('the attempt was cancelled'));
        });
      });
    }
    return domainJobs[kind]({ recipe, inputs, outputDir, report: onReport });
  },
}));

const RECIPE = { ...defaultRecipes(3).simulate, items: 160, users: 40 };
const spec = (changes: Partial<JobSpec> = {}): JobSpec => ({
  kind: 'simulate',
  recipe: RECIPE,
  inputs: {},
  numericsClass: 'js',
  engineRevision: 'r1',
  ...changes,
});
const ENDLESS = spec({ recipe: { endless: true } });

let folder: TestFolder;
let store: FileArtifactStore;
let host: JobHost;
let client: WorkerServiceClient;
let holders: (string | null)[];
const closers: (() => unknown)[] = [];

beforeEach(async () => {
  folder = await TestFolder.make();
  store = new FileArtifactStore(join(folder.path, 'store'));
  await mkdir(join(folder.path, 'scratch'));
  holders = [];
  const log = createLogger({ component: 'test', file: join(folder.path, 'log') });
  host = new JobHost({
    store,
    scratchRoot: join(folder.path, 'scratch'),
    threads: 1,
    tensorHost: '127.0.0.1',
    log,
    meet: () => Promise.reject(new Error('a gang of one meets nobody')),
    onJobMeasure: () => undefined,
    onLease: (holder) => holders.push(holder === null ? null : `${holder.jobId}#${String(holder.epoch)}`),
  });
  const server = makeServer();
  server.addService(
    loadService('WorkerService').service,
    workerService({ workerId: 'w-0', numericsClass: 'test', host, log }),
  );
  const port = await bindServer(server, '127.0.0.1:0');
  client = makeClient<WorkerServiceClient>(loadService('WorkerService'), `127.0.0.1:${String(port)}`);
  closers.push(
    () => client.close(),
    () => server.forceShutdown(),
    () => host.close(),
    () => folder.remove(),
  );
});

afterEach(async () => {
  for (const close of closers.splice(0)) await close();
});

const deadlineMs = 10_000;
const reserve = (job: AttemptRef) => unary(client, 'reserve', { job, ttlMs: 5_000 }, { deadlineMs });
const release = (job: AttemptRef) => unary(client, 'release', { job }, { deadlineMs });
const start = (job: AttemptRef, what: JobSpec, order: { dryRun?: boolean } = {}) => {
  const definition = { key: jobKeyOf(what), specJson: canonicalJson(what) };
  return unary(client, 'startJob', { job, definition, place: { rank: 0, world: 1 }, ...order }, { deadlineMs });
};

/** Events up to the end of the stream; rejects with its status. */
function watch(job: AttemptRef, afterSequence = 0): Promise<JobEvent__Output[]> {
  return new Promise((resolve, reject) => {
    const events: JobEvent__Output[] = [];
    const stream = client.watchJob({ job, afterSequence }, { deadline: Date.now() + deadlineMs });
    stream.on('data', ({ event }: WatchJobResponse__Output) => event !== null && events.push(event));
    stream.on('error', reject);
    stream.on('end', () => {
      resolve(events);
    });
  });
}

const attempt = (epoch: number, jobId = 'run/simulate'): AttemptRef => ({ jobId, epoch });

describe('a worker', () => {
  it('runs a job from lease to committed result, gives the lease back and leaves no scratch', async () => {
    await reserve(attempt(1));
    await start(attempt(1), spec());
    const events = await watch(attempt(1));
    expect(events.map(({ sequence }) => sequence)).toEqual(events.map((_, index) => index + 1));
    const committed = await store.getJobResult(jobKeyOf(spec()));
    expect(JSON.parse(events.at(-1)?.finished?.resultJson ?? 'null')).toEqual(committed);
    expect(Object.keys(committed?.outputs ?? {})).toEqual(['interactions', 'items', 'oracle']);
    await vi.waitFor(() => {
      expect(holders).toEqual(['run/simulate#1', null]);
    });
    expect(await readdir(join(folder.path, 'scratch'))).toEqual([]);
    // Who comes late hears the rest; who starts it once more starts nothing.
    expect(await watch(attempt(1), events.length - 1)).toEqual(events.slice(-1));
    await start(attempt(1), spec());
    expect(host.holder).toBeNull();
  });

  it('gives the same outputs under a new epoch, and refuses the old one from then on', async () => {
    for (const epoch of [1, 2]) {
      await reserve(attempt(epoch));
      await start(attempt(epoch), spec());
      expect((await watch(attempt(epoch))).at(-1)?.finished).not.toBeNull();
      await release(attempt(epoch));
    }
    await expect(reserve(attempt(1))).rejects.toMatchObject({ code: status.FAILED_PRECONDITION });
    await expect(start(attempt(1), spec())).rejects.toMatchObject({ code: status.FAILED_PRECONDITION });
  });

  it('ends the stream of an attempt that it does not know with NOT_FOUND', async () => {
    await expect(watch(attempt(7))).rejects.toMatchObject({ code: status.NOT_FOUND });
  });

  it('starts nothing without a lease', async () => {
    await expect(start(attempt(1), spec())).rejects.toThrow(/reserve first/);
    await expect(reserve({ jobId: '', epoch: 1 })).rejects.toMatchObject({ code: status.INVALID_ARGUMENT });
  });

  it('publishes nothing of a dry run: its digests are told, its outputs stored, no result is committed', async () => {
    await reserve(attempt(1));
    await start(attempt(1), spec(), { dryRun: true });
    const json = (await watch(attempt(1))).at(-1)?.finished?.resultJson ?? '';
    expect(await store.getJobResult(jobKeyOf(spec()))).toBeNull();
    const told = JSON.parse(json) as JobResult;
    expect(Object.keys(told.outputs).length).toBeGreaterThan(0);
    for (const digest of Object.values(told.outputs)) await store.readBytes(digest);
    await reserve(attempt(2));
    await start(attempt(2), spec());
    await watch(attempt(2));
    expect(await store.getJobResult(jobKeyOf(spec()))).toEqual(told);
  });

  it('works for one job at a time; release aborts it without a result', async () => {
    await reserve(attempt(1));
    await start(attempt(1), ENDLESS);
    const ending = watch(attempt(1));
    await expect(reserve(attempt(1, 'run/other'))).rejects.toMatchObject({ code: status.RESOURCE_EXHAUSTED });
    await release(attempt(1));
    expect((await ending).at(-1)?.failed).toMatchObject({ cause: 'FAILURE_CAUSE_WORKER_LOST' });
    expect(await store.getJobResult(jobKeyOf(ENDLESS))).toBeNull();
    await reserve(attempt(1, 'run/other'));
    expect(host.holder).toEqual(attempt(1, 'run/other'));
  });

  it('takes no new job while it is cordoned, but the next gangs of the job that it has', async () => {
    const schedule = (scheduling: 'SCHEDULING_CORDONED' | 'SCHEDULING_OPEN' | 'SCHEDULING_DRAINED') =>
      unary(client, 'schedule', { scheduling }, { deadlineMs });
    await reserve(attempt(1));
    await schedule('SCHEDULING_CORDONED');
    expect(host.isCordoned).toBe(true);
    await reserve(attempt(2));
    await release(attempt(2));
    await expect(reserve(attempt(3))).rejects.toThrow('worker w-0 is cordoned and takes no new job');
    await schedule('SCHEDULING_OPEN');
    await reserve(attempt(3));
    await schedule('SCHEDULING_DRAINED');
    await expect(reserve(attempt(4))).rejects.toThrow('takes no more work');
    await schedule('SCHEDULING_OPEN');
    await reserve(attempt(4));
    expect([host.isCordoned, host.isDraining]).toEqual([false, false]);
  });

  it('ends an older attempt of the same job for a newer one', async () => {
    await reserve(attempt(1));
    await start(attempt(1), ENDLESS);
    const ending = watch(attempt(1));
    await reserve(attempt(2));
    expect((await ending).at(-1)?.failed).not.toBeNull();
    expect(host.holder).toEqual(attempt(2));
  });

  it('tells whoever listens that it is lost when it is shut down', async () => {
    await reserve(attempt(1));
    await start(attempt(1), ENDLESS);
    const ending = watch(attempt(1));
    await host.close();
    expect((await ending).at(-1)?.failed?.cause).toBe('FAILURE_CAUSE_WORKER_LOST');
  });

  it('names the cause of a failure: bad input, a missing input, a definition that is no JSON', async () => {
    const absent = 'a'.repeat(64);
    const cases = [
      { what: spec({ recipe: { ...RECIPE, users: -1 } }), cause: 'FAILURE_CAUSE_BAD_INPUT' },
      { what: spec({ inputs: { interactions: absent } }), cause: 'FAILURE_CAUSE_CORRUPT_ARTIFACT' },
    ];
    for (const [index, { what, cause }] of cases.entries()) {
      await reserve(attempt(index + 1));
      await start(attempt(index + 1), what);
      expect((await watch(attempt(index + 1))).at(-1)?.failed?.cause).toBe(cause);
    }
    await reserve(attempt(9));
    const definition = { key: jobKeyOf(spec()), specJson: '{' };
    await unary(client, 'startJob', { job: attempt(9), definition }, { deadlineMs });
    expect((await watch(attempt(9))).at(-1)?.failed?.cause).toBe('FAILURE_CAUSE_INTERNAL');
    await vi.waitFor(() => {
      expect(host.holder).toBeNull();
    });
  });
});
