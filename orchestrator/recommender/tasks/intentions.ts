/**
 * Intentions: what a shopper who looks for an item might type, where nobody wrote it down.
 *
 * 1. An intention that the catalogue brings is the item's only one.
 * 2. Else every wording gives one, made from the item's words: {words} (the rarest of title and keywords, in their order),
 *    {brand}, {category} (the last, narrowest one) and {keywords}. A part does not repeat the words of one
 *    before it; a wording that an item lacks a part of is left out, equal ones count once.
 * 3. Words that most items have tell nothing apart and are dropped; so are words that are no more than a number.
 */
import { type CatalogueItem } from '../catalogue.js';
import { wordsOf } from '../text-vectors.js';
import { WordingError } from './template.js';

/** Share of the items beyond which a word is dropped. */
const COMMON_SHARE = 0.5;
const WORDS_MAX = 4;
const KEYWORDS_MAX = 5;
/** Below this number of items a share says nothing. */
const COMMON_ITEMS_MIN = 10;

const PARTS = ['words', 'brand', 'category', 'keywords'] as const;
type Part = (typeof PARTS)[number];

/** The intentions of every item, each item's as a list; empty where it has no text. */
export function intentionsOf(catalogue: readonly CatalogueItem[], wordings: readonly string[]): string[][] {
  const holders = countHolders(catalogue);
  return catalogue.map((item) => {
    const given = item.intention?.trim() ?? '';
    if (given !== '') return [given];
    const parts = partsOf(item, { holders, items: catalogue.length });
    return [...new Set(wordings.map((wording) => filled(wording, parts)).filter((text) => text !== ''))];
  });
}

/** A WordingError unless every placeholder is known and there is one. */
export function checkIntentionWording(wording: string, path: readonly string[]): void {
  const names = [...wording.matchAll(/\{([^{}]*)\}/g)].map(([, name]) => name ?? '');
  const unknown = names.find((name) => !PARTS.includes(name as Part));
  const rest = wording.replace(/\{[^{}]*\}/g, '');
  if (names.length > 0 && unknown === undefined && !/[{}]|=>/.test(rest)) return;
  const known = PARTS.map((name) => `{${name}}`).join(', ');
  throw new WordingError(path, `expected words with one or more of ${known}, got ${JSON.stringify(wording)}`);
}

function filled(wording: string, parts: Record<Part, string>): string {
  let lacks = false;
  const said = new Set<string>();
  const text = wording.replace(/\{([^{}]*)\}/g, (_, name: string) => {
    const fresh = parts[name as Part].split(' ').filter((word) => word !== '' && !said.has(word));
    if (fresh.length === 0) lacks = true;
    for (const word of fresh) said.add(word);
    return fresh.join(' ');
  });
  return lacks ? '' : text;
}

/** Items by word: how many have it in the text that intentions are made from. */
function countHolders(catalogue: readonly CatalogueItem[]): Map<string, number> {
  const holders = new Map<string, number>();
  for (const { title, brand, categories, keywords } of catalogue) {
    for (const word of new Set(wordsOf(`${title} ${brand} ${categories} ${keywords}`))) {
      holders.set(word, (holders.get(word) ?? 0) + 1);
    }
  }
  return holders;
}

function partsOf(
  { title, brand, categories, keywords }: CatalogueItem,
  { holders, items }: { holders: ReadonlyMap<string, number>; items: number },
): Record<Part, string> {
  const most = items < COMMON_ITEMS_MIN ? Infinity : COMMON_SHARE * items;
  const tells = (word: string): boolean => (holders.get(word) ?? 0) <= most && !/^\p{N}+$/u.test(word);
  const kept = (text: string): string[] => [...new Set(wordsOf(text))].filter(tells);
  const category = categories.split(/[>,;|]/).findLast((part) => part.trim() !== '') ?? '';
  const own = kept(`${title} ${keywords}`);
  const rarest = own
    .map((word, place) => ({ place, count: holders.get(word) ?? 0 }))
    .sort((a, b) => a.count - b.count || a.place - b.place)
    .slice(0, WORDS_MAX)
    .sort((a, b) => a.place - b.place);
  return {
    words: rarest.map(({ place }) => own[place]).join(' '),
    brand: kept(brand).join(' '),
    category: kept(category).join(' '),
    keywords: kept(keywords).slice(0, KEYWORDS_MAX).join(' '),
  };
}
