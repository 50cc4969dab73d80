/**
 * Open formats out and in, against the libraries themselves: runs over Hugging Face bases are exported and loaded by transformers
 * and peft with the same logits, and adapters that peft made start a run at PyTorch's loss.
 *
 * Logits differ by fp32 rounding alone: sums of at most 48 terms through two layers, about 1e-6 of the largest value.
 */
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';

import { openStore } from '../../orchestrator/artifacts/store.js';
import { projectRoot } from '../../orchestrator/build-info.js';
import { type Exported } from '../../orchestrator/cli/export-model.js';
import { homeAt } from '../../orchestrator/cli/home.js';
import { runNativeJob } from '../../orchestrator/cli/native-job.js';
import { SafetensorsFile } from '../../orchestrator/recommender/safetensors.js';
import { type RunPlan, type RunResult, type RunStatus } from '../../workflows/contract.js';
import { cli, temporaryHome } from '../support/cli.js';
import { findPython, roundTrip } from '../support/python.js';

const TOLERANCE = 1e-5;
const TINY = join(projectRoot(), 'deploy', 'examples', 'tiny.yaml');
const python = findPython();
const program = python.path ?? '';
if (python.missing !== null) console.error(`skipped: ${python.missing}`);
const describeWithPython = describe.skipIf(python.path === null);

interface Compared {
  relativeDifference: number;
  tokens: number;
  sameTop: number;
  vocabulary: number;
  dtype: string;
  firstItemToken: number;
  encoded: number[];
  encodedText: number[];
}

describeWithPython('what a run tuned', () => {
  const home = temporaryHome();
  const store = openStore(homeAt(home.path).store);
  const folder = mkdtempSync(join(tmpdir(), 'collimate-peft-'));
  const bases: Record<string, string> = { llama: join(folder, 'llama'), qwen2: join(folder, 'qwen2') };
  const results: Record<string, RunResult> = {};
  beforeAll(async () => {
    for (const [kind, base] of Object.entries(bases)) await roundTrip(program, 'make_base', base, kind);
    const up = await cli(['up', '--workers', '1', '--home', home.path]);
    expect(up.code, up.stderr).toBe(0);
    for (const [kind, base] of Object.entries(bases)) results[kind] = await runOf(base, []);
    results['scratch'] = await runOf('scratch', []);
  });
  afterAll(async () => {
    await cli(['down', '--home', home.path]);
    home.remove();
    rmSync(folder, { recursive: true, force: true });
  });

  /** The tiny run on a base of the test's, with few and coarse steps: what it learns matters to nobody. */
  async function runOf(base: string, settings: string[]): Promise<RunResult> {
    const lora = base === 'scratch' ? [] : [`model={ base: ${base} }`, 'tune.learningRate=0.01'];
    const sets = ['tune.steps=8', 'tune.minLearningRate=0.001', ...lora, ...settings].flatMap((set) => ['--set', set]);
    const { code, stdout, stderr } = await cli(['run', TINY, '--home', home.path, '-o', 'json', ...sets]);
    expect(code, stderr).toBe(0);
    const { result } = JSON.parse(stdout) as RunStatus;
    if (result === null) throw new Error(`no result:\n${stderr}`);
    return result;
  }

  async function exported(kind: string, name: string, flags: string[]): Promise<Exported> {
    const runId = results[kind]?.runId ?? '';
    const args = ['export', runId, join(folder, name), '--home', home.path, '-o', 'json', ...flags];
    const { code, stdout, stderr } = await cli(args);
    expect(code, stderr).toBe(0);
    return JSON.parse(stdout) as Exported;
  }

  /** Our logits of the run's own test prompts. */
  async function logitsOf(kind: string): Promise<{ prompts: string; logits: string; plan: RunPlan }> {
    const result = results[kind];
    const plan = JSON.parse(String(await store.readRunFile(result?.runId ?? '', 'plan.json'))) as RunPlan;
    const prompts = await store.localPath(result?.jobs['render']?.outputs['test_prompts'] ?? '');
    const inputs: Record<string, string> = {
      model: await store.localPath(result?.jobs['tune']?.outputs['model'] ?? ''),
      prompts,
    };
    for (const [name, digest] of Object.entries(plan.baseFiles)) inputs[name] = await store.localPath(digest);
    const outputDir = mkdtempSync(join(folder, 'logits-'));
    const { outputs } = await runNativeJob({ kind: 'logits', recipe: {}, inputs, outputDir });
    return { prompts, logits: outputs['logits'] ?? '', plan };
  }

  async function expectSameLogits(kind: string, name: string): Promise<void> {
    const { prompts, logits } = await logitsOf(kind);
    const compared = await roundTrip<Compared>(program, 'compare_logits', join(folder, name), prompts, logits);
    const summary = results[kind]?.jobs['render']?.summary;
    expect(compared.relativeDifference).toBeLessThan(TOLERANCE);
    expect(compared.tokens).toBeGreaterThan(1_000);
    expect(compared.sameTop).toBeGreaterThan(0.99 * compared.tokens);
    expect(compared.dtype).toBe('torch.float32');
    expect(compared.vocabulary).toBe(summary?.['vocabularySize']);
    expect(compared.firstItemToken).toBe(summary?.['firstItemToken']);
    expect(compared.encoded.slice(-2)).toEqual([compared.firstItemToken, compared.firstItemToken + 1]);
    expect(compared.encodedText.length).toBeGreaterThan(1);
  }

  test.each(['llama', 'qwen2'])('as an adapter gives our logits in peft: %s', async (kind) => {
    const { files, form } = await exported(kind, `${kind}-adapter`, ['--base', bases[kind] ?? '']);
    expect(form).toBe('adapter');
    expect(files).toEqual([
      'README.md',
      'adapter_config.json',
      'adapter_model.safetensors',
      'tokenizer.json',
      'tokenizer_config.json',
    ]);
    await expectSameLogits(kind, `${kind}-adapter`);
  });

  test.each(['llama', 'qwen2'])('merged gives our logits in transformers: %s', async (kind) => {
    const { files, form } = await exported(kind, `${kind}-merged`, ['--merged']);
    expect(form).toBe('model');
    expect(files).toEqual(['README.md', 'config.json', 'model.safetensors', 'tokenizer.json', 'tokenizer_config.json']);
    await expectSameLogits(kind, `${kind}-merged`);
  });

  test('of a run from scratch is a whole model, which transformers loads with our logits', async () => {
    expect((await exported('scratch', 'scratch', [])).form).toBe('model');
    await expectSameLogits('scratch', 'scratch');
  });

  test('starts another run, which begins where the first one ended', async () => {
    const base = bases['llama'] ?? '';
    await exported('llama', 'llama-start', []);
    const adapter = join(folder, 'llama-start');
    const again = await runOf(base, [`model.adapter=${adapter}`]);
    const first = results['llama']?.jobs['tune']?.summary ?? {};
    const second = again.jobs['tune']?.summary ?? {};
    expect(again.jobs['tune']?.key).not.toBe(results['llama']?.jobs['tune']?.key);
    expect(again.jobs['render']?.key).toBe(results['llama']?.jobs['render']?.key);
    const gained = Number(first['firstLoss']) - Number(first['lastLoss']);
    expect(Number(second['firstLoss'])).toBeLessThan(Number(first['firstLoss']) - gained / 2);
  });

  test('is not written over what is there, for a run that is none, or from damaged bytes', async () => {
    const full = join(folder, 'full');
    mkdirSync(full);
    writeFileSync(join(full, 'notes.txt'), 'mine');
    const runId = results['qwen2']?.runId ?? '';
    const refused = await cli(['export', runId, full, '--home', home.path]);
    expect(refused.stderr).toContain('expected a new or empty folder');
    expect(refused.code).toBe(2);
    expect(readdirSync(full)).toEqual(['notes.txt']);
    const unknown = await cli(['export', 'no-such-run', join(folder, 'none'), '--home', home.path]);
    expect(unknown.stderr).toContain('there is none called "no-such-run"');
    expect(unknown.code).toBe(3);

    const path = await store.localPath(results['qwen2']?.jobs['tune']?.outputs['model'] ?? '');
    const bytes = readFileSync(path);
    bytes[bytes.length - 1] = (bytes[bytes.length - 1] ?? 0) ^ 1;
    rmSync(path);
    writeFileSync(path, bytes);
    const damaged = await cli(['export', runId, join(folder, 'damaged'), '--home', home.path]);
    expect(damaged.stderr).toContain('SHA-256');
    expect(damaged.code).toBe(2);
    expect(readdirSync(folder).filter((name) => name.includes('damaged') || name.includes('none'))).toEqual([]);
  });
});

describeWithPython('an adapter that peft made', () => {
  const folder = mkdtempSync(join(tmpdir(), 'collimate-peft-in-'));
  afterAll(() => rmSync(folder, { recursive: true, force: true }));

  interface Made {
    loss: number;
    tables: string[];
    rank: number;
    alpha: number;
    targets: string[];
  }

  // Token rows as trainable_token_indices, whole tables, and tables that are saved because the vocabulary grew.
  test.each([
    ['llama', 'tokens'],
    ['llama', 'tables'],
    ['llama', 'resized'],
    ['llama_bias', 'tokens'],
    ['llama_bias', 'tables'],
    ['qwen3', 'resized'],
  ])("starts a run at PyTorch's loss: %s, %s", async (architecture, form) => {
    const base = join(projectRoot(), 'test', 'parity', 'fixtures', architecture, 'base');
    const adapter = join(folder, `${architecture}-${form}`);
    const made = await roundTrip<Made>(program, 'make_adapter', base, adapter, form);
    expect(made.tables.length).toBeGreaterThan(0);
    const inputs: Record<string, string> = {
      train_examples: join(adapter, 'train_examples'),
      vocabulary: join(adapter, 'vocabulary'),
      'adapter/adapter_config.json': join(adapter, 'adapter_config.json'),
      'adapter/adapter_model.safetensors': join(adapter, 'adapter_model.safetensors'),
    };
    for (const name of readdirSync(base)) inputs[`base/${name}`] = join(base, name);
    const outputDir = join(adapter, 'out');
    mkdirSync(outputDir);
    const { rank, alpha, targets } = made;
    const recipe = {
      base: { kind: 'huggingface' },
      trainable: { kind: 'lora', rank, alpha, targets },
      // One batch of all examples: its loss does not depend on their order.
      ...{ steps: 1, batchSequences: 8, lanes: 4, warmupSteps: 0, dropout: 0, precision: 'fp32', seed: 1 },
      preferenceBeta: 0.1,
      ...{
        learningRate: 0.01,
        minLearningRate: 0.01,
        weightDecay: 0,
        beta1: 0.9,
        beta2: 0.95,
        epsilon: 1e-8,
        clipNorm: 1,
      },
    };
    const { outputs } = await runNativeJob({ kind: 'tune', recipe, inputs, outputDir });
    const curve = await SafetensorsFile.open(outputs['loss_curve'] ?? '');
    const ours = curve.f32('loss', [1]).data[0] ?? NaN;
    expect(Math.abs(ours - made.loss) / made.loss).toBeLessThan(TOLERANCE);
  });
});
