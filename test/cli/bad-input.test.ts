/** Bad input to the command line: one clear error each, the right exit code, nothing started and nothing lost. */
import { existsSync, mkdirSync, readdirSync, writeFileSync } from 'node:fs';
import { createServer, type AddressInfo } from 'node:net';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';

import { type ProcessTable } from '../../orchestrator/cli/home.js';
import { cli, temporaryHome } from '../support/cli.js';

const TINY = join('deploy', 'examples', 'tiny.yaml');

describe('with nothing up', () => {
  const home = temporaryHome();
  afterAll(home.remove);

  test.each([
    ['run', TINY],
    ['ls'],
    ['status', 'some-run'],
    ['watch', 'some-run'],
    ['cancel', 'some-run'],
    ['pause', 'some-run'],
    ['resume', 'some-run'],
    ['scale', 'some-run', '--max', '2'],
    ['approve', 'some-run'],
    ['verify', 'some-run'],
    ['sweep', join('deploy', 'examples', 'sweep.yaml')],
    ['ablate', TINY],
  ])('%s: exit 6, and says how to start', async (...args) => {
    const { code, stdout, stderr } = await cli([...args, '--home', home.path]);
    expect(stderr).toContain(`nothing is up in ${home.path}; start it with "collimate up"`);
    expect(stdout).toBe('');
    expect(code).toBe(6);
  });

  test.each([
    ['an unknown command', ['rnu'], /unknown command 'rnu'\s+\(Did you mean run\?\)/],
    ['an unknown option', ['up', '--wrokers', '3'], /unknown option '--wrokers'/],
    [
      'a number that is none',
      ['up', '--workers', 'many'],
      /--workers: expected a whole number from 0 to 1000, got "many"/,
    ],
    ['an output that is none', ['ls', '-o', 'xml'], /argument 'xml' is invalid/],
    ['no run file', ['run'], /expected a run file/],
    ['no sweep file', ['sweep', 'none.yaml'], /none\.yaml: expected a sweep file \(YAML\), but .*no such file/],
    ['a part that is none', ['ablate', TINY, '--part', 'levles'], /got "levles"; did you mean "levels"\?/],
  ])('%s: exit 2', async (_name, args, message) => {
    const { code, stderr } = await cli([...args, '--home', home.path]);
    expect(stderr).toMatch(message);
    expect(code).toBe(2);
  });

  test('a list before anything was published, and the log of a run that never was: exit 3', async () => {
    const list = await cli(['recommend', 'someone', '--home', home.path]);
    expect(list.stderr).toContain('nothing has been published');
    expect(list.code).toBe(3);
    const log = await cli(['logs', 'some-run', '--home', home.path]);
    expect(log.stderr).toContain('there is none called "some-run"');
    expect(log.code).toBe(3);
  });

  test('a home that cannot be written: exit 2', async () => {
    const file = join(home.path, 'a-file');
    writeFileSync(file, '');
    const { code, stderr } = await cli(['up', '--workers', '0', '--home', join(file, 'home')]);
    expect(stderr).toContain('expected a folder that can be written');
    expect(code).toBe(2);
  });

  test('a Temporal program that is none: exit 2', async () => {
    const env = { COLLIMATE_TEMPORAL: join(home.path, 'no-such-program') };
    const { code, stderr } = await cli(['up', '--workers', '0', '--home', home.path], { env });
    expect(stderr).toContain('COLLIMATE_TEMPORAL names');
    expect(code).toBe(2);
  });

  test('a port in use: exit 2, and nothing is left running', async () => {
    const server = createServer();
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    const { port } = server.address() as AddressInfo;
    const { code, stderr } = await cli(['up', '--workers', '0', '--temporal-port', String(port), '--home', home.path]);
    server.close();
    expect(stderr).toContain(`expected a free port for --temporal-port, but 127.0.0.1:${port} is in use`);
    expect(code).toBe(2);
    expect(existsSync(join(home.path, 'processes.json'))).toBe(false);
  });

  test('a server that does not answer: exit 6', async () => {
    const other = temporaryHome();
    const record = { pid: process.pid, startMark: await startMark() };
    const table = {
      state: 'ready',
      supervisor: record,
      workers: [],
      addresses: { temporal: '127.0.0.1:1', ui: null, controller: '127.0.0.1:1', controllerMetrics: '127.0.0.1:1' },
    };
    writeFileSync(join(other.path, 'processes.json'), JSON.stringify(table));
    const { code, stderr } = await cli(['ls', '--home', other.path]);
    other.remove();
    expect(stderr).toContain('expected a Temporal server at 127.0.0.1:1, but it does not answer');
    expect(code).toBe(6);
  });
});

describe('with servers up', () => {
  const home = temporaryHome();
  let table: ProcessTable;
  beforeAll(async () => {
    const { code, stdout, stderr } = await cli(['up', '--workers', '0', '--home', home.path, '-o', 'json']);
    expect(code, stderr).toBe(0);
    table = JSON.parse(stdout) as ProcessTable;
  });
  afterAll(async () => {
    await cli(['down', '--home', home.path]);
    home.remove();
  });

  const runIn = (name: string, text: string, ...args: string[]) => {
    const file = join(home.path, name);
    writeFileSync(file, text);
    return cli(['run', file, '--home', home.path, ...args]);
  };
  const storedRuns = (): string[] => {
    const runs = join(home.path, 'store', 'runs');
    return existsSync(runs) ? readdirSync(runs) : [];
  };

  test.each([['status'], ['watch'], ['cancel'], ['pause'], ['resume'], ['scale', '--max', '2'], ['approve']])(
    '%s of an unknown run: exit 3',
    async (command, ...flags) => {
      const { code, stderr } = await cli([command, 'no-such-run', ...flags, '--home', home.path]);
      expect(stderr).toMatch(/no-such-run: there is no such run/);
      expect(code).toBe(3);
    },
  );

  test.each([
    [
      'a wrong key',
      'name: t\ndata: { simulate: {} }\ntune:\n  stepss: 3\n',
      /wrong\.yaml:4:3: unknown key "stepss"; did you mean "steps"\?/,
    ],
    ['a missing data folder', 'name: t\ndata: nowhere\n', /wrong\.yaml:2:7: data: expected a data folder at .*nowhere/],
    [
      'a missing model folder',
      'name: t\ndata: { simulate: {} }\nmodel: { base: llm }\n',
      /wrong\.yaml:3:16: model\.base: expected a Hugging Face model folder/,
    ],
    ['an empty run file', '', /wrong\.yaml:1:1: expected a run file \(YAML\), but the file is empty/],
  ])('%s: exit 2, and no run is begun', async (_name, text, message) => {
    const { code, stderr } = await runIn('wrong.yaml', text);
    expect(stderr).toMatch(message);
    expect(code).toBe(2);
    expect(storedRuns()).toEqual([]);
  });

  test('a missing run file, and an empty data file: exit 2', async () => {
    const missing = await cli(['run', join(home.path, 'none.yaml'), '--home', home.path]);
    expect(missing.stderr).toContain('there is no such file');
    expect(missing.code).toBe(2);
    mkdirSync(join(home.path, 'data'));
    writeFileSync(join(home.path, 'data', 'sequences.txt'), '');
    writeFileSync(join(home.path, 'data', 'items.tsv'), 'item_id\ttitle\n');
    const empty = await cli(['run', TINY, '--data', join(home.path, 'data'), '--home', home.path]);
    expect(empty.stderr).toMatch(/expected a behaviour log at .*sequences\.txt, but the file is empty/);
    expect(empty.code).toBe(2);
  });

  test('no worker free: the run fails with exit 1 and says so', async () => {
    const { code, stderr } = await cli(['run', TINY, '--set', 'fleet.waitSeconds=1', '--home', home.path]);
    expect(stderr).toMatch(/failed: .*worker/);
    expect(code).toBe(1);
  });

  test('a decision about a run that publishes without approval: exit 2', async () => {
    const { stdout } = await cli(['run', TINY, '--detach', '--home', home.path]);
    const runId = stdout.trim();
    const { code, stderr } = await cli(['approve', runId, '--home', home.path]);
    expect(stderr).toContain('this run publishes without approval');
    expect(code).toBe(2);
    expect((await cli(['cancel', runId, '--home', home.path])).code).toBe(0);
  });

  test('up again changes nothing', async () => {
    const again = await cli(['up', '--home', home.path, '-o', 'json']);
    expect(again.code).toBe(0);
    expect(again.stderr).toContain('already up');
    expect((JSON.parse(again.stdout) as ProcessTable).supervisor).toEqual(table.supervisor);
  });
});

async function startMark(): Promise<string> {
  const { startMarkOf } = await import('../../orchestrator/cli/process-control.js');
  return startMarkOf(process.pid);
}
