/** Runs are verified after the fact by the command line, on real processes: exact ones are certified, a wrong byte is named. */
import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

import { afterAll, beforeAll, describe, expect, it } from 'vitest';

import { type Certificate } from '../../orchestrator/cli/certificate.js';
import { homeAt, keepStoreAddress, writeProcessTable } from '../../orchestrator/cli/home.js';
import { recordOf } from '../../orchestrator/cli/process-control.js';
import { encodeSafetensors, SafetensorsFile } from '../../orchestrator/recommender/safetensors.js';
import { verifyWorkflowId, type RunPlan, type RunResult } from '../../workflows/contract.js';
import { cli, cliStarted, type CliResult } from '../support/cli.js';
import { Cluster, stepOf } from '../support/cluster.js';

const KEEP_MANY = ['checkpoints.keep=100', 'fleet.workers.max=2'];

describe('verify', () => {
  let cluster: Cluster;
  let home = '';

  beforeAll(async () => {
    cluster = await Cluster.start([{ id: 'w-0' }, { id: 'w-1' }], {
      // Pinned to a lower class than that of any other.
      launch: (name, command) =>
        name === 'lower' ? ['env', 'COLLIMATE_ISA=avx2', 'COLLIMATE_BF16=none', ...command] : command,
    });
    // A home whose processes are those of the cluster.
    home = await mkdtemp(join(tmpdir(), 'collimate-home-'));
    keepStoreAddress({ ...homeAt(home), store: cluster.store.url });
    writeProcessTable(homeAt(home), {
      ...{ state: 'ready', failure: null, supervisor: recordOf(process.pid) },
      ...{ temporal: null, controller: null, prometheus: null, workers: [], revision: 1 },
      addresses: {
        ...{ temporal: `127.0.0.1:${String(cluster.ports.temporal)}`, ui: null },
        ...{ controller: cluster.controllerAddress, controllerMetrics: cluster.controllerMetrics },
        ...{ serveMetrics: '127.0.0.1:0', prometheus: null },
      },
    });
  });
  afterAll(async () => {
    await cluster.close();
    await rm(home, { recursive: true, force: true });
  });

  /** A plan as `collimate run` leaves it in the store. */
  async function keptPlan(settings: string[]): Promise<RunPlan> {
    const plan = await cluster.plan(settings);
    await cluster.store.writeRunFile(plan.runId, 'plan.json', JSON.stringify(plan));
    return plan;
  }

  function verify(...args: string[]): Promise<CliResult> {
    return cli(['verify', ...args, '--home', home]);
  }

  async function certificateOf(...args: string[]): Promise<Certificate & { code: number; stderr: string }> {
    const { code, stdout, stderr } = await verify(...args, '-o', 'json');
    if (stdout === '') throw new Error(`no certificate, exit ${String(code)}: ${stderr}`);
    return { ...(JSON.parse(stdout) as Certificate), code, stderr };
  }

  /** Names of everything in the store that a verification must not change. */
  async function published(runId: string): Promise<string[]> {
    const store = fileURLToPath(cluster.store.url);
    const names = await readdir(store, { recursive: true });
    const events = await cluster.store.readRunEvents(runId);
    const kept = names.filter((name) => /^(jobs|checkpoints)\//.test(name)).sort();
    return [...kept, `${String(events.length)} events`];
  }

  /** The last verification of the run took more than one execution. */
  async function expectContinuedAsNew(runId: string): Promise<void> {
    const { events } = await cluster.client.workflow.getHandle(verifyWorkflowId(runId)).fetchHistory();
    const started = events?.[0]?.workflowExecutionStartedEventAttributes;
    expect(started?.continuedExecutionRunId).toMatch(/./);
  }

  function keyOf(result: RunResult, job: string): string {
    const key = result.jobs[job]?.key;
    if (key === undefined) throw new Error(`the run has no job ${job}`);
    return key;
  }

  it('certifies a run that lost a worker, every interval from the start, also by other workers than it had', async () => {
    const settings = ['tune.steps=200', 'tune.batchSequences=128', 'historyEventsMax=50'];
    const dense = ['dense.dim=16', 'dense.epochs=4', 'dense.batchSequences=32', 'checkpoints.dense=10'];
    const plan = await keptPlan([...KEEP_MANY, ...settings, ...dense]);
    const reached = cluster.firstEvent(plan.runId, stepOf('tune', 15));
    await cluster.submit(plan);
    const { workerId } = await reached;
    await cluster.workers.get(workerId)?.kill('SIGKILL');
    const result = await cluster.result(plan.runId);
    expect((await cluster.status(plan.runId)).incidents).toMatchObject([{ cause: 'worker_lost', job: 'tune' }]);
    for (const worker of cluster.workers.values()) await worker.kill('SIGTERM');
    await cluster.startWorker({ id: 'other-0', threads: 2 });
    await expect.poll(() => cluster.members()).toEqual(['other-0']);

    const before = await published(plan.runId);
    const alone = await certificateOf(plan.runId, '--intervals', 'all', '--from-start');
    expect(alone).toMatchObject({ code: 0, exact: true, damagedCheckpoints: [], notVerified: [] });
    expect(alone).toMatchObject({ resultDigest: result.resultDigest, numericsClass: result.numericsClass });
    const steps = (job: string) =>
      alone.intervals.filter((interval) => interval.job === job).map(({ from, to }) => [from?.step, to?.step]);
    for (const job of ['dccf', 'codebooks', 'tune', 'dense/0']) {
      // One after the other, from the beginning to the end. A killed worker takes checkpoints with it that it had not stored.
      const parts = steps(job);
      expect(parts.length).toBeGreaterThanOrEqual(3);
      expect(parts.map(([from]) => from)).toEqual([undefined, ...parts.slice(0, -1).map(([, to]) => to)]);
      expect(parts.at(-1)?.[1]).toBeUndefined();
    }
    expect(steps('dccf')[0]).toEqual([undefined, 5]);
    for (const { recorded, computed, workers } of alone.intervals) {
      expect(computed).toEqual(recorded);
      expect(workers).toEqual(['other-0']);
    }

    // By default the last interval and the end of each job; with more workers, more of them.
    await cluster.startWorker({ id: 'other-1' });
    const { code, stdout, stderr } = await verify(plan.runId);
    expect({ code, stderr }).toMatchObject({ code: 0 });
    expect(stdout).toMatch(/tune +180 → 190 +10 +2 .*exact/);
    expect(stdout).toMatch(/tune +190 → end +2 .*exact/);
    expect(stdout.match(/exact/g)).toHaveLength(8);
    expect(await published(plan.runId)).toEqual(before);
    await expectContinuedAsNew(plan.runId);
    const address = /certificate: (.*)/.exec(stderr)?.[1] ?? '';
    expect(address).toContain(`${plan.runId}/verification-`);
    expect(JSON.parse(await readFile(address, 'utf8'))).toMatchObject({ runId: plan.runId, exact: true });
  });

  it('names tensor and element of a checkpoint that is whole but wrong, and tells damaged ones', async () => {
    const plan = await keptPlan([...KEEP_MANY, 'tune.seed=8', 'tune.batchSequences=64']);
    const result = await cluster.run(plan);
    const key = keyOf(result, 'tune');
    const folder = join(cluster.folder, 'wrong');
    // A checkpoint that is not stored before the next one is there gives way to it, so not every tenth step must have one.
    const listed = (await cluster.store.listCheckpoints(key)).sort((a, b) => a.step - b.step);
    const steps = listed.map(({ step }) => step);
    expect(steps.length).toBeGreaterThanOrEqual(4);
    const place = steps.length - 3;
    const [before = 0, wrong = 0, after = 0] = steps.slice(place - 1);
    await cluster.store.restoreCheckpoint(listed[place]?.manifestDigest ?? '', folder);
    const file = join(folder, 'training.safetensors');
    const training = await SafetensorsFile.open(file);
    const tensors = Object.fromEntries(
      ['parameters', 'first_moment', 'second_moment', 'loss'].map((name) => [name, training.f32(name, [-1])]),
    );
    const parameters = tensors['parameters']?.data ?? new Float32Array();
    const right = parameters[123] ?? NaN;
    parameters[123] = right + 1;
    await writeFile(file, encodeSafetensors(tensors, training.metadata));
    const pointer = (step: number): string =>
      join(fileURLToPath(cluster.store.url), 'checkpoints', key, `${String(step).padStart(12, '0')}.json`);
    await rm(pointer(wrong));
    await cluster.store.putCheckpoint(key, wrong, folder);

    const found = await certificateOf(plan.runId, '--job', 'tune', '--intervals', 'all');
    expect(found).toMatchObject({ code: 1, exact: false });
    // The wrong one is told as the end of its interval, and by what is computed from it.
    expect(found.intervals.map(({ from, to, verdict }) => [from?.step, to?.step, verdict])).toEqual(
      steps.map((step, i) => [step, steps[i + 1], step === before || step === wrong ? 'different' : 'exact']),
    );
    const [difference] = found.intervals.flatMap(({ from, difference }) => (from?.step === before ? [difference] : []));
    expect(difference).toContain(`training.safetensors: tensor 'parameters' (F32 [${String(parameters.length)}])`);
    expect(difference).toContain(`element 123 at [123]: expected ${String(parameters[123])} (`);
    expect(difference).toContain(`got ${String(right)} (`);
    expect(difference).toContain(`1 of ${String(parameters.length)} elements differ`);

    // Damage is a finding of its own, and the neighbours are held against each other across it.
    await writeFile(pointer(wrong), 'not a pointer');
    const damaged = await certificateOf(plan.runId, '--job', 'tune', '--intervals', 'all');
    expect(damaged).toMatchObject({ code: 1, exact: false });
    expect(damaged.damagedCheckpoints).toEqual([{ job: 'tune', step: wrong, damage: 'its pointer is damaged' }]);
    expect(new Set(damaged.intervals.map(({ verdict }) => verdict))).toEqual(new Set(['exact']));
    expect(damaged.intervals.some(({ from, to }) => from?.step === before && to?.step === after)).toBe(true);
  });

  it('names what differs in an output that is recorded wrongly', async () => {
    const plan = await keptPlan([...KEEP_MANY, 'tune.seed=9']);
    const result = await cluster.run(plan);
    const curve = await SafetensorsFile.open(
      await cluster.store.localPath(result.jobs['tune']?.outputs['loss_curve'] ?? ''),
    );
    const loss = curve.f32('loss', [-1]);
    loss.data[59] = 0;
    const tune = result.jobs['tune'];
    if (tune === undefined) throw new Error('the run has no job tune');
    tune.outputs['loss_curve'] = await cluster.store.putBytes(encodeSafetensors({ loss }, curve.metadata));
    await cluster.store.writeRunFile(plan.runId, 'result.json', JSON.stringify(result));
    const found = await certificateOf(plan.runId, '--job', 'tune');
    expect(found).toMatchObject({ code: 1, exact: false });
    expect(found.intervals.map(({ verdict }) => verdict)).toEqual(['exact', 'different']);
    expect(found.intervals[1]?.difference).toContain(
      "loss_curve: tensor 'loss' (F32 [60]): element 59 at [59]: expected 0 (",
    );
  });

  it('goes on when a worker of the verification is killed', async () => {
    const plan = await keptPlan([...KEEP_MANY, 'tune.steps=400', 'tune.batchSequences=128', 'checkpoints.tune=50']);
    await cluster.run(plan);
    const verifying = certificateOf(plan.runId, '--job', 'tune', '--intervals', 'all', '--from-start');
    await expect.poll(() => cluster.busyWorkers(), { timeout: 60_000 }).not.toEqual([]);
    const [victim = ''] = await cluster.busyWorkers();
    await cluster.workers.get(victim)?.kill('SIGKILL');
    const certificate = await verifying;
    expect(certificate).toMatchObject({ code: 0, exact: true });
    expect(certificate.intervals.at(-1)?.workers).not.toContain(victim);
    await cluster.startWorker({ id: victim });
  });

  it('says which numerics class is missing and what the fleet has: exit 5', async () => {
    const plan = await keptPlan(KEEP_MANY);
    const result = await cluster.run(plan);
    for (const worker of cluster.workers.values()) await worker.kill('SIGTERM');
    await expect.poll(() => cluster.members()).toEqual([]);
    const none = await verify(plan.runId, '--wait', '1');
    expect(none.code).toBe(5);
    expect(none.stderr).toContain(`numerics class ${result.numericsClass}`);
    expect(none.stderr).toContain('the fleet has no workers');
    expect(none.stdout).toBe('');
    await cluster.startWorker({ id: 'lower' });
    const lower = await verify(plan.runId, '--wait', '1');
    expect(lower.code).toBe(5);
    expect(lower.stderr).toMatch(/but 0 joined \(the fleet has cpu-avx2-[0-9a-f]{12} of engine /);
    expect(await cluster.store.readRunFile(plan.runId, 'result.json')).not.toBeNull();
    await cluster.workers.get('lower')?.kill('SIGTERM');
    for (const id of ['w-0', 'w-1']) await cluster.startWorker({ id });
  });

  it('is one at a time for a run; Ctrl-C cancels it and gives the workers back: exit 4', async () => {
    const plan = await keptPlan([...KEEP_MANY, 'tune.steps=2000', 'tune.batchSequences=128', 'checkpoints.tune=1900']);
    await cluster.run(plan);
    const { child, ended } = cliStarted(['verify', plan.runId, '--job', 'tune', '--from-start', '--home', home]);
    await expect.poll(() => cluster.busyWorkers(), { timeout: 60_000 }).not.toEqual([]);
    const second = await verify(plan.runId);
    expect(second).toMatchObject({ code: 2, stdout: '' });
    expect(second.stderr).toContain('is under way');
    child.kill('SIGINT');
    const { code, stdout, stderr } = await ended;
    expect({ code, stdout }).toEqual({ code: 4, stdout: '' });
    expect(stderr).toContain('was cancelled');
    await expect.poll(() => cluster.leases(), { timeout: 20_000 }).toEqual([]);
  });

  it('refuses what it cannot verify, each with its exit code', async () => {
    const plan = await keptPlan(['checkpoints.dccf=0', 'checkpoints.codebooks=0', 'checkpoints.tune=0', 'seed=77']);
    const result = await cluster.run(plan);
    const nothing = await verify(plan.runId);
    expect(nothing).toMatchObject({ code: 3, stdout: '' });
    expect(nothing.stderr).toContain('tune: the store has no checkpoint of it');
    const whole = await certificateOf(plan.runId, '--job', 'codebooks', '--from-start');
    expect(whole).toMatchObject({ code: 0, exact: true, intervals: [{ from: null, to: null, verdict: 'exact' }] });

    expect(await verify('no-such-run')).toMatchObject({ code: 3 });
    const misspelt = await verify(plan.runId, '--job', 'tunes');
    expect(misspelt).toMatchObject({ code: 2 });
    expect(misspelt.stderr).toContain('(dccf, codebooks, tune), got "tunes"');

    const changed = { ...plan, recipes: { ...plan.recipes, tune: { ...plan.recipes.tune, seed: 1 } } };
    await cluster.store.writeRunFile(plan.runId, 'plan.json', JSON.stringify(changed));
    const other = await verify(plan.runId, '--from-start');
    expect(other).toMatchObject({ code: 2 });
    expect(other.stderr).toContain(`the key that is recorded, ${keyOf(result, 'tune')}`);
  });
});
