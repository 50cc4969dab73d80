/**
 * A PEFT adapter that a run starts from: its two files, and what its config says about the adapters' form.
 *
 * 1. Refused here, before anything starts, is what `tune` would refuse (native/core/model/peft_adapter.cc has the whole check,
 *    tensors included): a setting that changes the model and is not computed, each by its name.
 */
import { existsSync, readFileSync, statSync } from 'node:fs';
import { join, resolve } from 'node:path';

import { LORA_TARGETS } from '../recommender/default-recipes.js';
import { type LoraTraining } from '../recommender/recipes.js';
import { CliError, messageOf } from './cli-error.js';
import { requireDataFile } from './data-source.js';
import { type Finding } from './run-file-findings.js';

export interface AdapterSource {
  /** Input name to path. */
  files: Record<string, string>;
  trainable: LoraTraining;
}

/** The run file's `model.train`. */
export type ModelTrain = 'full' | { lora: Partial<LoraTraining> } | undefined;

type AdapterConfig = Record<string, unknown>;

/** Read by `tune`, or of no consequence for what the model computes. Any other field must be switched off. */
const FIELDS = new Set([
  ...['peft_type', 'r', 'lora_alpha', 'target_modules', 'bias', 'init_lora_weights', 'task_type'],
  ...['trainable_token_indices', 'modules_to_save', 'ensure_weight_tying', 'auto_mapping', 'base_model_name_or_path'],
  ...['revision', 'peft_version', 'inference_mode', 'lora_dropout', 'megatron_core', 'qalora_group_size'],
  ...['eva_config', 'runtime_config'],
]);

export function requireAdapterFolder(folder: string): AdapterSource {
  const full = resolve(folder);
  if (!existsSync(full) || !statSync(full).isDirectory()) {
    throw new CliError(
      'badInput',
      `expected a PEFT adapter folder at ${full}, but there is none; give a folder with adapter_config.json and adapter_model.safetensors`,
    );
  }
  const configFile = requireDataFile(join(full, 'adapter_config.json'), "the adapter's configuration");
  const files = {
    'adapter/adapter_config.json': configFile,
    'adapter/adapter_model.safetensors': requireDataFile(
      join(full, 'adapter_model.safetensors'),
      "the adapter's weights",
    ),
  };
  let config: unknown;
  try {
    config = JSON.parse(readFileSync(configFile, 'utf8'));
  } catch (error) {
    throw new CliError('badInput', `${configFile}: expected JSON, but ${messageOf(error)}`);
  }
  if (config === null || typeof config !== 'object' || Array.isArray(config)) {
    throw new CliError('badInput', `${configFile}: expected a JSON object, got ${JSON.stringify(config).slice(0, 60)}`);
  }
  return { files, trainable: trainableOf(config as AdapterConfig, configFile) };
}

function trainableOf(config: AdapterConfig, file: string): LoraTraining {
  const expect = (holds: boolean, field: string, expected: string): void => {
    if (holds) return;
    const got = JSON.stringify(config[field]) ?? 'nothing';
    throw new CliError(
      'badInput',
      `${file}: field "${field}": expected ${expected}, got ${got.slice(0, 200)}; ` +
        'merge such an adapter into its base with PEFT (merge_and_unload) and give that as the base',
    );
  };
  const { r: rank, lora_alpha: alpha, target_modules: targets, init_lora_weights: init = true } = config;
  expect(config['peft_type'] === 'LORA', 'peft_type', '"LORA"');
  expect((config['bias'] ?? 'none') === 'none', 'bias', '"none"');
  expect((config['task_type'] ?? 'CAUSAL_LM') === 'CAUSAL_LM', 'task_type', '"CAUSAL_LM"');
  expect(typeof init === 'boolean' || init === 'gaussian', 'init_lora_weights', 'true, false or "gaussian"');
  for (const [field, value] of Object.entries(config)) {
    expect(FIELDS.has(field) || isOff(value), field, 'it to be off (null, false or empty)');
  }
  expect(Number.isSafeInteger(rank) && Number(rank) >= 1, 'r', 'a whole number of at least 1');
  expect(typeof alpha === 'number' && alpha > 0, 'lora_alpha', 'a positive number');
  const names: unknown[] = Array.isArray(targets) ? targets : [];
  const known = names.every((name) => typeof name === 'string' && LORA_TARGETS.includes(name));
  const distinct = new Set(names).size === names.length;
  expect(
    names.length > 0 && known && distinct,
    'target_modules',
    `a list of distinct names out of ${LORA_TARGETS.join(', ')}`,
  );
  return { kind: 'lora', rank: Number(rank), alpha: Number(alpha), targets: (names as string[]).sort() };
}

function isOff(value: unknown): boolean {
  if (value === null || value === false) return true;
  return typeof value === 'object' && Object.keys(value).length === 0;
}

/** What the run file's `model.train` says otherwise than the adapter. */
export function conflictsWith(adapter: LoraTraining, train: ModelTrain): Finding[] {
  if (train === undefined) return [];
  const advice = 'delete the line: the adapter brings its own form';
  if (train === 'full') {
    return [{ path: ['model', 'train'], message: `expected low-rank adapters with "adapter", got "full"; ${advice}` }];
  }
  const findings: Finding[] = [];
  for (const field of ['rank', 'alpha', 'targets'] as const) {
    const given = train.lora[field];
    const same = Array.isArray(given) ? [...given].sort().join() === adapter.targets.join() : given === adapter[field];
    if (given === undefined || same) continue;
    findings.push({
      path: ['model', 'train', 'lora', field],
      message: `expected the adapter's ${JSON.stringify(adapter[field])}, got ${JSON.stringify(given)}; ${advice}`,
    });
  }
  return findings;
}
