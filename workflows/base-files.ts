/**
 * Which jobs read which of the files that a run's model starts from: only what a job reads may enter its key.
 *
 * `base/…` are files of a Hugging Face directory, `adapter/…` those of a PEFT adapter. `base/tokenizer_config.json` is read by
 * no job: it travels with the plan so that an exported model has it.
 */
import type { Digest } from './contract.js';

type Files = Record<string, Digest>;

/** For rendering, which extends the base's tokenizer by the item tokens. */
export function tokenizerFiles(baseFiles: Files): Files {
  return pick(baseFiles, (name) => name === 'base/config.json' || name === 'base/tokenizer.json');
}

/** For tuning and ranking: shape and weights. */
export function weightFiles(baseFiles: Files): Files {
  return pick(baseFiles, (name) => name === 'base/config.json' || /^base\/.*\.safetensors$/.test(name));
}

/** For tuning: the adapter that it starts from; none for fresh ones. */
export function adapterFiles(baseFiles: Files): Files {
  return pick(baseFiles, (name) => name.startsWith('adapter/'));
}

function pick(files: Files, wanted: (name: string) => boolean): Files {
  return Object.fromEntries(Object.entries(files).filter(([name]) => wanted(name)));
}
