/**
 * An operator's day, on a local installation: a run that is scaled, loses a worker, waits for approval, and is asked about
 * before, during and after; at last with every server gone.
 */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';

import { openStore } from '../../orchestrator/artifacts/store.js';
import { type ProcessTable } from '../../orchestrator/cli/home.js';
import { sendSignal } from '../../orchestrator/cli/process-control.js';
import { type Incident, type JsonObject, type RunStatus } from '../../workflows/contract.js';
import { cli, cliStarted, eventually, temporaryHome, type CliResult } from '../support/cli.js';

const SETTINGS = ['tune.steps=900', 'tune.batchSequences=128', 'fleet.workers.max=1', 'publish.approval=true'];
/** The workers that `up` starts are w-1, w-2, … */
const WORKERS = 2;

describe('operating a run', () => {
  const home = temporaryHome();
  let runId = '';
  let victim = '';
  /** `watch`, from the start of the run to its end. */
  let watched: ReturnType<typeof cliStarted>;

  const command = (...args: string[]): Promise<CliResult> => cli([...args, '--home', home.path]);
  const json = async <T>(...args: string[]): Promise<T> => {
    const { code, stdout, stderr } = await command(...args, '-o', 'json');
    expect(code, stderr).toBe(0);
    return JSON.parse(stdout) as T;
  };
  const statusWhen = (what: string, holds: (status: RunStatus) => boolean): Promise<RunStatus> =>
    eventually(
      what,
      async () => {
        const status = await json<RunStatus>('status', runId);
        return holds(status) ? status : null;
      },
      90_000,
    );
  /** From the store: a command takes about as long to start as some of this lasts. */
  const told = async (what: string, matches: (event: JsonObject) => boolean): Promise<true> => {
    const store = openStore(join(home.path, 'store'));
    return eventually(what, async () => ((await store.readRunEvents(runId)).some(matches) ? true : null), 90_000);
  };

  beforeAll(async () => {
    const up = await command('up', '--workers', String(WORKERS));
    expect(up.code, up.stderr).toBe(0);
    const file = join('deploy', 'examples', 'tiny.yaml');
    const settings = SETTINGS.flatMap((setting) => ['--set', setting]);
    runId = (await json<{ runId: string }>('run', file, '--detach', ...settings)).runId;
    watched = cliStarted(['watch', runId, '--home', home.path]);
  });
  afterAll(async () => {
    watched.child.kill('SIGKILL');
    await command('down');
    home.remove();
  });

  test('scale: a gang under way grows', async () => {
    await told('a step of the tuning', ({ type, job }) => type === 'step' && job === `${runId}/tune`);
    const { code, stdout, stderr } = await command('scale', runId, '--max', String(WORKERS));
    expect(code, stderr).toBe(0);
    expect(stdout).toContain('gangs of 1 to 2 workers from now on');
    await told('a gang of two', ({ type, epoch, rank }) => type === 'ready' && epoch === 2 && rank === 1);
    const grown = await json<RunStatus>('status', runId);
    const tune = grown.stages.flatMap(({ jobs }) => jobs).find(({ kind }) => kind === 'tune');
    expect(tune?.workers).toHaveLength(2);
    expect(grown.fleet).toEqual({ min: 1, max: 2, spares: 0 });
    // The stage under way is counted in.
    expect(grown.seconds['work']).toBeGreaterThan(0);
  });

  describe('complaint 4: nobody can say which node failed', () => {
    test('status names the worker, its rank, what was done and how long each phase took', async () => {
      const { workers } = JSON.parse(readFileSync(join(home.path, 'processes.json'), 'utf8')) as ProcessTable;
      const worker = workers.find(({ id }) => id === 'w-2');
      if (worker === undefined) throw new Error('expected a worker w-2 in the process table');
      victim = worker.id;
      expect(sendSignal(worker, 'SIGKILL')).toBe(true);
      await told('the end of a recovery', ({ type, state }) => type === 'incident' && state === 'closed');
      const { incidents } = await json<RunStatus>('status', runId);
      expect(incidents).toMatchObject([{ cause: 'worker_lost', workerId: victim, job: 'tune' }]);
      const { stdout } = await command('status', runId, '--incidents');
      expect(stdout).toMatch(new RegExp(`^worker +${victim}, rank [01]$`, 'm'));
      expect(stdout).toMatch(/^done +went on from step \d+ with [12] of 2 workers/m);
      for (const phase of ['detect', 'fence', 'reschedule', 'restore', 'first step', 'all']) {
        expect(stdout).toMatch(new RegExp(`^${phase} +\\d+\\.\\d{3}`, 'm'));
      }
      expect(stdout).toContain(`last lines of ${victim}:`);
    });
  });

  test.each([
    ['nothing to change', ['scale'], /expected at least one of --min, --max and --spares/],
    ['a number that is none', ['scale', '--max', 'two'], /--max: expected a whole number from 1 to 10000, got "two"/],
    ['a gang that cannot be', ['scale', '--min', '3'], /1 <= min <= max.*got min 3, max 2/],
  ])('%s: exit 2', async (_name, [name = '', ...flags], message) => {
    const { code, stdout, stderr } = await command(name, runId, ...flags);
    expect(stderr).toMatch(message);
    expect(stdout).toBe('');
    expect(code).toBe(2);
  });

  test('approve: the run waits, says so, is let through once, and cannot be changed when it is over', async () => {
    await statusWhen('a run that waits for approval', ({ state }) => state === 'waiting_for_approval');
    const waiting = await command('status', runId);
    expect(waiting.stdout).toContain(`collimate approve ${runId}`);
    expect(waiting.stdout).toMatch(/^goodput +\d+\.\d % of .*recovery:worker_lost/m);
    expect(waiting.stdout).toMatch(new RegExp(`tune#\\d+: worker_lost on ${victim} \\(rank [01]\\) at step \\d+`));
    // `watch` looks once in a while: what lasts shorter than that it cannot tell.
    await eventually('a watch that has told of the wait', () =>
      watched.stderrSoFar().includes('publishing waits for') ? true : null,
    );
    const approved = await command('approve', runId, '--note', 'seen by a person');
    expect(approved.code, approved.stderr).toBe(0);
    expect(approved.stdout).toContain('publication approved');
    await statusWhen('the end of the run', ({ state }) => state === 'done');
    for (const args of [['approve'], ['scale', '--max', '1'], ['pause']]) {
      const [name = '', ...flags] = args;
      const { code, stderr } = await command(name, runId, ...flags);
      expect(stderr).toContain(`run ${runId} is done; only a run under way can be changed`);
      expect(code).toBe(2);
    }
    expect((await command('logs', runId)).stdout).toContain('publication approved: seen by a person');
  });

  test('watch told of all this, and took nothing for a failure that is none', async () => {
    const result = await Promise.race([watched.ended, sleep(20_000, null, { ref: false })]);
    if (result === null) throw new Error('expected the end of "watch" with that of the run');
    const { code, stderr } = result;
    expect(code).toBe(0);
    expect(stderr).toMatch(/tune on w-1 waits with its state of step \d+: the gang changes/);
    expect(stderr).toMatch(/tune goes on from step \d+/);
    expect(stderr).toMatch(new RegExp(`! incident tune#\\d+: worker_lost on ${victim}`));
    expect(stderr).toMatch(/\+ incident tune#\d+ is over: went on from step/);
    expect(stderr).toContain(`publishing waits for "collimate approve ${runId}"`);
    expect(stderr.match(/publishing waits for/g)).toHaveLength(1);
    expect(stderr).not.toMatch(/^ *! .*waits with its state/m);
  });

  describe('complaint 9: the logs of a run vanish when it is over', () => {
    test('with every server gone the store still has status, incidents and log', async () => {
      const before = await json<RunStatus>('status', runId);
      expect((await command('down')).code).toBe(0);
      const after = await json<RunStatus>('status', runId);
      expect(after).toMatchObject({ state: 'done', result: before.result, seconds: before.seconds, failure: null });
      expect(after.stages.map(({ name, state }) => [name, state])).toEqual(
        before.stages.map(({ name, state }) => [name, state]),
      );
      const incidents = await json<Incident[]>('status', runId, '--incidents');
      expect(incidents).toEqual(before.incidents);
      expect(incidents[0]?.log.length).toBeGreaterThan(0);
      const { stdout } = await command('logs', runId);
      expect(stdout).toMatch(new RegExp(`incident tune#\\d+: worker_lost on ${victim}`));
      const unknown = await command('status', 'no-such-run');
      expect(unknown.stderr).toContain('nothing is up');
      expect(unknown.code).toBe(6);
    });
  });
});
