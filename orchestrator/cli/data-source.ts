/**
 * Where a run's raw data and its base model come from: files checked before anything starts.
 *
 * 1. A missing or empty file, or a folder that no importer knows, is refused here, with what was expected.
 */
import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs';
import { join, resolve } from 'node:path';

import { type IngestFormat } from '../recommender/recipes.js';
import { CliError, messageOf } from './cli-error.js';

export interface DataFiles {
  format: IngestFormat;
  interactions: string;
  items: string;
}

interface FolderShape {
  format: IngestFormat;
  interactions: RegExp;
  items: RegExp;
  /** For the message when no shape fits. */
  files: string;
}

/** Most specific first. */
const FOLDER_SHAPES: FolderShape[] = [
  {
    format: 's3rec',
    interactions: /^sequences\.txt(\.gz)?$/,
    items: /^items\.tsv(\.gz)?$/,
    files: 'sequences.txt.gz + items.tsv.gz',
  },
  {
    format: 'collimate',
    interactions: /^interactions\.ndjson(\.gz)?$/,
    items: /^items\.ndjson(\.gz)?$/,
    files: 'interactions.ndjson + items.ndjson',
  },
  {
    format: 'movielens',
    interactions: /^(ratings\.(dat|csv)|u\.data)(\.gz)?$/,
    items: /^(movies\.(dat|csv)|u\.item)(\.gz)?$/,
    files: 'ratings.{csv,dat} + movies.{csv,dat} (or u.data + u.item)',
  },
  { format: 'recbole', interactions: /\.inter(\.gz)?$/, items: /\.item(\.gz)?$/, files: 'NAME.inter + NAME.item' },
  {
    format: 'amazon',
    interactions: /^(?!meta_).*\.jsonl?(\.gz)?$/,
    items: /^meta_.*\.jsonl?(\.gz)?$/,
    files: 'NAME.json.gz + meta_NAME.json.gz',
  },
];

/** Recognises a data folder by its files. */
export function recogniseDataFolder(folder: string): DataFiles {
  const known = FOLDER_SHAPES.map((shape) => shape.files).join(', or ');
  if (!existsSync(folder)) {
    throw new CliError('badInput', `expected a data folder at ${folder}, but there is none; it should hold ${known}`);
  }
  if (!statSync(folder).isDirectory()) {
    throw new CliError(
      'badInput',
      `expected a data folder at ${folder}, but it is a file; give the folder that holds ${known}`,
    );
  }
  const names = readdirSync(folder).sort();
  for (const shape of FOLDER_SHAPES) {
    const interactions = names.find((name) => shape.interactions.test(name));
    const items = names.find((name) => shape.items.test(name));
    if (interactions !== undefined && items !== undefined) {
      return { format: shape.format, interactions: join(folder, interactions), items: join(folder, items) };
    }
  }
  throw new CliError(
    'badInput',
    `expected ${known} in ${folder}, got ${names.length === 0 ? 'an empty folder' : names.slice(0, 8).join(', ')}`,
  );
}

export function requireDataFile(path: string, what: string): string {
  const full = resolve(path);
  if (!existsSync(full)) {
    throw new CliError(
      'badInput',
      `expected ${what} at ${full}, but there is no such file; correct the path in the run file`,
    );
  }
  const stat = statSync(full);
  if (!stat.isFile()) throw new CliError('badInput', `expected ${what} at ${full}, but it is no file`);
  if (stat.size === 0) {
    throw new CliError('badInput', `expected ${what} at ${full}, but the file is empty; export it again`);
  }
  return full;
}

const MODEL_TYPES = ['llama', 'mistral', 'qwen2', 'qwen3'];

/** Input name to path of a Hugging Face model directory's files. */
export function requireModelFolder(folder: string): Record<string, string> {
  const full = resolve(folder);
  if (!existsSync(full) || !statSync(full).isDirectory()) {
    throw new CliError(
      'badInput',
      `expected a Hugging Face model folder at ${full}, but there is none; give a folder with config.json and *.safetensors, or "scratch"`,
    );
  }
  const config = requireDataFile(join(full, 'config.json'), 'the model configuration');
  let modelType: unknown;
  try {
    modelType = (JSON.parse(readFileSync(config, 'utf8')) as { model_type?: unknown }).model_type;
  } catch (error) {
    throw new CliError('badInput', `${config}: expected JSON, but ${messageOf(error)}`);
  }
  if (typeof modelType !== 'string' || !MODEL_TYPES.includes(modelType)) {
    throw new CliError(
      'badInput',
      `${config}: expected "model_type" to be one of ${MODEL_TYPES.join(', ')}, got ${JSON.stringify(modelType)}`,
    );
  }
  const shards = readdirSync(full).filter((name) => name.endsWith('.safetensors'));
  if (shards.length === 0) {
    throw new CliError(
      'badInput',
      `expected *.safetensors in ${full}, but there is none; download the weights in that form`,
    );
  }
  const files: Record<string, string> = {
    'base/config.json': config,
    'base/tokenizer.json': requireDataFile(join(full, 'tokenizer.json'), "the model's tokenizer"),
  };
  // Read by no job: what an exported model's tokenizer is called with.
  const tokenizerConfig = join(full, 'tokenizer_config.json');
  if (existsSync(tokenizerConfig)) {
    files['base/tokenizer_config.json'] = requireDataFile(tokenizerConfig, "the tokenizer's settings");
  }
  for (const shard of shards.sort()) files[`base/${shard}`] = requireDataFile(join(full, shard), 'model weights');
  return files;
}
