/** Gangs that lose members, shrink, grow and are handed over: nothing that a survivor holds is computed again. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';

import { APPROVE_UPDATE, SCALE_UPDATE, type Incident, type RunStatus } from '../../workflows/contract.js';
import { totalSeconds } from '../../workflows/timeline.js';
import { cli } from '../support/cli.js';
import { Cluster, stepOf } from '../support/cluster.js';

/** Long enough for a gang to change several times under way. */
const LONG = ['tune.steps=900', 'tune.batchSequences=128', 'checkpoints.tune=30'];

let cluster: Cluster;
let undisturbed = '';
let tuneKey = '';

beforeAll(async () => {
  cluster = await Cluster.start([{ id: 'w-0' }, { id: 'w-1' }, { id: 'w-2' }]);
  const result = await cluster.run(await cluster.plan([...LONG, 'fleet.workers.max=1']));
  undisturbed = result.resultDigest;
  tuneKey = result.jobs['tune']?.key ?? '';
});

afterAll(async () => {
  await cluster.close();
});

async function gangSizes(runId: string): Promise<number[]> {
  const events = await cluster.store.readRunEvents(runId);
  return events.flatMap(({ type, message }) => {
    const match = type === 'note' ? /\/tune epoch \d+ started on (.*?) from/.exec(message as string) : null;
    return match?.[1] === undefined ? [] : [match[1].split(', ').length];
  });
}

function expectRecovered(incident: Incident | undefined): asserts incident is Incident {
  if (incident === undefined) throw new Error('expected an incident');
  const { lastProgress, detected, fenced, rescheduled, restored, firstStep } = incident.phases;
  const times = [lastProgress, detected, fenced, rescheduled, restored, firstStep];
  expect(times).not.toContain(null);
  expect(times).toEqual([...times].sort((a, b) => Number(a) - Number(b)));
}

/** Parts of a run's time add up to its wall clock, as Temporal has it. */
async function expectSecondsAddUp(runId: string, status: RunStatus): Promise<void> {
  const { startTime, closeTime } = await cluster.client.workflow.getHandle(runId).describe();
  const wall = (Number(closeTime) - Number(startTime)) / 1000;
  expect(Math.abs(totalSeconds(status.seconds) - wall)).toBeLessThan(0.5);
}

describe('elastic gangs', () => {
  it('a killed worker is replaced by a spare without one step computed again', async () => {
    await cluster.forgetJob(tuneKey);
    const plan = await cluster.plan([...LONG, 'fleet.workers.max=2', 'fleet.workers.spares=1']);
    const reached = cluster.firstEvent(plan.runId, stepOf('tune', 120));
    await cluster.submit(plan);
    const { workerId } = await reached;
    await cluster.workers.get(workerId)?.kill('SIGKILL');
    expect((await cluster.result(plan.runId)).resultDigest).toBe(undisturbed);
    const status = await cluster.status(plan.runId);
    expect(status.incidents).toMatchObject([{ cause: 'worker_lost', workerId, job: 'tune' }]);
    const [incident] = status.incidents;
    expectRecovered(incident);
    expect(incident.resumedFromStep).toBeGreaterThanOrEqual(incident.failedAtStep);
    expect(incident.action).toContain('with 2 of 2 workers');
    expect(incident.log.length).toBeGreaterThan(0);
    expect(await gangSizes(plan.runId)).toEqual([2, 2]);
    expect(status.seconds['repeated:worker_lost'] ?? 0).toBe(0);
    expect(status.seconds['recovery:worker_lost']).toBeGreaterThan(0);
    await expectSecondsAddUp(plan.runId, status);
    await cluster.startWorker({ id: workerId });
  });

  it('a gang shrinks when nobody replaces a lost worker, and grows when somebody comes', async () => {
    await cluster.forgetJob(tuneKey);
    const plan = await cluster.plan(LONG);
    const reached = cluster.firstEvent(plan.runId, stepOf('tune', 60));
    await cluster.submit(plan);
    const { workerId } = await reached;
    await cluster.workers.get(workerId)?.kill('SIGKILL');
    await cluster.firstEvent(plan.runId, (event) => event.jobEvent?.epoch === 2 && event.jobEvent.step != null);
    await cluster.startWorker({ id: workerId });
    expect((await cluster.result(plan.runId)).resultDigest).toBe(undisturbed);
    const { incidents } = await cluster.status(plan.runId);
    expect(incidents).toHaveLength(1);
    expect(await gangSizes(plan.runId)).toEqual([3, 2, 3]);
  });

  it('scale changes the gang under way', async () => {
    await cluster.forgetJob(tuneKey);
    const plan = await cluster.plan([...LONG, 'fleet.workers.max=1']);
    const reached = cluster.firstEvent(plan.runId, stepOf('tune', 40));
    const handle = await cluster.submit(plan);
    await reached;
    const two = cluster.firstEvent(plan.runId, (event) => event.jobEvent?.epoch === 2 && event.jobEvent.step != null);
    await handle.executeUpdate(SCALE_UPDATE, { args: [{ max: 2 }] });
    await two;
    const one = cluster.firstEvent(plan.runId, (event) => event.jobEvent?.epoch === 3 && event.jobEvent.step != null);
    await handle.executeUpdate(SCALE_UPDATE, { args: [{ max: 1 }] });
    await one;
    expect((await cluster.result(plan.runId)).resultDigest).toBe(undisturbed);
    expect((await cluster.status(plan.runId)).incidents).toEqual([]);
    expect(await gangSizes(plan.runId)).toEqual([1, 2, 1]);
    await expect(handle.executeUpdate(SCALE_UPDATE, { args: [{ max: 1 }] })).rejects.toThrow();
  });

  it('SIGTERM is a preemption notice: the worker hands over and leaves, no step is computed again', async () => {
    await cluster.forgetJob(tuneKey);
    const plan = await cluster.plan([...LONG, 'fleet.workers.max=2', 'fleet.workers.spares=1']);
    const reached = cluster.firstEvent(plan.runId, stepOf('tune', 60));
    await cluster.submit(plan);
    const { workerId } = await reached;
    await cluster.workers.get(workerId)?.kill('SIGTERM');
    expect((await cluster.result(plan.runId)).resultDigest).toBe(undisturbed);
    const { incidents } = await cluster.status(plan.runId);
    expect(incidents).toMatchObject([{ cause: 'preempted', workerId }]);
    const [incident] = incidents;
    expect(incident?.resumedFromStep).toBeGreaterThanOrEqual(incident?.failedAtStep ?? Infinity);
    await cluster.startWorker({ id: workerId });
  });

  it('a drained worker hands over, stays out until it is let in again, and no step is computed again', async () => {
    await cluster.forgetJob(tuneKey);
    const plan = await cluster.plan([...LONG, 'fleet.workers.max=2', 'fleet.workers.spares=1']);
    const reached = cluster.firstEvent(plan.runId, stepOf('tune', 60));
    await cluster.submit(plan);
    const { workerId } = await reached;
    const fleet = (...args: string[]) => cli(['fleet', ...args, '--controller', cluster.controllerAddress]);
    expect(await fleet('drain', workerId)).toMatchObject({
      code: 0,
      stdout: expect.stringContaining('drained') as string,
    });
    expect((await cluster.result(plan.runId)).resultDigest).toBe(undisturbed);
    const [incident, ...others] = (await cluster.status(plan.runId)).incidents;
    expect(others).toEqual([]);
    expect(incident).toMatchObject({ cause: 'preempted', workerId });
    expect(incident?.resumedFromStep).toBeGreaterThanOrEqual(incident?.failedAtStep ?? Infinity);

    // The same process, free, and no gang takes it: with one more than is left, a job waits.
    expect((await fleet()).stdout).toMatch(new RegExp(`^${workerId} +drained `, 'm'));
    const late = await cluster.plan([...LONG, 'tune.seed=3', 'fleet.workers.min=3', 'fleet.workers.max=3']);
    await cluster.submit(late);
    await expect.poll(async () => (await cluster.status(late.runId)).state).toBe('running');
    expect(await fleet('uncordon', workerId)).toMatchObject({ code: 0 });
    await cluster.firstEvent(late.runId, stepOf('tune', 1));
    await cluster.client.workflow.getHandle(late.runId).cancel();
    expect(await fleet('drain', 'w-9')).toMatchObject({
      code: 3,
      stderr: expect.stringMatching(/expected a worker of the fleet \(w-0, w-1, w-2\), got "w-9"/) as string,
    });
  });

  it('a gang of one that is preempted goes on elsewhere from a checkpoint of that very step', async () => {
    await cluster.forgetJob(tuneKey);
    const plan = await cluster.plan([...LONG, 'fleet.workers.max=1']);
    const reached = cluster.firstEvent(plan.runId, stepOf('tune', 60));
    await cluster.submit(plan);
    const { workerId } = await reached;
    await cluster.workers.get(workerId)?.kill('SIGTERM');
    expect((await cluster.result(plan.runId)).resultDigest).toBe(undisturbed);
    const [incident] = (await cluster.status(plan.runId)).incidents;
    expect(incident?.cause).toBe('preempted');
    expect(incident?.resumedFromStep).toBe(incident?.failedAtStep);
    await cluster.startWorker({ id: workerId });
  });

  it('publishing waits for approval, and a rejection publishes nothing', async () => {
    const approved = await cluster.plan([...LONG, 'publish.approval=true']);
    const handle = await cluster.submit(approved);
    await expect
      .poll(async () => (await cluster.status(approved.runId)).state, { timeout: 60_000 })
      .toBe('waiting_for_approval');
    await handle.executeUpdate(APPROVE_UPDATE, { args: [{ approved: true, note: 'looks right' }] });
    expect((await cluster.result(approved.runId)).generation).not.toBeNull();

    const rejected = await cluster.plan([...LONG, 'publish.approval=true']);
    const other = await cluster.submit(rejected);
    // A decision may come before it is asked for.
    await other.executeUpdate(APPROVE_UPDATE, { args: [{ approved: false, note: '' }] });
    await expect(other.executeUpdate(APPROVE_UPDATE, { args: [{ approved: true, note: '' }] })).rejects.toThrow();
    expect((await cluster.result(rejected.runId)).generation).toBeNull();
  });

  it('a run that reaches its time limit fails, says so and gives its workers back', async () => {
    await cluster.forgetJob(tuneKey);
    const plan = await cluster.plan(['tune.steps=100000', 'limits.runSeconds=12']);
    await cluster.submit(plan);
    await expect(cluster.result(plan.runId)).rejects.toThrow();
    const { state, failure } = await cluster.status(plan.runId);
    expect(state).toBe('failed');
    expect(failure).toContain('time limit of 12 s');
    await expect.poll(async () => await cluster.leases(), { timeout: 10_000 }).toEqual([]);
  });
});
