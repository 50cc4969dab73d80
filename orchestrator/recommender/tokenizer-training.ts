/**
 * A byte-level BPE tokenizer learned from item text and prompt wordings, in the form of a Hugging Face `tokenizer.json`.
 *
 * 1. Ids: special tokens, the 256 bytes, merges in the order learned; the item tokens come behind, one block of codes a level.
 * 2. Every merge takes the most frequent pair; of equals the pair with the smaller left id, then the smaller right id. No word
 *    order, locale or hash order enters.
 * 3. Wordings of the prompts count once for every text, so that they become few tokens.
 */
export const SPECIAL_TOKENS = { pad: '<pad>', bos: '<bos>', eos: '<eos>' } as const;
const SPECIALS: readonly string[] = [SPECIAL_TOKENS.pad, SPECIAL_TOKENS.bos, SPECIAL_TOKENS.eos];
const BYTES = 256;
/** Smallest vocabulary: no merges at all. */
export const TEXT_VOCABULARY_MIN = SPECIALS.length + BYTES;
const LEVELS_MAX = 26;

/** How ByteLevel splits text into words before merging (GPT-2's expression). */
const WORDS = /'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+/gu;

export interface LearnedTokenizer {
  /** Token text (bytes in their printable form) by id, special tokens first. */
  tokens: string[];
  merges: [string, string][];
}

export interface TokenizerFile {
  version: '1.0';
  added_tokens: AddedTokenEntry[];
  model: { type: 'BPE'; vocab: Record<string, number>; merges: [string, string][]; [option: string]: unknown };
  [section: string]: unknown;
}

export interface AddedTokenEntry {
  id: number;
  content: string;
  single_word: boolean;
  lstrip: boolean;
  rstrip: boolean;
  normalized: boolean;
  special: boolean;
}

export function learnTokenizer(
  texts: readonly string[],
  { wordings, vocabularySize }: { wordings: readonly string[]; vocabularySize: number },
): LearnedTokenizer {
  const words = new WordCounts();
  for (const text of texts) words.addText(text, 1);
  for (const wording of wordings) words.addText(wording, Math.max(1, texts.length));
  const tokens = [...SPECIALS, ...BYTE_CHARACTERS];
  const merges: [string, string][] = [];
  const ids = new Map(tokens.map((token, id) => [token, id]));
  const learner = new PairLearner(words);
  while (tokens.length < vocabularySize) {
    const pair = learner.mostFrequent();
    if (pair === null) break;
    const left = tokens[pair.left] ?? '';
    const right = tokens[pair.right] ?? '';
    // Two pairs may spell the same token; it keeps its first id.
    const id = ids.get(left + right) ?? tokens.length;
    if (id === tokens.length) tokens.push(left + right);
    ids.set(left + right, id);
    merges.push([left, right]);
    learner.merge(pair, id);
  }
  return { tokens, merges };
}

/** Item token of a code: `<a_0>` for code 0 of the first level. */
export function itemToken(level: number, code: number): string {
  return `<${String.fromCharCode('a'.charCodeAt(0) + level)}_${code}>`;
}

/** Entries of all item tokens, in id order: level by level. */
export function itemTokenEntries({
  levels,
  codes,
  firstId,
}: {
  levels: number;
  codes: number;
  firstId: number;
}): AddedTokenEntry[] {
  if (levels > LEVELS_MAX) throw new Error(`item tokens have letters for ${LEVELS_MAX} levels, got ${levels}`);
  return Array.from({ length: levels * codes }, (_, i) =>
    addedToken({ id: firstId + i, content: itemToken(Math.floor(i / codes), i % codes), special: false }),
  );
}

/** Names for ids from `first` to before `end` that no text and no item has. */
export function unusedTokenEntries(first: number, end: number): AddedTokenEntry[] {
  return Array.from({ length: Math.max(0, end - first) }, (_, i) =>
    addedToken({ id: first + i, content: `<unused_${first + i}>`, special: true }),
  );
}

export function tokenizerFile(learned: LearnedTokenizer, itemTokens: AddedTokenEntry[]): TokenizerFile {
  const vocab = Object.fromEntries(learned.tokens.map((token, id) => [token, id]));
  const byteLevel = { type: 'ByteLevel', add_prefix_space: false, trim_offsets: true, use_regex: true };
  return {
    version: '1.0',
    truncation: null,
    padding: null,
    added_tokens: [...SPECIALS.map((content, id) => addedToken({ id, content, special: true })), ...itemTokens],
    normalizer: null,
    pre_tokenizer: byteLevel,
    post_processor: null,
    decoder: byteLevel,
    model: {
      type: 'BPE',
      dropout: null,
      unk_token: null,
      continuing_subword_prefix: null,
      end_of_word_suffix: null,
      fuse_unk: false,
      byte_fallback: false,
      ignore_merges: false,
      vocab,
      merges: learned.merges,
    },
  };
}

/** The trainer's own encoding of plain text, for checking that other readers of the file agree. */
export function encodeWithLearned(learned: LearnedTokenizer, text: string): number[] {
  const ids = new Map(learned.tokens.map((token, id) => [token, id]));
  const ranks = new Map(learned.merges.map(([left, right], rank) => [`${left} ${right}`, rank]));
  return (text.match(WORDS) ?? []).flatMap((word) => {
    const parts = [...byteCharactersOf(word)];
    for (;;) {
      let best = Infinity;
      let place = -1;
      for (let i = 0; i + 1 < parts.length; i += 1) {
        const rank = ranks.get(`${parts[i]} ${parts[i + 1]}`) ?? Infinity;
        if (rank < best) [best, place] = [rank, i];
      }
      if (place < 0) return parts.map((part) => ids.get(part) ?? -1);
      parts.splice(place, 2, `${parts[place]}${parts[place + 1]}`);
    }
  });
}

function addedToken({ id, content, special }: { id: number; content: string; special: boolean }): AddedTokenEntry {
  return { id, content, single_word: false, lstrip: false, rstrip: false, normalized: false, special };
}

/** Printable stand-ins of the 256 bytes: the byte's own character where it is printable, else the next one from U+0100 on. */
const BYTE_CHARACTERS: readonly string[] = byteCharacters();

function byteCharacters(): string[] {
  const isPrintable = (byte: number): boolean =>
    (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xac) || (byte >= 0xae && byte <= 0xff);
  let next = BYTES;
  return Array.from({ length: BYTES }, (_, byte) => {
    if (isPrintable(byte)) return String.fromCharCode(byte);
    next += 1;
    return String.fromCharCode(next - 1);
  });
}

function byteCharactersOf(text: string): string {
  return Array.from(Buffer.from(text, 'utf8'), (byte) => BYTE_CHARACTERS[byte]).join('');
}

/** Distinct words in order of first appearance, as token ids, with their counts. */
class WordCounts {
  readonly words: number[][] = [];
  readonly counts: number[] = [];
  private readonly numbers = new Map<string, number>();

  addText(text: string, times: number): void {
    for (const word of text.match(WORDS) ?? []) {
      let number = this.numbers.get(word);
      if (number === undefined) {
        number = this.words.length;
        this.numbers.set(word, number);
        this.words.push(Array.from(Buffer.from(word, 'utf8'), (byte) => SPECIALS.length + byte));
        this.counts.push(0);
      }
      this.counts[number] = (this.counts[number] ?? 0) + times;
    }
  }
}

/** Pair (left, right) as one number; ids stay far below 2^20. */
const PAIR_BASE = 1 << 20;

interface TokenPair {
  left: number;
  right: number;
}

/** Counts of neighbouring tokens, kept up to date while words are merged. */
class PairLearner {
  private readonly pairCounts = new Map<number, number>();
  /** Words that have held the pair at some time. */
  private readonly wordsOfPair = new Map<number, Set<number>>();

  constructor(private readonly from: WordCounts) {
    from.words.forEach((_, word) => this.count(word, 1));
  }

  /** Null when no pair occurs twice. */
  mostFrequent(): TokenPair | null {
    let best = -1;
    let bestCount = 1;
    for (const [pair, count] of this.pairCounts) {
      if (count > bestCount || (count === bestCount && best >= 0 && pair < best)) [best, bestCount] = [pair, count];
    }
    return best < 0 ? null : { left: Math.floor(best / PAIR_BASE), right: best % PAIR_BASE };
  }

  merge({ left, right }: TokenPair, newId: number): void {
    const pair = left * PAIR_BASE + right;
    for (const word of this.wordsOfPair.get(pair) ?? []) {
      this.count(word, -1);
      this.from.words[word] = mergedWord(this.from.words[word] ?? [], { left, right, newId });
      this.count(word, 1);
    }
    this.wordsOfPair.delete(pair);
  }

  private count(word: number, sign: 1 | -1): void {
    const ids = this.from.words[word] ?? [];
    const amount = sign * (this.from.counts[word] ?? 0);
    for (let i = 0; i + 1 < ids.length; i += 1) {
      const pair = (ids[i] ?? 0) * PAIR_BASE + (ids[i + 1] ?? 0);
      const after = (this.pairCounts.get(pair) ?? 0) + amount;
      if (after === 0) this.pairCounts.delete(pair);
      else this.pairCounts.set(pair, after);
      if (sign < 0) continue;
      const words = this.wordsOfPair.get(pair);
      if (words === undefined) this.wordsOfPair.set(pair, new Set([word]));
      else words.add(word);
    }
  }
}

function mergedWord(ids: number[], { left, right, newId }: { left: number; right: number; newId: number }): number[] {
  const merged: number[] = [];
  for (let i = 0; i < ids.length; i += 1) {
    if (ids[i] === left && ids[i + 1] === right) {
      merged.push(newId);
      i += 1;
    } else merged.push(ids[i] ?? 0);
  }
  return merged;
}
