/**
 * The tokenizer that prompts are rendered with: learned from the item text, or a base model's own with the item tokens appended.
 *
 * 1. Item token ids are consecutive, level by level, and start at `firstItemToken`; nothing else has an id from there on.
 * 2. With a base model they start behind its embedding table, so that no pretrained row changes its meaning. A table is often
 *    larger than the base's tokenizer: the ids between are named, as are those that round the vocabulary up, because the Rust
 *    tokenizers number added tokens one after the other, whatever ids the file gives them.
 */
import { Tokenizer } from '@huggingface/tokenizers';
import { BadInputError } from './domain-job.js';
import {
  itemTokenEntries,
  learnTokenizer,
  SPECIAL_TOKENS,
  TEXT_VOCABULARY_MIN,
  tokenizerFile,
  unusedTokenEntries,
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
  /** Ends an answer of text, or null where the base model has none. */
  eosToken: number | null;
  encode(text: string): number[];
}

const SIZE_MULTIPLE = 8;
const roundedUp = (size: number): number => Math.ceil(size / SIZE_MULTIPLE) * SIZE_MULTIPLE;

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
  const specials = {
    bosToken: learned.tokens.indexOf(SPECIAL_TOKENS.bos),
    eosToken: learned.tokens.indexOf(SPECIAL_TOKENS.eos),
  };
  return promptTokenizer(file, { firstItemToken, shape, ...specials });
}

/** `tokenizerJson` and `configJson`: the parsed files of a Hugging Face model directory. */
export function extendedPromptTokenizer(
  { tokenizerJson, configJson }: { tokenizerJson: unknown; configJson: unknown },
  shape: ItemCodesShape,
): PromptTokenizer {
  const base = tokenizerJson as
    { added_tokens?: { id: number; content: string }[]; model?: { vocab?: Record<string, number> } } | undefined;
  const config = configJson as { vocab_size?: unknown; bos_token_id?: unknown; eos_token_id?: unknown } | undefined;
  const vocab = base?.model?.vocab;
  if (vocab === undefined || typeof config?.vocab_size !== 'number') {
    throw new BadInputError('base model: expected tokenizer.json with model.vocab and config.json with vocab_size');
  }
  const added = base?.added_tokens ?? [];
  let known = 0;
  for (const id of [...Object.values(vocab), ...added.map((token) => token.id)]) known = Math.max(known, id + 1);
  const firstItemToken = Math.max(known, config.vocab_size);
  const itemTokens = itemTokenEntries({ ...shape, firstId: firstItemToken });
  const names = new Set([...Object.keys(vocab), ...added.map((token) => token.content)]);
  const taken = itemTokens.find((token) => names.has(token.content));
  if (taken !== undefined) {
    throw new BadInputError(
      `base model: expected a tokenizer without item tokens, got one that has "${taken.content}"; give the model that was tuned, ` +
        'not one that came of it (to go on from an adapter, name it as the adapter)',
    );
  }
  const end = firstItemToken + itemTokens.length;
  const unused = [...unusedTokenEntries(known, firstItemToken), ...unusedTokenEntries(end, roundedUp(end))];
  const byId = [...itemTokens, ...unused].sort((a, b) => a.id - b.id);
  const file = { ...base, added_tokens: [...added, ...byId] };
  const bosToken = typeof config.bos_token_id === 'number' ? config.bos_token_id : null;
  // Chat models list several; the first one ends a text.
  const [eos] = [config.eos_token_id].flat();
  const eosToken = typeof eos === 'number' ? eos : null;
  return promptTokenizer(file, { firstItemToken, shape, bosToken, eosToken });
}

function promptTokenizer(
  file: object,
  {
    firstItemToken,
    shape,
    bosToken,
    eosToken,
  }: { firstItemToken: number; shape: ItemCodesShape; bosToken: number | null; eosToken: number | null },
): PromptTokenizer {
  const end = firstItemToken + shape.levels * shape.codes;
  const tokenizer = new HubTokenizer(file, {});
  return {
    file,
    firstItemToken,
    vocabularySize: roundedUp(end),
    bosToken,
    eosToken,
    encode: (text) => tokenizer.encode(text, { add_special_tokens: false }).ids,
  };
}
