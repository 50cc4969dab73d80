import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';

import { CliError } from './cli-error.js';
import { projectRoot } from './project-paths.js';
import { loadRunFile, parseRunFile } from './run-file.js';
import { runFileJsonSchema } from './run-file-schema.js';
import { makeRunId, PLAN_DEFAULTS, resolveRun, storeInputs } from './run-plan.js';

/** A store that names files so, and has no run. */
const storing = (name: (path: string) => string) => ({
  putFile: (path: string) => Promise.resolve(name(path)),
  readRunFile: () => Promise.resolve(null),
});
const PATHS = storing((path) => path);

function errorsOf(text: string, settings: string[] = []): string[] {
  try {
    const loaded = parseRunFile({ file: 'run.yaml', text, settings });
    resolveRun(loaded, { baseFolder: tmpdir() });
  } catch (error) {
    if (error instanceof CliError) {
      expect(error.exitCode).toBe(2);
      return error.message.split('\n');
    }
    throw error;
  }
  return [];
}

const SIMULATED = 'name: t\ndata: { simulate: {} }\n';

describe('errors name file, line and column', () => {
  test.each([
    [
      'an unknown key',
      `${SIMULATED}tune:\n  stepss: 10\n`,
      'run.yaml:4:3: unknown key "stepss"; did you mean "steps"?',
    ],
    [
      'an unknown key far from any',
      `${SIMULATED}fleet: { zzzzzzz: 1 }\n`,
      'run.yaml:3:10: unknown key "zzzzzzz"; expected one of: workers, waitSeconds',
    ],
    ['a wrong type', `${SIMULATED}tune:\n  steps: many\n`, 'run.yaml:4:10: tune.steps: expected a number, got "many"'],
    [
      'a fraction for a count',
      `${SIMULATED}codebooks: { codes: 2.5 }\n`,
      'run.yaml:3:21: codebooks.codes: expected a whole number, got 2.5',
    ],
    [
      'a value out of range',
      `${SIMULATED}tune: { dropout: 1.5 }\n`,
      'run.yaml:3:18: tune.dropout: expected a number less than 1, got 1.5',
    ],
    [
      'a list for a section',
      `${SIMULATED}codebooks: [1]\n`,
      'run.yaml:3:12: codebooks: expected keys and values, got a list',
    ],
    [
      'a wrong word',
      `${SIMULATED}rank: { scoreNormaliser: half }\n`,
      'run.yaml:3:26: rank.scoreNormaliser: expected one of "full", "valid", got "half"',
    ],
    ['a duplicate key', `${SIMULATED}name: u\n`, 'run.yaml:3:1: Map keys must be unique'],
    [
      'lanes that are no power of two',
      `${SIMULATED}tune: { lanes: 3, batchSequences: 9 }\n`,
      'run.yaml:3:16: tune.lanes: expected a power of two, got 3',
    ],
    [
      'a default that does not fit',
      `${SIMULATED}rank:\n  topK: 60\n`,
      'run.yaml:4:9: rank.topK: expected at most beams (50), got 60',
    ],
    [
      'a contrast without what it contrasts',
      `${SIMULATED}embed: { intents: 0, contrastWeight: 0 }\n`,
      'run.yaml:3:19: embed.intents: expected intentWeight and contrastWeight 0 beside intents 0, got 0.005 and 0',
    ],
    [
      'an autoencoder that never meets its codebooks',
      `${SIMULATED}codebooks: { rqvae: { steps: 10, warmupSteps: 11 } }\n`,
      'run.yaml:3:47: codebooks.rqvae.warmupSteps: expected at most steps (10), got 11',
    ],
    [
      'an alignment without texts',
      `${SIMULATED}embed: { text: false }\ncodebooks: { alignment: { weight: 0.1 } }\n`,
      'run.yaml:4:25: codebooks.alignment: expected item text vectors to align with, got "embed.text: false"; switch them on, or delete the alignment',
    ],
    [
      'text vectors of a model that knows nothing',
      `${SIMULATED}embed: { text: { from: model } }\n`,
      'run.yaml:3:24: embed.text.from: expected "tfidf" with a model that is trained from scratch, got "model"; a base that knows nothing yet has no text vectors',
    ],
    [
      'settings of the other kind of text vectors',
      `${SIMULATED}embed: { text: { tokensMax: 9 } }\n`,
      'run.yaml:3:18: expected only with from "model", got from "tfidf"; delete the line',
    ],
    [
      'a list of beams of another length than the levels',
      `${SIMULATED}rank: { beams: [64, 50, 50] }\n`,
      'run.yaml:3:16: rank.beams: expected a number or one width for each of the 4 levels, got 3 widths',
    ],
    [
      'a last width below the list',
      `${SIMULATED}rank: { beams: [64, 64, 64, 40] }\n`,
      'run.yaml:3:7: rank.topK: expected at most beams (of the last level, 40), got 50',
    ],
    [
      'a width that is no count',
      `${SIMULATED}rank: { beams: [64, 0, 50, 50] }\n`,
      'run.yaml:3:21: rank.beams.1: expected a number at least 1, got 0',
    ],
    [
      'a template that gives its answer away',
      `${SIMULATED}render:\n  tasks:\n    text: { templates: ['{history}: {title} => {item}'] }\n`,
      'run.yaml:5:25: render.tasks.text.templates.0: expected nothing of the next item before the "=>"',
    ],
    ['a missing data folder', 'name: t\ndata: no-such-folder\n', 'run.yaml:2:7: data: expected a data folder at'],
    [
      'a missing model folder',
      `${SIMULATED}model:\n  base: no-such-model\n`,
      'run.yaml:4:9: model.base: expected a Hugging Face model folder at',
    ],
    ['an empty file', '\n', 'run.yaml:1:1: expected a run file (YAML), but the file is empty'],
    ['a text instead of keys', 'hello\n', 'run.yaml:1:1: expected keys such as "name:" and "data:", got "hello"'],
  ])('%s', (_name, text, expected) => {
    expect(errorsOf(text)[0]).toContain(expected);
    expect(errorsOf(text)).toHaveLength(1);
  });

  test('a misspelt required key is named, and so is the one that is missing', () => {
    expect(errorsOf('name: t\ndate: { simulate: {} }\n')).toEqual([
      expect.stringContaining('run.yaml:1:1: missing key "data"'),
      'run.yaml:2:1: unknown key "date"; did you mean "data"?',
    ]);
  });

  test('of several forms, the errors are those of the form that was meant', () => {
    expect(errorsOf('name: t\ndata:\n  format: s3rec\n  interaction: a\n  items: b\n')).toEqual([
      expect.stringContaining('run.yaml:3:3: missing key "interactions"'),
      'run.yaml:4:3: unknown key "interaction"; did you mean "interactions"?',
    ]);
  });

  test('all errors come at once, in the order of the file', () => {
    const lines = errorsOf(`${SIMULATED}tune: { stepz: 1 }\nrank: { beams: 0 }\n`);
    expect(lines.map((line) => line.split(' ')[0])).toEqual(['run.yaml:3:9:', 'run.yaml:4:16:']);
  });

  test('a file that is not there', () => {
    expect(() => loadRunFile('no-such.yaml')).toThrow(
      /no-such\.yaml: expected a run file \(YAML\), but there is no such file/,
    );
  });
});

describe('--set', () => {
  test('overrides a value and makes the sections on the way', () => {
    const { value } = parseRunFile({
      file: 'r',
      text: 'name: t\ndata: folder\n',
      settings: ['tune.steps=7', 'data.simulate.items=9'],
    });
    expect(value.tune?.steps).toBe(7);
    expect(value.data).toEqual({ simulate: { items: 9 } });
  });

  test('its errors name the option', () => {
    expect(errorsOf(SIMULATED, ['tune.stepz=7'])).toEqual([
      '--set tune.stepz=7: unknown key "stepz"; did you mean "steps"?',
    ]);
    expect(errorsOf(SIMULATED, ['tune'])[0]).toContain('--set: expected key=value');
  });
});

describe('files', () => {
  let folder: string;
  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), 'collimate-run-file-'));
  });
  afterEach(() => rmSync(folder, { recursive: true }));

  const resolveIn = (text: string) => resolveRun(parseRunFile({ file: 'run.yaml', text }), { baseFolder: folder });

  test('a data folder tells its format, and its files become inputs', async () => {
    writeFileSync(join(folder, 'sequences.txt'), 'u 1 2 3\n');
    writeFileSync(join(folder, 'items.tsv'), 'item_id\ttitle\n');
    const run = resolveIn('name: t\ndata: .\n');
    expect(run.plan.recipes.ingest['format']).toBe('s3rec');
    expect(run.plan.recipes.simulate).toBeNull();
    const plan = await storeInputs(
      run,
      storing((path) => `digest of ${path}`),
    );
    expect(plan.inputs).toEqual({
      interactions: `digest of ${join(folder, 'sequences.txt')}`,
      items: `digest of ${join(folder, 'items.tsv')}`,
    });
  });

  test('text vectors are an input of their own, item texts may be left out, and --data moves what the file names', async () => {
    mkdirSync(join(folder, 'other'));
    for (const name of ['log.txt', 'vectors.safetensors']) writeFileSync(join(folder, name), 'x');
    for (const name of ['sequences.txt', 'items.tsv', 'vectors.safetensors'])
      writeFileSync(join(folder, 'other', name), 'x');
    const text = 'name: t\ndata: { format: s3rec, interactions: log.txt, textVectors: vectors.safetensors }\n';
    expect((await storeInputs(resolveIn(text), PATHS)).inputs).toEqual({
      interactions: join(folder, 'log.txt'),
      text_vectors: join(folder, 'vectors.safetensors'),
    });
    const loaded = parseRunFile({ file: 'run.yaml', text });
    const moved = resolveRun(loaded, { baseFolder: folder, dataFolder: join(folder, 'other') });
    expect((await storeInputs(moved, PATHS)).inputs).toEqual({
      interactions: join(folder, 'other', 'sequences.txt'),
      items: join(folder, 'other', 'items.tsv'),
      text_vectors: join(folder, 'other', 'vectors.safetensors'),
    });
    expect(() => resolveIn(text.replace('vectors.saf', 'none.saf'))).toThrow(/expected item text vectors at/);
  });

  test('--data takes the names that the run file has before it guesses, so that item texts stay left out', async () => {
    mkdirSync(join(folder, 'other'));
    for (const name of ['log.txt', 'other/log.txt', 'other/sequences.txt', 'other/items.tsv'])
      writeFileSync(join(folder, name), 'x');
    const loaded = parseRunFile({
      file: 'run.yaml',
      text: 'name: t\ndata: { format: s3rec, interactions: ./log.txt }\n',
    });
    const moved = resolveRun(loaded, { baseFolder: folder, dataFolder: join(folder, 'other') });
    expect((await storeInputs(moved, PATHS)).inputs).toEqual({
      interactions: join(folder, 'other', 'log.txt'),
    });
  });

  test('a CSV whose columns the file names, without item texts', async () => {
    writeFileSync(join(folder, 'log.csv'), 'who,what\n');
    const data = (more: string): string => `name: t\ndata: { format: csv, interactions: log.csv${more} }\n`;
    const run = resolveIn(data(', columns: { user: who, item: what }'));
    expect(run.plan.recipes.ingest['columns']).toMatchObject({ user: 'who', item: 'what', time: null, separator: ',' });
    expect(Object.keys((await storeInputs(run, PATHS)).inputs)).toEqual(['interactions']);
    expect(() => resolveIn(data(''))).toThrow(/run\.yaml:2:7: data: expected "columns" with format csv or ndjson/);
    const other = 'name: t\ndata: { format: amazon, interactions: log.csv, columns: { user: who, item: what } }\n';
    expect(() => resolveIn(other)).toThrow(/got format amazon with "columns"/);
  });

  test('an empty data file is refused', () => {
    writeFileSync(join(folder, 'sequences.txt'), '');
    writeFileSync(join(folder, 'items.tsv'), 'x');
    expect(() => resolveIn('name: t\ndata: .\n')).toThrow(
      /run\.yaml:2:7: data: expected a behaviour log .* the file is empty/,
    );
  });

  test('a folder of another kind is refused with the kinds that are known', () => {
    writeFileSync(join(folder, 'notes.txt'), 'x');
    expect(() => resolveIn('name: t\ndata: .\n')).toThrow(/sequences\.txt\.gz \+ items\.tsv\.gz, or .* got notes\.txt/);
  });

  test('a model folder: configuration, architecture and weights are checked, sizes may not be given', () => {
    mkdirSync(join(folder, 'llm'));
    const text = `${SIMULATED}model: { base: llm }\n`;
    expect(() => resolveIn(text)).toThrow(/expected the model configuration at .*config\.json/);
    writeFileSync(join(folder, 'llm', 'config.json'), '{"model_type": "gpt2"}');
    expect(() => resolveIn(text)).toThrow(/"model_type" to be one of llama, .* got "gpt2"/);
    writeFileSync(join(folder, 'llm', 'config.json'), '{"model_type": "llama"}');
    expect(() => resolveIn(text)).toThrow(/expected \*\.safetensors/);
    writeFileSync(join(folder, 'llm', 'model.safetensors'), 'weights');
    expect(() => resolveIn(text)).toThrow(/expected the model's tokenizer at .*tokenizer\.json/);
    writeFileSync(join(folder, 'llm', 'tokenizer.json'), '{}');
    const run = resolveIn(text);
    expect(Object.keys(run.basePaths)).toEqual(['base/config.json', 'base/tokenizer.json', 'base/model.safetensors']);
    expect(run.plan.recipes.tune['base']).toEqual({ kind: 'huggingface' });
    const texts = resolveIn(`${text}embed: { text: { from: model, tokensMax: 32, centre: false } }\n`).plan.recipes;
    expect(texts.textVectors).toBeNull();
    expect(texts.embedText).toEqual({ tokensMax: 32, tokensPerBatch: 1024, centre: 0 });
    expect(() => resolveIn(`${SIMULATED}model: { base: llm, dim: 8 }\n`)).toThrow(
      /run\.yaml:3:21: expected only with base "scratch"/,
    );
  });
});

describe('an adapter to start from', () => {
  let folder: string;
  const write = (config: object): void => {
    writeFileSync(join(folder, 'lora', 'adapter_config.json'), JSON.stringify({ ...GOOD, ...config }));
  };
  // As peft 0.21 writes it: what is off is there, and off.
  const GOOD = {
    ...{ peft_type: 'LORA', task_type: 'CAUSAL_LM', bias: 'none', r: 4, lora_alpha: 8, lora_dropout: 0.1 },
    ...{ target_modules: ['v_proj', 'q_proj'], modules_to_save: null, trainable_token_indices: [10, 11] },
    ...{ use_dora: false, use_rslora: false, fan_in_fan_out: false, rank_pattern: {}, alpha_pattern: {} },
    ...{ layers_to_transform: null, init_lora_weights: true, loftq_config: {}, peft_version: '0.21.2' },
  };
  const resolveWith = (model: string): ReturnType<typeof resolveRun> =>
    resolveRun(parseRunFile({ file: 'run.yaml', text: `${SIMULATED}model: { ${model} }\n` }), { baseFolder: folder });
  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), 'collimate-adapter-'));
    for (const name of ['llm', 'lora']) mkdirSync(join(folder, name));
    writeFileSync(join(folder, 'llm', 'config.json'), '{"model_type": "llama"}');
    for (const name of ['tokenizer.json', 'tokenizer_config.json', 'model.safetensors']) {
      writeFileSync(join(folder, 'llm', name), '{}');
    }
    writeFileSync(join(folder, 'lora', 'adapter_model.safetensors'), 'weights');
    write({});
  });
  afterEach(() => rmSync(folder, { recursive: true, force: true }));

  test('brings its form and its two files', () => {
    const run = resolveWith('base: llm, adapter: lora');
    expect(run.plan.recipes.tune['trainable']).toEqual({
      ...{ kind: 'lora', rank: 4, alpha: 8 },
      targets: ['q_proj', 'v_proj'],
    });
    expect(Object.keys(run.basePaths)).toEqual([
      ...['base/config.json', 'base/tokenizer.json', 'base/tokenizer_config.json', 'base/model.safetensors'],
      ...['adapter/adapter_config.json', 'adapter/adapter_model.safetensors'],
    ]);
    const same = resolveWith('base: llm, adapter: lora, train: { lora: { rank: 4, targets: [q_proj, v_proj] } }');
    expect(same.plan.recipes).toEqual(run.plan.recipes);
  });

  test.each([
    ['train: full', 'run.yaml:3:43: model.train: expected low-rank adapters with "adapter", got "full"'],
    ['train: { lora: { rank: 8 } }', "run.yaml:3:59: model.train.lora.rank: expected the adapter's 4, got 8"],
    ['train: { lora: { alpha: 4 } }', "run.yaml:3:60: model.train.lora.alpha: expected the adapter's 8, got 4"],
    ['train: { lora: { targets: [q_proj] } }', "model.train.lora.targets: expected the adapter's"],
  ])('refuses the conflicting %s', (train, message) => {
    expect(() => resolveWith(`base: llm, adapter: lora, ${train}`)).toThrow(message);
  });

  test.each([
    [{ peft_type: 'LOHA' }, 'peft_type'],
    [{ task_type: 'SEQ_CLS' }, 'task_type'],
    [{ bias: 'all' }, 'bias'],
    [{ use_dora: true }, 'use_dora'],
    [{ use_rslora: true }, 'use_rslora'],
    [{ fan_in_fan_out: true }, 'fan_in_fan_out'],
    [{ rank_pattern: { q_proj: 2 } }, 'rank_pattern'],
    [{ alpha_pattern: { q_proj: 2 } }, 'alpha_pattern'],
    [{ layers_to_transform: [0] }, 'layers_to_transform'],
    [{ init_lora_weights: 'pissa' }, 'init_lora_weights'],
    [{ target_modules: 'all-linear' }, 'target_modules'],
    [{ target_modules: ['q_proj', 'lm_head'] }, 'target_modules'],
    [{ r: 0 }, 'r'],
    [{ lora_alpha: null }, 'lora_alpha'],
    [{ of_tomorrow: 1 }, 'of_tomorrow'],
  ])('refuses %j by the name of the field', (change, field) => {
    write(change);
    expect(() => resolveWith('base: llm, adapter: lora')).toThrow(
      new RegExp(`run\\.yaml:3:30: model\\.adapter: .*adapter_config\\.json: field "${field}": expected .*, got `),
    );
  });

  test('needs a base of its own, a folder and both files', () => {
    expect(() => resolveWith('adapter: lora')).toThrow(/expected only with a Hugging Face model as "base"/);
    expect(() => resolveWith('base: llm, adapter: none')).toThrow(/expected a PEFT adapter folder at .*none/);
    rmSync(join(folder, 'lora', 'adapter_model.safetensors'));
    expect(() => resolveWith('base: llm, adapter: lora')).toThrow(/expected the adapter's weights at/);
  });
});

describe('the plan', () => {
  test('fleet, checkpoints and name never enter a recipe', () => {
    const plain = resolveRun(parseRunFile({ file: 'r', text: SIMULATED }), { baseFolder: '.' }).plan;
    const other = resolveRun(
      parseRunFile({
        file: 'r',
        text: 'name: u\ndata: { simulate: {} }\nfleet: { workers: { min: 3, max: 9 } }\ncheckpoints: { tune: 1 }\n',
      }),
      { baseFolder: '.' },
    ).plan;
    expect(other.recipes).toEqual(plain.recipes);
    expect(other.fleet).toMatchObject({ min: 3, max: 9 });
    expect(other.checkpointIntervalSteps).toEqual({ ...PLAN_DEFAULTS.checkpoints, tune: 1 });
    expect(other.checkpointsKept).toBe(2);
  });

  test('how many checkpoints stay is a setting of its own, of at least one', () => {
    const text = `${SIMULATED}checkpoints: { keep: 7, tune: 1 }\n`;
    const { plan } = resolveRun(parseRunFile({ file: 'r', text }), { baseFolder: '.' });
    expect(plan.checkpointsKept).toBe(7);
    expect(plan.checkpointIntervalSteps).toEqual({ ...PLAN_DEFAULTS.checkpoints, tune: 1 });
    const none = `${SIMULATED}checkpoints: { keep: 0 }\n`;
    expect(() => parseRunFile({ file: 'r', text: none })).toThrow(/checkpoints\.keep|keep/);
  });

  test('ranks in bf16 where the file says so, in fp32 else', () => {
    const recipe = (rank: string) =>
      resolveRun(parseRunFile({ file: 'r', text: `${SIMULATED}rank: ${rank}\n` }), { baseFolder: '.' }).plan.recipes
        .rank;
    expect(recipe('{ precision: bf16 }')).toMatchObject({ precision: 'bf16' });
    expect(recipe('{ beams: 60 }')).toMatchObject({ precision: 'fp32' });
    expect(errorsOf(`${SIMULATED}rank: { precision: fp8 }\n`).join()).toContain('rank.precision');
  });

  test('a width of the beam for each level reaches the recipe, and so does the number of compared prompts', () => {
    const text = `${SIMULATED}rank: { beams: [64, 100, 80, 50], searchLossPrompts: 0 }\n`;
    const { plan } = resolveRun(parseRunFile({ file: 'r', text }), { baseFolder: '.' });
    expect(plan.recipes.rank).toMatchObject({ beams: [64, 100, 80, 50], topK: 50, searchLossPrompts: 0 });
  });

  test('survives JSON, as what travels through Temporal must', () => {
    const { plan } = resolveRun(parseRunFile({ file: 'r', text: SIMULATED }), { baseFolder: '.' });
    expect(JSON.parse(JSON.stringify(plan))).toEqual(plan);
  });

  test('a run id holds the name and the time', () => {
    expect(makeRunId('shop', new Date('2026-01-02T03:04:05Z'))).toMatch(/^shop-20260102-030405-[0-9a-f]{4}$/);
  });

  test.each(['demo', 'scientific', 'tiny', 'pretrained'])('the example %s.yaml is valid', (name) => {
    const file = join(projectRoot, 'deploy', 'examples', `${name}.yaml`);
    expect(loadRunFile(file).value.name).toBe(name);
  });

  test.each(['beauty', 'sports', 'scientific', 'instruments'])('the run %s.yaml is valid', (name) => {
    const file = join(projectRoot, 'deploy', 'runs', `${name}.yaml`);
    expect(loadRunFile(file).value.name).toBe(name);
  });
});

test('the JSON Schema in the tree is that of the source', () => {
  const file = join(projectRoot, 'orchestrator', 'cli', 'run-file.schema.json');
  // Made by: bin/collimate run --print-schema
  expect(JSON.parse(readFileSync(file, 'utf8'))).toEqual(JSON.parse(JSON.stringify(runFileJsonSchema())));
});
