/** A sweep on a local installation: its command line is killed in the middle, and started again it goes on with the runs that there are. */
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';

import { type SweepReport } from '../../orchestrator/cli/sweep-report.js';
import { type RunStatus } from '../../workflows/contract.js';
import { cli, cliStarted, temporaryHome } from '../support/cli.js';

const SWEEP = `name: levels-beams
base: ${join(process.cwd(), 'deploy', 'examples', 'tiny.yaml')}
parallel: 2
set: { rank.shardPrompts: 512, tune.steps: 6, embed.epochs: 1, codebooks.iterations: 2, rank.searchLossPrompts: 0, fusion: false }
axes:
  codebooks.levels: [2, 3]
  rank.beams: [20, 24]
`;

describe('a sweep of two by two', () => {
  const home = temporaryHome();
  const file = join(home.path, 'sweep.yaml');
  const args = ['sweep', file, '--home', home.path, '-o', 'json'];
  beforeAll(async () => {
    writeFileSync(file, SWEEP);
    const { code, stderr } = await cli(['up', '--workers', '2', '--home', home.path]);
    expect(code, stderr).toBe(0);
  });
  afterAll(async () => {
    await cli(['down', '--home', home.path]);
    home.remove();
  });

  test('goes on after a kill, makes what runs share once, and ends in a table and plots', async () => {
    const first = cliStarted(args);
    await new Promise<void>((resolve, reject) => {
      let seen = '';
      first.child.stderr?.on('data', (chunk: Buffer) => {
        seen += chunk.toString();
        if (seen.includes('started as')) resolve();
      });
      first.child.once('close', () => reject(new Error(`the sweep ended before a run began:\n${seen}`)));
    });
    first.child.kill('SIGKILL');
    await first.ended;

    const { code, stdout, stderr } = await cli(args);
    expect(code, stderr).toBe(0);
    expect(stderr).toMatch(/codebooks\.levels 2, rank\.beams 20: (is under way|has its result)/);
    const report = JSON.parse(stdout) as SweepReport & { page: string };
    expect(report.rows.map(({ values, state }) => [...Object.values(values), state].join(' '))).toEqual([
      ...['2 20 done', '2 24 done', '3 20 done', '3 24 done'],
    ]);
    const digests = report.rows.map(({ resultDigest }) => resultDigest);
    expect(digests.every((digest) => digest !== null)).toBe(true);
    // Of so short a tuning the lists need not depend on the beam, but they do on the ids.
    expect(digests[0]).not.toBe(digests[2]);
    expect(report.rows.every(({ test: { ndcg } }) => typeof ndcg['model'] === 'number')).toBe(true);
    expect(readFileSync(report.page, 'utf8')).toContain('<svg');
    expect(existsSync(join(report.page, '..', 'runs.png'))).toBe(true);

    const made: Record<string, number> = {};
    for (const { runId } of report.rows) {
      const status = await cli(['status', runId, '--home', home.path, '-o', 'json']);
      for (const { kind, memoised } of (JSON.parse(status.stdout) as RunStatus).stages.flatMap(({ jobs }) => jobs)) {
        made[kind] = (made[kind] ?? 0) + (memoised ? 0 : 1);
      }
    }
    expect(made).toMatchObject({
      simulate: 1,
      ingest: 1,
      dccf: 1,
      text_vectors: 1,
      codebooks: 2,
      tune: 2,
      rank: 4,
    });

    const again = await cli(args);
    expect(again.stderr.match(/has its result/g)).toHaveLength(4);
    expect((JSON.parse(again.stdout) as SweepReport).rows).toEqual(report.rows);
  });

  test.each([
    [
      'an unknown path',
      '{ codebooks.levles: [1] }',
      [],
      /setting codebooks\.levles=1: unknown key "levles"; did you mean/,
    ],
    ['an empty axis', '{ seed: [] }', [], /axes\.seed: expected at least one value, got none/],
    ['too many runs', '{ seed: [1, 2, 3] }', ['--max-runs', '2'], /expected at most 2 runs, got 3/],
  ])('%s: exit 2, and nothing is begun', async (_name, axes, flags, message) => {
    const wrong = join(home.path, 'wrong.yaml');
    writeFileSync(wrong, `name: w\nbase: ${join(process.cwd(), 'deploy/examples/tiny.yaml')}\naxes: ${axes}\n`);
    const { code, stdout, stderr } = await cli(['sweep', wrong, ...flags, '--home', home.path]);
    expect(stderr).toMatch(message);
    expect(stdout).toBe('');
    expect(code).toBe(2);
  });
});
