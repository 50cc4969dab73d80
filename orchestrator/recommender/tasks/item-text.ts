/**
 * Text of items as tokens, encoded once for each item and use.
 *
 * 1. At most `tokensMax` tokens; `whole` says whether all of the text is there: a text that was cut has no end.
 * 2. Encoded with what stands before it (nothing, a space, a comma), since a tokenizer sees words with their space.
 */
import { type CatalogueItem } from '../catalogue.js';
import { type TextField } from './task-recipes.js';

export interface EncodedText {
  tokens: Int32Array;
  whole: boolean;
}

export type TextKind = 'title' | 'text' | 'query';
export type Lead = '' | ' ' | ', ';

export class ItemTexts {
  private readonly encoded = new Map<string, EncodedText>();

  constructor(
    private readonly options: {
      catalogue: readonly CatalogueItem[];
      intentions: readonly string[][];
      textOrder: readonly TextField[];
      tokensMax: number;
      encode: (text: string) => number[];
    },
  ) {}

  /** How many different ones there are; 0: the item has no such text. */
  variants(kind: TextKind, item: number): number {
    return kind === 'query' ? (this.options.intentions[item]?.length ?? 0) : Number(this.textOf(kind, item, 0) !== '');
  }

  tokensOf(kind: TextKind, item: number, { lead, variant = 0 }: { lead: Lead; variant?: number }): EncodedText {
    const key = `${kind}${lead}${variant}/${item}`;
    let found = this.encoded.get(key);
    if (found === undefined) {
      const tokens = this.options.encode(lead + this.textOf(kind, item, variant));
      const whole = tokens.length <= this.options.tokensMax;
      found = { tokens: Int32Array.from(whole ? tokens : tokens.slice(0, this.options.tokensMax)), whole };
      this.encoded.set(key, found);
    }
    return found;
  }

  private textOf(kind: TextKind, item: number, variant: number): string {
    const entry = this.options.catalogue[item];
    if (entry === undefined) return '';
    if (kind === 'title') return entry.title.trim();
    if (kind === 'query') return this.options.intentions[item]?.[variant] ?? '';
    return this.options.textOrder
      .map((field) => entry[field].trim())
      .filter((text) => text !== '')
      .join(', ');
  }
}
