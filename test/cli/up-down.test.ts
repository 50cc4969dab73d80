/** The local installation as a whole: what dies is started again, and `down` leaves nothing. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';

import { type ProcessRecord, type ProcessTable } from '../../orchestrator/cli/home.js';
import { isAlive, sendSignal } from '../../orchestrator/cli/process-control.js';
import { noPrometheus } from '../support/prometheus.js';
import { cli, cliStarted, eventually, temporaryHome } from '../support/cli.js';

function tableOf(home: string): ProcessTable {
  return JSON.parse(readFileSync(join(home, 'processes.json'), 'utf8')) as ProcessTable;
}

function recordsOf(table: ProcessTable): ProcessRecord[] {
  const { supervisor, temporal, controller, prometheus, workers } = table;
  return [supervisor, temporal, controller, prometheus, ...workers].filter((record) => record !== null);
}

async function upIn(home: string, flags: string[] = []): Promise<ProcessTable> {
  const { code, stderr } = await cli(['up', '--workers', '1', '--home', home, ...flags]);
  expect(code, stderr).toBe(0);
  return tableOf(home);
}

/** Job and worker of every target that Prometheus scrapes with success. */
async function scrapedBy(address: string): Promise<string[]> {
  const response = await fetch(`http://${address}/api/v1/query?query=${encodeURIComponent('up == 1')}`).catch(
    () => null,
  );
  if (response?.ok !== true) return [];
  const { data } = (await response.json()) as { data: { result: { metric: { job: string; worker?: string } }[] } };
  return data.result.map(({ metric: { job, worker } }) => (worker === undefined ? job : `${job} ${worker}`));
}

describe('up and down', () => {
  const home = temporaryHome();
  afterAll(async () => {
    await cli(['down', '--home', home.path]);
    home.remove();
  });

  test('everything that is killed comes back at its address, and down stops it all', async () => {
    const monitoring = noPrometheus() === null;
    const before = await upIn(home.path, monitoring ? ['--monitoring'] : []);
    for (const name of ['temporal', 'controller', ...(monitoring ? (['prometheus'] as const) : [])] as const) {
      const victim = before[name];
      if (victim === null) throw new Error(`no ${name} in the table`);
      expect(sendSignal(victim, 'SIGKILL')).toBe(true);
      await eventually(`a new ${name}`, () => {
        const now = tableOf(home.path)[name];
        return now !== null && now.pid !== victim.pid && now.restarts > 0 ? now : null;
      });
    }
    const [worker] = before.workers;
    if (worker === undefined) throw new Error('no worker in the table');
    sendSignal(worker, 'SIGKILL');
    await eventually('the worker in the fleet again', async () => {
      const { stdout } = await cli(['doctor', '--home', home.path, '-o', 'json']);
      const checks = JSON.parse(stdout) as { name: string; state: string; detail: string }[];
      const found = checks.find((check) => check.name === 'worker w-1' && !check.detail.includes(`pid ${worker.pid},`));
      return found ?? null;
    });
    const after = tableOf(home.path);
    expect(after.addresses).toEqual(before.addresses);
    expect((await cli(['ls', '--home', home.path])).code).toBe(0);
    const { prometheus } = after.addresses;
    if (prometheus !== null) {
      // Each process is found where it is now, and the rules are there.
      await eventually('scrapes of controller and worker', async () => {
        const ups = await scrapedBy(prometheus);
        return ups.includes('collimate-controller') && ups.includes('collimate-worker w-1') ? ups : null;
      });
      const alerts = await fetch(`http://${prometheus}/api/v1/rules?type=alert`);
      expect(await alerts.text()).toContain('"name":"StepStalled"');
    }

    const down = await cli(['down', '--home', home.path]);
    expect(down.code, down.stderr).toBe(0);
    expect([...recordsOf(before), ...recordsOf(after)].filter(isAlive)).toEqual([]);
  });

  test('down also stops what a killed supervisor left behind', async () => {
    const table = await upIn(home.path);
    sendSignal(table.supervisor, 'SIGKILL');
    await eventually('the end of the supervisor', () => (isAlive(table.supervisor) ? null : true));
    expect(recordsOf(table).filter(isAlive).length).toBeGreaterThan(0);
    const down = await cli(['down', '--home', home.path]);
    expect(down.code, down.stderr).toBe(0);
    expect(recordsOf(table).filter(isAlive)).toEqual([]);
  });
});

describe('the demo', () => {
  test.each(['SIGINT', 'SIGKILL'] as const)('%s in its middle leaves nothing running', async (signal) => {
    const home = temporaryHome();
    const { child, ended } = cliStarted([
      'demo',
      '--home',
      home.path,
      '--file',
      join('deploy', 'examples', 'tiny.yaml'),
    ]);
    const table = await eventually('a demo that is up', () => {
      try {
        const now = tableOf(join(home.path, 'demo'));
        return now.state === 'ready' ? now : null;
      } catch {
        return null;
      }
    });
    child.kill(signal);
    const { code } = await ended;
    if (signal === 'SIGINT') expect(code).toBe(4);
    await eventually('the end of every process', () => (recordsOf(table).some(isAlive) ? null : true));
    home.remove();
  });
});
