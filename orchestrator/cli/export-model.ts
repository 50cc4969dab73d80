/**
 * What a finished run tuned, as a folder that Hugging Face libraries load: a PEFT adapter, or a whole model.
 *
 * 1. Every byte read from the store was verified against its digest.
 * 2. The folder appears whole under its name or not at all, and never over anything that is there.
 * 3. Only the store is read: nothing has to be up.
 */
import { randomBytes } from 'node:crypto';
import { constants } from 'node:fs';
import { copyFile, mkdir, open, readdir, rename, rm, writeFile } from 'node:fs/promises';
import { basename, dirname, join, resolve } from 'node:path';

import { type Digest, type JsonObject, type RunPlan, type RunResult } from '../../workflows/contract.js';
import { type ArtifactStore } from '../artifacts/store.js';
import { readSafetensorsMetadata } from '../recommender/safetensors.js';
import { CliError, hasCode } from './cli-error.js';
import { readmeOf, tokenizerConfigOf } from './export-texts.js';
import { readFinishedRun } from './finished-run.js';
import { runNativeJob } from './native-job.js';

export interface ExportRequest {
  runId: string;
  folder: string;
  /** A whole model even where adapters were trained. */
  merged: boolean;
  /** What the adapter's config names as its base; null: what the base's own config says. */
  baseName: string | null;
}

export interface Exported {
  runId: string;
  folder: string;
  form: 'adapter' | 'model';
  files: string[];
  vocabularySize: number;
  /** Of the run's tuned model. */
  model: Digest;
}

interface Source {
  result: RunResult;
  plan: RunPlan;
  model: Digest;
  modelPath: string;
  config: JsonObject;
  /** Null: trained in full. */
  adapterConfig: JsonObject | null;
}

export async function exportModel(store: ArtifactStore, request: ExportRequest): Promise<Exported> {
  const folder = resolve(request.folder);
  await refuseWhatIsThere(folder);
  const source = await readSource(store, request.runId);
  const form: Exported['form'] = source.adapterConfig === null || request.merged ? 'model' : 'adapter';
  const partial = join(dirname(folder), `.${basename(folder)}.partial-${randomBytes(6).toString('hex')}`);
  await writable(mkdir(partial, { recursive: true }), partial);
  try {
    if (form === 'model') await writeModel(store, source, partial);
    else await writeAdapter(source, { partial, baseName: request.baseName });
    await writeTokenizer(store, source, partial);
    const vocabularySize = Number(source.config['vocab_size']);
    const baseName = request.baseName ?? baseNameOf(source);
    const { result, model } = source;
    const about = { form, folder: basename(folder), vocabularySize, baseName, model, runId: result.runId };
    await writeFile(join(partial, 'README.md'), readmeOf(about));
    const files = (await readdir(partial)).sort();
    for (const name of [...files, '.']) await sync(join(partial, name));
    // Over an empty folder rename replaces; over one that has been filled meanwhile it fails.
    await writable(rename(partial, folder), folder);
    await sync(dirname(folder));
    return { runId: result.runId, folder, form, files, vocabularySize, model };
  } catch (error) {
    await rm(partial, { recursive: true, force: true });
    throw error;
  }
}

async function refuseWhatIsThere(folder: string): Promise<void> {
  try {
    const names = await readdir(folder);
    if (names.length === 0) return;
    throw new CliError(
      'badInput',
      `expected a new or empty folder at ${folder}, but it holds ${names.slice(0, 4).join(', ')}; give another one, or empty it`,
    );
  } catch (error) {
    if (hasCode(error, 'ENOENT')) return;
    if (hasCode(error, 'ENOTDIR')) {
      throw new CliError(
        'badInput',
        `expected a new or empty folder at ${folder}, but there is a file; give another one`,
      );
    }
    throw error;
  }
}

async function readSource(store: ArtifactStore, runId: string): Promise<Source> {
  const { plan, result } = await readFinishedRun(store, runId);
  const model = result.jobs['tune']?.outputs['model'];
  if (model === undefined) throw new CliError('badInput', `run ${runId} has no tuned model; run it again`);
  const modelPath = await store.localPath(model);
  const metadata = await readSafetensorsMetadata(modelPath);
  const adapterConfig = metadata['adapter_config'];
  return {
    result,
    plan,
    model,
    modelPath,
    config: JSON.parse(metadata['config'] ?? '{}') as JsonObject,
    adapterConfig: adapterConfig === undefined ? null : (JSON.parse(adapterConfig) as JsonObject),
  };
}

/** The object holds PEFT's names already; what else is in its metadata PEFT does not read. */
async function writeAdapter(
  { adapterConfig, modelPath, config }: Source,
  { partial, baseName }: { partial: string; baseName: string | null },
): Promise<void> {
  const named = { base_model_name_or_path: baseName ?? baseNameOf({ config }), ...adapterConfig };
  await writeFile(join(partial, 'adapter_config.json'), `${JSON.stringify(named, null, 2)}\n`);
  await copy(modelPath, join(partial, 'adapter_model.safetensors'));
}

async function writeModel(store: ArtifactStore, { plan, modelPath }: Source, partial: string): Promise<void> {
  const inputs: Record<string, string> = { model: modelPath };
  for (const [name, digest] of Object.entries(plan.baseFiles)) {
    if (name === 'base/config.json' || name.endsWith('.safetensors')) inputs[name] = await store.localPath(digest);
  }
  await runNativeJob({ kind: 'merge', recipe: {}, inputs, outputDir: partial });
}

async function writeTokenizer(store: ArtifactStore, { plan, result }: Source, partial: string): Promise<void> {
  const tokenizer = result.jobs['render']?.outputs['tokenizer'];
  if (tokenizer === undefined) throw new CliError('badInput', `run ${result.runId} has no tokenizer; run it again`);
  await copy(await store.localPath(tokenizer), join(partial, 'tokenizer.json'));
  const settings = plan.baseFiles['base/tokenizer_config.json'];
  const isScratch = plan.baseFiles['base/config.json'] === undefined;
  const base = settings === undefined ? null : ((await store.readJson(settings)) as JsonObject);
  const text = `${JSON.stringify(tokenizerConfigOf({ base, isScratch }), null, 2)}\n`;
  await writeFile(join(partial, 'tokenizer_config.json'), text);
}

/** Where the base's own config says that it came from, as older versions of transformers wrote it. */
function baseNameOf({ config }: Pick<Source, 'config'>): string | null {
  const name = config['_name_or_path'];
  return typeof name === 'string' && name !== '' ? name : null;
}

/** Shares the bytes with the store where the file system can. The copy is the user's own: it may be written to. */
async function copy(from: string, to: string): Promise<void> {
  await copyFile(from, to, constants.COPYFILE_FICLONE);
  const file = await open(to, 'r');
  try {
    await file.chmod(0o644);
  } finally {
    await file.close();
  }
}

async function sync(path: string): Promise<void> {
  const file = await open(path, 'r');
  try {
    await file.sync();
  } finally {
    await file.close();
  }
}

async function writable<T>(action: Promise<T>, path: string): Promise<T> {
  try {
    return await action;
  } catch (error) {
    if (!hasCode(error, 'EACCES', 'EROFS', 'ENOSPC', 'EEXIST', 'ENOTDIR', 'ENOTEMPTY')) throw error;
    const reason = (error as Error).message;
    throw new CliError('badInput', `expected a place to write to at ${path}, but ${reason}; give another folder`);
  }
}
