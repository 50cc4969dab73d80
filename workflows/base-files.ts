/** Which jobs read which files of a Hugging Face base model: only what a job reads may enter its key. */
import type { Digest } from './contract.js';

type Files = Record<string, Digest>;

/** For rendering, which extends the base's tokenizer by the item tokens. */
export function tokenizerFiles(baseFiles: Files): Files {
  return Object.fromEntries(Object.entries(baseFiles).filter(([name]) => name.endsWith('.json')));
}

/** For tuning and ranking: shape and weights. */
export function weightFiles(baseFiles: Files): Files {
  return Object.fromEntries(Object.entries(baseFiles).filter(([name]) => name !== 'base/tokenizer.json'));
}
