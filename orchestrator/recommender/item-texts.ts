/**
 * Texts of items on their way from a metadata file to the catalogue.
 *
 * 1. Of items that no event names only the id is kept, so that memory follows the log and not a shop's whole catalogue.
 * 2. The first record of an item counts; later ones are repeats.
 */
import { type ImportedText } from './event-log.js';
import { ownCopy } from './files.js';

export class ItemTexts {
  private readonly texts = new Map<string, ImportedText>();
  private readonly unused = new Set<string>();

  /** `isWanted` tells items with events; left out, all texts are kept: the events are read later. */
  constructor(private readonly isWanted: (item: string) => boolean = () => true) {}

  get size(): number {
    return this.texts.size + this.unused.size;
  }

  has(item: string): boolean {
    return this.texts.has(item) || this.unused.has(item);
  }

  get(item: string): ImportedText | undefined {
    return this.texts.get(item);
  }

  add(item: string, { title, brand, categories, keywords, description, intention }: ImportedText): void {
    if (!this.isWanted(item)) {
      this.unused.add(ownCopy(item));
      return;
    }
    this.texts.set(ownCopy(item), {
      title: ownCopy(title),
      brand: ownCopy(brand),
      categories: ownCopy(categories),
      keywords: ownCopy(keywords),
      description: ownCopy(description),
      ...(intention === undefined ? {} : { intention: ownCopy(intention) }),
    });
  }
}
