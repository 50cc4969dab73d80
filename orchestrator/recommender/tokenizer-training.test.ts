import { describe, expect, it } from 'vitest';
import { extendedPromptTokenizer, learnedPromptTokenizer } from './base-tokenizer.js';
import { SEQUENTIAL_TEMPLATES } from './tasks/sequential-wordings.js';
import {
  encodeWithLearned,
  itemToken,
  itemTokenEntries,
  learnTokenizer,
  TEXT_VOCABULARY_MIN,
  tokenizerFile,
} from './tokenizer-training.js';

const TEXTS = [
  "Alderfen ultralight tent, slate: for a hiker's weekend",
  'Alderfen rugged tent, amber   with   spaces',
  'Estrellic compact tent no. 42 – für große Höhen ☂',
  "they're we'll I'd ABC abc 123abc !!! __proto__ constructor",
];
const SHAPE = { levels: 3, codes: 4 };
const OPTIONS = { wordings: SEQUENTIAL_TEMPLATES, vocabularySize: 360 };

describe('the learned tokenizer', () => {
  const learned = learnTokenizer(TEXTS, OPTIONS);

  it('learns the same from the same, up to the size asked for', () => {
    expect(learned.tokens.length).toBe(360);
    expect(new Set(learned.tokens).size).toBe(360);
    expect(learnTokenizer(TEXTS, OPTIONS)).toEqual(learned);
    expect(learnTokenizer([...TEXTS].reverse(), OPTIONS)).toEqual(learned);
    expect(learnTokenizer(['ab'], { wordings: ['x'], vocabularySize: 400 }).tokens.length).toBe(TEXT_VOCABULARY_MIN);
  });

  it('takes the most frequent pair first and the smaller ids of equals', () => {
    const { merges } = learnTokenizer(['cd cd ab ab', 'cd'], { wordings: [], vocabularySize: TEXT_VOCABULARY_MIN + 3 });
    // c-d stands in three words; then ␣-a and a-b tie at two, and the space's id is the smaller one.
    expect(merges[0]).toEqual(['c', 'd']);
    expect(merges[1]).toEqual(['Ġ', 'a']);
  });

  it('is read by the Hugging Face library exactly as the trainer sees it', () => {
    const tokenizer = learnedPromptTokenizer(TEXTS, { ...OPTIONS, shape: SHAPE });
    for (const text of [...TEXTS, ...SEQUENTIAL_TEMPLATES, 'unseen wörds, 7 of them?\n\ttab', ' leading space']) {
      expect(tokenizer.encode(text)).toEqual(encodeWithLearned(learned, text));
    }
  });

  it('makes few tokens of the prompt wordings', () => {
    for (const wording of SEQUENTIAL_TEMPLATES) expect(encodeWithLearned(learned, wording).length).toBeLessThan(16);
  });

  it('gives item tokens consecutive ids behind the text, which the library finds inside text', () => {
    const tokenizer = learnedPromptTokenizer(TEXTS, { ...OPTIONS, shape: SHAPE });
    expect(tokenizer.firstItemToken).toBe(360);
    expect(tokenizer.vocabularySize).toBe(376);
    expect(tokenizer.encode('<a_0><b_3><c_1>')).toEqual([360, 367, 369]);
    expect(tokenizer.encode('tent:<a_1>')).toEqual([...tokenizer.encode('tent:'), 361]);
    expect(tokenizer.encode('<bos>')).toEqual([tokenizer.bosToken]);
    expect(itemToken(25, 9)).toBe('<z_9>');
    expect(() => itemTokenEntries({ levels: 27, codes: 2, firstId: 0 })).toThrow(/26 levels/);
  });

  it('refuses a vocabulary that cannot hold all bytes', () => {
    expect(() => learnedPromptTokenizer(TEXTS, { wordings: [], vocabularySize: 100, shape: SHAPE })).toThrow(
      /render\.vocabularySize: expected at least 259, got 100/,
    );
  });
});

describe('a base tokenizer with item tokens', () => {
  const base = tokenizerFile(learnTokenizer(TEXTS, OPTIONS), []);

  it('keeps its text ids and puts item tokens behind the embedding table', () => {
    const config = { vocab_size: 500, bos_token_id: 1 };
    const tokenizer = extendedPromptTokenizer({ tokenizerJson: base, configJson: config }, SHAPE);
    expect(tokenizer).toMatchObject({ firstItemToken: 500, vocabularySize: 512, bosToken: 1 });
    expect(tokenizer.encode('Alderfen tent<b_0>')).toEqual([
      ...encodeWithLearned(learnTokenizer(TEXTS, OPTIONS), 'Alderfen tent'),
      504,
    ]);
    const short = extendedPromptTokenizer({ tokenizerJson: base, configJson: { vocab_size: 10 } }, SHAPE);
    expect(short).toMatchObject({ firstItemToken: 360, bosToken: null });
  });

  it('names every id behind the text in one row, as readers that count added tokens need it', () => {
    const { file } = extendedPromptTokenizer({ tokenizerJson: base, configJson: { vocab_size: 363 } }, SHAPE);
    const { added_tokens: added } = file as { added_tokens: { id: number; content: string }[] };
    const behindText = added.filter(({ id }) => id >= 360);
    expect(behindText.map(({ id }) => id)).toEqual(Array.from({ length: 376 - 360 }, (_, i) => 360 + i));
    expect(behindText.slice(0, 4).map(({ content }) => content)).toEqual([
      '<unused_360>',
      '<unused_361>',
      '<unused_362>',
      '<a_0>',
    ]);
    expect(behindText.at(-1)?.content).toBe('<unused_375>');
    expect(() => extendedPromptTokenizer({ tokenizerJson: file, configJson: { vocab_size: 376 } }, SHAPE)).toThrow(
      /expected a tokenizer without item tokens, got one that has "<a_0>"/,
    );
  });

  it('needs both files', () => {
    expect(() => extendedPromptTokenizer({ tokenizerJson: {}, configJson: { vocab_size: 1 } }, SHAPE)).toThrow(
      /expected tokenizer\.json with model\.vocab/,
    );
  });
});
