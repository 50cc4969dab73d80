/**
 * What people complain of in other launchers, each a test that passes here; named by its number in ARCHITECTURE.md, where the
 * ones that live in other files are listed too.
 *
 * One cluster and one memoised prefix serve all: each test forgets the tuning and has it computed again, under its own trouble,
 * to the digest of an undisturbed run. A test that takes a worker gives it back.
 */
import { spawn } from 'node:child_process';
import { truncate } from 'node:fs/promises';
import { constants, setPriority } from 'node:os';
import { setTimeout as sleep } from 'node:timers/promises';

import { afterAll, beforeAll, describe, expect, it } from 'vitest';

import type { WatchRunResponse__Output } from '../../proto/generated/collimate/v1/WatchRunResponse.js';
import type { CheckpointManifest } from '../../orchestrator/artifacts/store.js';
import type { Incident, RunPlan, RunStatus } from '../../workflows/contract.js';
import { eventually } from '../support/cli.js';
import { Cluster, stepOf } from '../support/cluster.js';
import { Relay } from '../support/relay.js';

const WORKERS = ['w-0', 'w-1', 'w-2'];
const STEPS = 300;
const SETTINGS = [`tune.steps=${String(STEPS)}`, 'tune.batchSequences=128', 'checkpoints.tune=20'];
/** Of its controllers: soon, so that the test need not wait for the usual 15. */
const HELD_UP_SECONDS = 6;
/** From the last step before a failure to the next one. Measured: below 2 s; the rest is for a busy machine. */
const RECOVERY_MS_MAX = 15_000;

let cluster: Cluster;
/** Where workers find the controller, whichever is in charge. */
let relay: Relay;
let undisturbed = '';
let tuneKey = '';

beforeAll(async () => {
  cluster = await Cluster.start([], { controllerFlags: ['--held-up', String(HELD_UP_SECONDS)] });
  relay = await Relay.start(cluster.ports.controller);
  await Promise.all(WORKERS.map((id) => cluster.startWorker({ id, controller: relay.address })));
  const result = await cluster.run(await cluster.plan([...SETTINGS, 'fleet.workers.max=1']));
  undisturbed = result.resultDigest;
  tuneKey = result.jobs['tune']?.key ?? '';
});

afterAll(async () => {
  await cluster.close();
  await relay.close();
});

interface Disturbed {
  plan: RunPlan;
  status: RunStatus;
}

/** Tunes again, and calls `disturb` with the worker that tells of `step`; the run must end with the undisturbed digest. */
async function tuneAgain(
  settings: string[],
  step: number,
  disturb: (workerId: string, plan: RunPlan) => Promise<void>,
): Promise<Disturbed> {
  await cluster.forgetJob(tuneKey);
  const plan = await cluster.plan([...SETTINGS, ...settings]);
  const reached = cluster.firstEvent(plan.runId, stepOf('tune', step));
  await cluster.submit(plan);
  await disturb((await reached).workerId, plan);
  expect((await cluster.result(plan.runId)).resultDigest).toBe(undisturbed);
  return { plan, status: await cluster.status(plan.runId) };
}

async function notesOf(runId: string): Promise<string[]> {
  const events = await cluster.store.readRunEvents(runId);
  return events.flatMap(({ message }) => (typeof message === 'string' ? [message] : []));
}

/** Every worker in the fleet, and none with a lease. */
async function expectFleetWhole(): Promise<void> {
  for (const id of WORKERS) {
    if (cluster.workers.get(id)?.process.exitCode != null || cluster.workers.get(id)?.process.signalCode != null) {
      await cluster.startWorker({ id, controller: relay.address });
    }
  }
  await eventually('every worker in the fleet and free', async () => {
    const [members, leases] = await Promise.all([cluster.members(), cluster.leases()]);
    return members.length === WORKERS.length && leases.length === 0 ? true : null;
  });
}

function signal(workerId: string, name: NodeJS.Signals): void {
  cluster.workers.get(workerId)?.process.kill(name);
}

function recoveryMs({ phases: { lastProgress, firstStep } }: Incident): number {
  return (firstStep ?? Infinity) - (lastProgress ?? -Infinity);
}

describe('two of three workers that are killed at once, and that nobody replaces', () => {
  let incidents: Incident[] = [];
  let killed: string[] = [];
  beforeAll(async () => {
    const { status } = await tuneAgain([], 40, (workerId) => {
      killed = WORKERS.filter((id) => id !== workerId);
      for (const id of killed) signal(id, 'SIGKILL');
      return Promise.resolve();
    });
    incidents = status.incidents;
    await expectFleetWhole();
  });

  describe('complaint 1: a killed node makes the job hang for ever', () => {
    it('the third goes on within seconds', () => {
      const last = incidents.at(-1);
      if (last === undefined) throw new Error('expected an incident');
      expect(last.action).toContain('with 1 of');
      expect(recoveryMs(last)).toBeLessThan(RECOVERY_MS_MAX);
    });
  });

  describe('complaint 8: the wrong reason is shown, and the log of the failed rank is lost', () => {
    it('a rank that loses its peers does not hide why they went', () => {
      for (const { cause, workerId, log } of incidents) {
        expect(cause).toBe('worker_lost');
        expect(killed).toContain(workerId);
        expect(log.join('\n')).toContain(`"worker":"${workerId ?? ''}"`);
      }
    });

    it('a loss that is not finite ends the run with that reason and its step', async () => {
      const plan = await cluster.plan(['tune.learningRate=1e20', 'tune.warmupSteps=0', 'tune.clipNorm=1e29']);
      await expect(cluster.run(plan)).rejects.toThrow();
      const { failure, incidents: seen } = await cluster.status(plan.runId);
      expect(failure).toMatch(/^tune: .*step \d+.*\(replayed from its checkpoint, step \d+ fails again\)$/);
      expect(seen.map(({ cause }) => cause)).toEqual(['nan_loss', 'nan_loss']);
      expect(seen.every(({ log }) => log.length > 0)).toBe(true);
    });
  });
});

describe('a worker that is frozen', () => {
  let incidents: Incident[] = [];
  let frozen = '';
  beforeAll(async () => {
    const { status } = await tuneAgain([], 40, (workerId) => {
      frozen = workerId;
      signal(frozen, 'SIGSTOP');
      return Promise.resolve();
    });
    incidents = status.incidents;
  });

  describe('complaint 2: a missed keep-alive restarts nothing, and with the rendezvous host everything dies', () => {
    it('the gang goes on without the frozen worker, and it comes back as no zombie', async () => {
      expect(incidents).toMatchObject([{ workerId: frozen, job: 'tune' }]);
      expect(incidents[0]?.action).toContain('with 2 of 3 workers');
      signal(frozen, 'SIGCONT');
      await expectFleetWhole();
    });

    it('the rendezvous host is killed together with a worker: the gang forms all the same', async () => {
      const { status } = await tuneAgain([], 40, async (workerId) => {
        await Promise.all([cluster.workers.get(workerId)?.kill('SIGKILL'), cluster.controller.kill('SIGKILL')]);
        await cluster.startController();
      });
      expect(status.incidents).toMatchObject([{ cause: 'worker_lost' }]);
      await expectFleetWhole();
    });
  });

  describe('complaint 5: ten minutes until a watchdog bites', () => {
    it('with the default limits it is missed within seconds', () => {
      const [incident] = incidents;
      if (incident === undefined) throw new Error('expected an incident');
      expect(incident.phases.detected - (incident.phases.lastProgress ?? -Infinity)).toBeLessThan(8_000);
      expect(recoveryMs(incident)).toBeLessThan(RECOVERY_MS_MAX);
    });
  });
});

describe('complaint 6: a healthy job is taken for hung and restarted', () => {
  it('workers that are merely slow cause no incident', async () => {
    const { status } = await tuneAgain(['fleet.workers.max=2'], 20, async (_workerId, plan) => {
      const gang = await cluster.busyWorkers();
      expect(gang).toHaveLength(2);
      const [first = '', second = ''] = gang;
      // Held up again and again, each time for less than what a frozen one is given.
      for (let burst = 0; burst < 2; burst++) {
        for (const workerId of gang) {
          signal(workerId, 'SIGSTOP');
          await sleep(400);
          signal(workerId, 'SIGCONT');
          await sleep(50);
        }
      }
      // Least wanted of all on a machine where every processor is taken.
      const pid = cluster.workers.get(first)?.process.pid ?? 0;
      setPriority(pid, constants.priority.PRIORITY_LOW);
      const busy = [0, 1].map(() => spawn(process.execPath, ['-e', 'for (;;);'], { stdio: 'ignore' }));
      await sleep(2_000);
      for (const child of busy) child.kill('SIGKILL');
      expect((await cluster.status(plan.runId)).state).toBe('running');
      expect(await cluster.busyWorkers()).toEqual([first, second]);
    });
    expect(status.incidents).toEqual([]);
  });
});

describe('complaint 7: a restart of the controller marks healthy work as failed', () => {
  it('a gang under way is attached to again: no incident, the same attempt', async () => {
    const { status } = await tuneAgain([], 40, async () => {
      await cluster.controller.kill('SIGKILL');
      await cluster.startController();
    });
    expect(status.incidents).toEqual([]);
    expect(status.stages.flatMap(({ jobs }) => jobs).find(({ kind }) => kind === 'tune')?.epoch).toBe(1);
  });
});

describe('a gang of one that is lost with its newest checkpoint', () => {
  /** By step, the losses that were told for it: more than one where it was computed again. */
  const losses = new Map<number, Set<number>>();
  let damagedStep = 0;
  let status: RunStatus;

  beforeAll(async () => {
    const note = ({ jobEvent }: WatchRunResponse__Output): boolean => {
      const step = jobEvent?.jobId.endsWith('/tune') === true ? jobEvent.step : null;
      if (step == null) return false;
      losses.set(step.step, (losses.get(step.step) ?? new Set()).add(step.metrics['loss'] ?? NaN));
      return step.step === STEPS;
    };
    let heard: Promise<unknown> = Promise.resolve();
    ({ status } = await tuneAgain(['fleet.workers.max=1'], 130, async (workerId, plan) => {
      heard = cluster.firstEvent(plan.runId, note);
      await eventually('a checkpoint of step 100, and one before', async () => {
        const checkpoints = await cluster.store.listCheckpoints(tuneKey);
        return checkpoints.length > 1 && (checkpoints.at(-1)?.step ?? 0) >= 100 ? true : null;
      });
      // Nobody may read the checkpoint before it is damaged.
      cluster.controller.process.kill('SIGSTOP');
      await cluster.workers.get(workerId)?.kill('SIGKILL');
      damagedStep = await cutNewestCheckpoint();
      cluster.controller.process.kill('SIGCONT');
    }));
    await heard;
    await expectFleetWhole();
  });

  /** Cuts a file of the newest checkpoint in half, as a crash of the machine may; answers its step. */
  async function cutNewestCheckpoint(): Promise<number> {
    const newest = (await cluster.store.listCheckpoints(tuneKey)).at(-1);
    if (newest === undefined) throw new Error('expected a checkpoint');
    const manifest = (await cluster.store.readJson(newest.manifestDigest)) as unknown as CheckpointManifest;
    const sizes = await Promise.all(
      Object.values(manifest.files).map(async (digest) => ({
        path: await cluster.store.localPath(digest),
        size: (await cluster.store.readBytes(digest)).length,
      })),
    );
    const largest = sizes.sort((a, b) => b.size - a.size)[0];
    if (largest === undefined) throw new Error('expected a file in the checkpoint');
    await truncate(largest.path, largest.size / 2);
    return newest.step;
  }

  describe('complaint 11: a half-written checkpoint poisons every later resume', () => {
    it('the damage is noticed, and the one before is gone on from', () => {
      expect(status.incidents).toMatchObject([{ cause: 'worker_lost' }]);
      const [incident] = status.incidents;
      expect(incident?.resumedFromStep).toBeGreaterThan(0);
      expect(incident?.resumedFromStep).toBeLessThan(damagedStep);
    });
  });

  describe('complaint 12: a resumed run diverges', () => {
    it('what is computed again has the very losses that it had', () => {
      const again = [...losses.values()].filter((values) => values.size > 0);
      expect(again.length).toBeGreaterThan(100);
      for (const values of losses.values()) expect(values.size).toBe(1);
      expect(status.incidents[0]?.resumedFromStep).toBeLessThan(status.incidents[0]?.failedAtStep ?? 0);
    });
  });
});

describe('complaint 13: gangs lock each other out, or start in part', () => {
  it('two runs that each need two of three workers both get them whole, one after the other', async () => {
    const settings = ['fleet.workers.min=2', 'tune.batchSequences=32'];
    const plans = await Promise.all(
      [150, 151].map((steps) => cluster.plan([...settings, `tune.steps=${String(steps)}`])),
    );
    await Promise.all(plans.map((plan) => cluster.run(plan)));
    for (const { runId } of plans) {
      expect((await cluster.status(runId)).incidents).toEqual([]);
      const starts = (await notesOf(runId)).filter((note) => note.includes('/tune epoch'));
      expect(starts.length).toBeGreaterThan(0);
      for (const start of starts) expect(start).toMatch(/started on w-\d, w-\d/);
    }
    await expectFleetWhole();
  });
});

describe('complaint 15: what was given up goes on and writes', () => {
  it('a controller that is stopped while another takes over changes nothing when it goes on: it ends', async () => {
    const { plan, status } = await tuneAgain(['fleet.workers.max=2'], 40, async (_workerId, { runId }) => {
      const stopped = cluster.controller;
      stopped.process.kill('SIGSTOP');
      const stoppedMs = Date.now();
      const second = await cluster.startSecondController();
      relay.redirect(second.port);
      // Who writes this has taken over: the first one cannot.
      await eventually(
        'the end of the tuning, heard by the second controller',
        async () => ((await cluster.store.readRunEvents(runId)).some(({ type }) => type === 'finished') ? true : null),
        90_000,
      );
      await sleep(Math.max(0, stoppedMs + (HELD_UP_SECONDS + 2) * 1_000 - Date.now()));
      stopped.process.kill('SIGCONT');
      await stopped.exited;
      expect(stopped.logTail()).toContain('held up for');
    });
    expect(status.incidents).toEqual([]);
    expect(status.stages.flatMap(({ jobs }) => jobs).find(({ kind }) => kind === 'tune')?.epoch).toBe(1);
    // Nothing is told twice.
    const told = (await cluster.store.readRunEvents(plan.runId)).flatMap(({ job, epoch, rank, sequence }) =>
      sequence === undefined ? [] : [JSON.stringify([job, epoch, rank, sequence])],
    );
    expect(new Set(told).size).toBe(told.length);
    expect((await notesOf(plan.runId)).filter((note) => note === 'run done')).toHaveLength(1);
  });
});
