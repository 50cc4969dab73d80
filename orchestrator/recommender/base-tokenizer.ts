/**
 * The tokenizer that prompts are rendered with: learned from the item text, or a base model's own with the item tokens appended.
 *
 * 1. Item token ids are consecutive, level by level, and start at `firstItemToken`; nothing else has an id from there on.
 * 2. With a base model they start behind its embedding table, so that no pretrained row changes its meaning.
 */
import { Tokenizer } from '@huggingface/tokenizers';
import { BadInputError } from './domain-job.js';
import {
  itemTokenEntries,
  learnTokenizer,
  SPECIAL_TOKENS,
  TEXT_VOCABULARY_MIN,
  tokenizerFile,
} from './tokenizer-training.js';

export interface ItemCodesShape {
  levels: number;
  codes: number;
}

export interface PromptTokenizer {
  /** Content of `tokenizer.json`. */
  file: object;
  firstItemToken: number;
  /** Rounded up to a multiple of 8; ids behind the last item token are unused. */
  vocabularySize: number;
  /** First token of every example, or null where the base model has none. */
  bosToken: number | null;
  encode(text: string): number[];
}

const SIZE_MULTIPLE = 8;

/** The part of the library that is used. Its own declarations import without file endings, which strict resolution refuses. */
type TokenizerConstructor = new (
  file: object,
  config: object,
) => { encode(text: string, options: { add_special_tokens: boolean }): { ids: number[] } };
const HubTokenizer = Tokenizer as unknown as TokenizerConstructor;

export function learnedPromptTokenizer(
  texts: readonly string[],
  { wordings, vocabularySize, shape }: { wordings: readonly string[]; vocabularySize: number; shape: ItemCodesShape },
): PromptTokenizer {
  if (vocabularySize < TEXT_VOCABULARY_MIN) {
    throw new BadInputError(`render.vocabularySize: expected at least ${TEXT_VOCABULARY_MIN}, got ${vocabularySize}`);
  }
  const learned = learnTokenizer(texts, { wordings, vocabularySize });
  const firstItemToken = learned.tokens.length;
  const file = tokenizerFile(learned, itemTokenEntries({ ...shape, firstId: firstItemToken }));
  return promptTokenizer(file, { firstItemToken, shape, bosToken: learned.tokens.indexOf(SPECIAL_TOKENS.bos) });
}

/** `tokenizerJson` and `configJson`: the parsed files of a Hugging Face model directory. */
export function extendedPromptTokenizer(
  { tokenizerJson, configJson }: { tokenizerJson: unknown; configJson: unknown },
  shape: ItemCodesShape,
): PromptTokenizer {
  const base = tokenizerJson as
    { added_tokens?: { id: number }[]; model?: { vocab?: Record<string, number> } } | undefined;
  const config = configJson as { vocab_size?: unknown; bos_token_id?: unknown } | undefined;
  const vocab = base?.model?.vocab;
  if (vocab === undefined || typeof config?.vocab_size !== 'number') {
    throw new BadInputError('base model: expected tokenizer.json with model.vocab and config.json with vocab_size');
  }
  const added = base?.added_tokens ?? [];
  let firstItemToken = config.vocab_size;
  for (const id of [...Object.values(vocab), ...added.map((token) => token.id)]) {
    if (id >= firstItemToken) firstItemToken = id + 1;
  }
  const file = { ...base, added_tokens: [...added, ...itemTokenEntries({ ...shape, firstId: firstItemToken })] };
  const bosToken = typeof config.bos_token_id === 'number' ? config.bos_token_id : null;
  return promptTokenizer(file, { firstItemToken, shape, bosToken });
}

function promptTokenizer(
  file: object,
  { firstItemToken, shape, bosToken }: { firstItemToken: number; shape: ItemCodesShape; bosToken: number | null },
): PromptTokenizer {
  const end = firstItemToken + shape.levels * shape.codes;
  const tokenizer = new HubTokenizer(file, {});
  return {
    file,
    firstItemToken,
    vocabularySize: Math.ceil(end / SIZE_MULTIPLE) * SIZE_MULTIPLE,
    bosToken,
    encode: (text) => tokenizer.encode(text, { add_special_tokens: false }).ids,
  };
}
