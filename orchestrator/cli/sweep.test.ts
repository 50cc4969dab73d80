import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';

import { type RunPlan, type StageName } from '../../workflows/contract.js';
import { defaultRecipes } from '../recommender/default-recipes.js';
import { resolveRecipes } from '../recommender/resolve-recipes.js';
import { ABLATIONS, ablationSweep, WHOLE } from './ablation.js';
import { CliError } from './cli-error.js';
import { projectRoot } from './project-paths.js';
import { loadRunFile } from './run-file.js';
import { resolveRun } from './run-plan.js';
import { cellsOf, loadSweepFile, parseSweepFile } from './sweep-file.js';
import { resolveSweep, stagePrefixes, storeSweep } from './sweep-plan.js';
import { chooseBest, describeSweep, validationOf, numericsClassesOf, type SweepReport } from './sweep-report.js';
import { nextToStart } from './sweep-schedule.js';

const TINY = join(projectRoot, 'deploy', 'examples', 'tiny.yaml');

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'collimate-sweep-'));
  writeFileSync(join(folder, 'tiny.yaml'), readFileSync(TINY));
});
afterAll(() => rmSync(folder, { recursive: true }));

const sweepOf = (text: string) => parseSweepFile(join(folder, 'sweep.yaml'), `name: s\nbase: tiny.yaml\n${text}`);

/** A store that names every file alike and has no run. */
const STORE = { putFile: () => Promise.resolve('digest'), readRunFile: () => Promise.resolve(null) };

async function runsOf(text: string) {
  return storeSweep(resolveSweep(sweepOf(text), 32), STORE);
}

function messageOf(action: () => unknown): string {
  try {
    action();
  } catch (error) {
    if (!(error instanceof CliError)) throw error;
    expect(error.exitCode).toBe(2);
    return error.message.replaceAll(`${folder}/`, '');
  }
  return '';
}

describe('axes', () => {
  const text = `axes:
  codebooks.levels: [2, 3]
  text: { with: { codebooks.textWeight: 1 }, without: { embed.text: false } }\n`;

  test('a grid is every combination, the last axis fastest', () => {
    const cells = cellsOf(sweepOf(text), 32);
    expect(cells.map(({ values }) => Object.values(values).join(' '))).toEqual([
      ...['2 with', '2 without', '3 with', '3 without'],
    ]);
    expect(cells[3]?.settings).toEqual({ 'codebooks.levels': 3, 'embed.text': false });
  });

  test('zip pairs values', () => {
    const cells = cellsOf(sweepOf(`combine: zip\n${text}`), 32);
    expect(cells.map(({ values }) => Object.values(values))).toEqual([
      ['2', 'with'],
      ['3', 'without'],
    ]);
  });

  test.each([
    ['an empty axis', 'axes: { seed: [] }', 'sweep.yaml: axes.seed: expected at least one value, got none'],
    ['no axis', 'axes: {}', 'sweep.yaml: axes: expected at least one axis, got none'],
    ['a value twice', 'axes: { seed: [1, 1] }', 'sweep.yaml: axes.seed: expected different values, got 1 twice'],
    ['an axis of one value alone', 'axes: { seed: 3 }', 'sweep.yaml: axes.seed: Invalid input'],
    ['an unknown key', 'axis: { seed: [1] }', 'Unrecognized key: "axis"'],
    ['no YAML', 'axes: [', 'sweep.yaml:3:8: '],
    [
      'zip of other lengths',
      'combine: zip\naxes: { seed: [1, 2], rank.beams: [20] }',
      'sweep.yaml: axes: expected as many values of each axis with "combine: zip", got seed: 2, rank.beams: 1',
    ],
    [
      'too many runs',
      'axes: { seed: [1, 2, 3, 4, 5, 6], rank.beams: [20, 21, 22, 23, 24, 25] }',
      'sweep.yaml: expected at most 32 runs, got 36 (6 x 6); leave values out, or allow them with --max-runs 36',
    ],
    [
      'an unknown path',
      'axes: { codebooks.levles: [2, 3] }',
      'sweep.yaml: setting codebooks.levles=2: unknown key "levles"; did you mean "levels"?',
    ],
    [
      'a bad value, and one that does not fit the rest',
      'axes: { rank.topK: [many, 1000] }',
      /setting rank\.topK="many": .*expected a number, got "many"\n.*setting rank\.topK=1000: .*at most beams \(20\), got 1000/,
    ],
    [
      'a metric that the runs do not have',
      'metric: hr@7\naxes: { seed: [1] }',
      'sweep.yaml: metric: expected one of the cut-offs that all runs have (evaluate.k: 1, 5, 10, 20), got 7',
    ],
  ])('%s is bad input', (_name, yaml, message) => {
    const got = messageOf(() => resolveSweep(sweepOf(yaml), 32));
    if (typeof message === 'string') expect(got).toContain(message);
    else expect(got).toMatch(message);
  });
});

test('the examples are what they say', async () => {
  const examples = join(projectRoot, 'deploy', 'examples');
  const runs = await storeSweep(resolveSweep(loadSweepFile(join(examples, 'sweep.yaml')), 32), STORE);
  expect(runs.map(({ cells }) => Object.values(cells[0]?.values ?? {}).join(' '))).toEqual([
    ...['2 with', '2 without', '3 with', '3 without'],
  ]);
  const prefixes = runs.map(({ plan }) => stagePrefixes(plan));
  expect(new Set(prefixes.map(({ ingest }) => ingest)).size).toBe(1);
  expect(loadRunFile(join(examples, 'csv.yaml')).value.data).toMatchObject({ format: 'csv' });
});

describe('the runs of a sweep', () => {
  test('have ids that are the same in every go, and one run stands for equal plans', async () => {
    const text = 'axes: { tune.steps: [10, 20], beams: { a: { rank.beams: 20 }, b: {} } }\n';
    const runs = await runsOf(text);
    expect(runs).toHaveLength(2);
    expect(runs.map(({ cells }) => cells.length)).toEqual([2, 2]);
    expect((await runsOf(text)).map(({ plan }) => plan.runId)).toEqual(runs.map(({ plan }) => plan.runId));
    expect(runs.every(({ plan }) => /^s-[0-9a-f]{12}$/.test(plan.runId) && !plan.publish)).toBe(true);
  });

  test('keep to few workers each when several run at once', async () => {
    const max = async (text: string) => (await runsOf(`${text}\naxes: { seed: [1] }`))[0]?.plan.fleet.max;
    expect(await max('parallel: 1')).toBe(4);
    expect(await max('parallel: 2')).toBe(1);
    expect(await max('parallel: 2\nworkers: 3')).toBe(3);
  });

  test('share the stages in which they do not differ', async () => {
    const plans = (await runsOf('axes: { codebooks.levels: [2, 3], rank.beams: [20, 30] }\n')).map(({ plan }) => plan);
    const shared = (a: number, b: number): string[] => {
      const [first, second] = [stagePrefixes(plans[a] as RunPlan), stagePrefixes(plans[b] as RunPlan)];
      return Object.keys(first).filter((stage) => first[stage as StageName] === second[stage as StageName]);
    };
    expect(shared(0, 1)).toEqual(['ingest', 'embed', 'align_tokens', 'align_tasks']);
    expect(shared(0, 2)).toEqual(['ingest', 'embed']);
  });

  test('start when what they share with those under way is done, and no more than may', async () => {
    const prefixes = (await runsOf('axes: { codebooks.levels: [2, 3], rank.beams: [20, 30] }\n')).map(({ plan }) =>
      stagePrefixes(plan),
    );
    const [first, ...waiting] = prefixes;
    if (first === undefined) throw new Error('no runs');
    const next = (done: StageName[], parallel = 2): number =>
      nextToStart(waiting, { parallel, underWay: [{ prefixes: first, done: new Set(done) }] });
    expect(next([])).toBe(-1);
    expect(next(['ingest'])).toBe(-1);
    // The second one has its codes in common with the first; the third has not.
    expect(next(['ingest', 'embed'])).toBe(1);
    expect(next(['ingest', 'embed', 'align_tokens', 'align_tasks'])).toBe(0);
    expect(next(['ingest', 'embed', 'align_tokens', 'align_tasks'], 1)).toBe(-1);
    expect(nextToStart(waiting, { parallel: 1, underWay: [] })).toBe(0);
  });
});

describe('the choice of the best', () => {
  const row = (runId: string, validation: number | null) => ({ runId, validation, state: 'done' as const });
  const metric = { kind: 'ndcg', k: 10 } as const;

  test('is by validation events, the first of equals', () => {
    const { best } = chooseBest([row('a', 0.1), row('b', 0.3), row('c', 0.3)], metric);
    expect(best).toBe('b');
  });

  test("takes the model's own value on the events that the fusion was fitted on", () => {
    const summary = { validation: { ndcg: { model: 0.07, dense: 0.1 }, fused: 0.11 } };
    const jobs = { fit_fusion: { key: 'k', outputs: {}, summary } };
    const result = { runId: 'r', jobs } as unknown as NonNullable<Parameters<typeof validationOf>[0]['result']>;
    expect(validationOf({ result }, metric)).toBe(0.07);
    expect(validationOf({ result }, { kind: 'hr', k: 10 })).toBeNull();
    expect(validationOf({ result: { ...result, jobs: {} } }, metric)).toBeNull();
    expect(validationOf({ result: null }, metric)).toBeNull();
  });

  test('is not made where a run has none: never by test events', () => {
    const report: SweepReport = {
      ...{ name: 's', metric, axes: ['x'], heldAgainst: 'r-0.1' },
      rows: [0.1, 0.9].map((value) => ({
        ...row(`r-${value}`, null),
        ...{ values: { x: '1' }, failure: null, seconds: 1, resultDigest: null, numericsClass: `class-${value}` },
        test: { hr: { model: value }, ndcg: { model: value } },
      })),
      ...chooseBest([row('a', null)], metric),
    };
    expect(report.best).toBeNull();
    expect(numericsClassesOf(report)).toEqual(['class-0.1', 'class-0.9']);
    expect(describeSweep(report)).toContain('+0.8000');
    expect(describeSweep(report)).toContain('no best is named: these runs have no metrics on validation events');
  });
});

describe('ablation', () => {
  const options = { file: TINY, name: 'tiny', parts: [], parallel: 1, common: {} };
  const plansRecipes = (recipes: object) => recipes as RunPlan['recipes'];

  test('every part of the tiny run can be switched off, and comes to a plan of its own', async () => {
    const { recipes } = resolveRun(loadRunFile(TINY), { baseFolder: folder }).plan;
    const { sweep, skipped } = ablationSweep(recipes, options);
    // The encoder, the alignment and the tasks that the run does not have.
    expect(skipped.map(({ name }) => name)).toEqual([
      'encoder',
      'alignment',
      'token-rows',
      'task-text',
      'task-query',
      'task-negative',
      'task-ranking',
    ]);
    const parts = ABLATIONS.filter(({ name }) => !skipped.some((part) => part.name === name));
    expect(sweep.axes[0]?.values.map(({ label }) => label)).toEqual([
      WHOLE,
      ...parts.map(({ name }) => `without ${name}`),
    ]);
    const runs = await storeSweep(resolveSweep(sweep, 100), STORE);
    expect(runs).toHaveLength(parts.length + 1);
  });

  test('without texts there is no alignment either', async () => {
    const recipes = resolveRecipes({ alignment: { weight: 0.1 } });
    const common = { 'codebooks.alignment.weight': 0.1 };
    const { sweep } = ablationSweep(plansRecipes(recipes), {
      ...options,
      common,
      parts: ['text-vectors', 'alignment'],
    });
    const plans = (await storeSweep(resolveSweep(sweep, 100), STORE)).map(({ plan }) => plan.recipes);
    expect(plans.map(({ textVectors, alignment }) => [textVectors !== null, alignment !== null])).toEqual([
      [true, true],
      [false, false],
      [true, false],
    ]);
  });

  test('a run in which every part is off has nothing to ablate, and says why of each', () => {
    const off = resolveRecipes({
      textVectors: null,
      dccf: { layers: 1, intents: 0, intentWeight: 0, contrastWeight: 0 },
      codebooks: { levels: 1, iterations: 1 },
      render: { tasks: { sequential: { templates: ['one {history}'] } }, historyItemsMax: 1 },
    });
    const message = messageOf(() => ablationSweep(plansRecipes(off), options));
    for (const { name } of ABLATIONS) expect(message).toContain(`${name}: `);
  });

  test('leaves out with the reason what a run does not have', () => {
    const tasks = { text: { weight: 1 }, query: { weight: 1 }, negative: { weight: 1 }, ranking: { weight: 1 } };
    const recipes = resolveRecipes({ textVectors: null, rqvae: { latentDim: 16 }, render: { tasks } });
    const { skipped, sweep } = ablationSweep(plansRecipes(recipes), options);
    expect(skipped.map(({ name }) => name)).toEqual([
      'text-vectors',
      'collaborative-vectors',
      'alignment',
      'token-rows',
    ]);
    const settingsOf = (part: string): unknown =>
      sweep.axes[0]?.values.find(({ label }) => label === `without ${part}`)?.settings;
    expect(settingsOf('encoder')).toEqual({ 'codebooks.rqvae': false });
    expect(settingsOf('task-query')).toEqual({
      'render.tasks.query.weight': 0,
    });
  });

  test('a part that is not known is bad input', () => {
    const message = messageOf(() => ablationSweep(plansRecipes(defaultRecipes()), { ...options, parts: ['levles'] }));
    expect(message).toMatch(/--part: expected one of text-vectors, .* got "levles"; did you mean "levels"\?/);
  });
});
