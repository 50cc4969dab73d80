/** The catalogue file: line i is item index i, with its external id and text. And the users file beside it. */
import { readNdjson } from './files.js';

export type CatalogueItem = {
  item: string;
  title: string;
  brand: string;
  categories: string;
  keywords: string;
  description: string;
  /** What a shopper who looks for it might type, where the items file has it. */
  intention?: string;
};

const TEXT_FIELDS = ['item', 'title', 'brand', 'categories', 'keywords', 'description'] as const;
const DESCRIPTION_CHARACTERS_MAX = 400;

export async function readCatalogue(path: string): Promise<CatalogueItem[]> {
  return readNdjson(path, asCatalogueItem, `an object with the strings ${TEXT_FIELDS.join(', ')}`);
}

/** External user ids by index. */
export async function readUsers(path: string): Promise<string[]> {
  const check = (value: unknown): string | null => {
    const user = typeof value === 'object' && value !== null ? (value as { user?: unknown }).user : null;
    return typeof user === 'string' ? user : null;
  };
  return readNdjson(path, check, '{"user": string}');
}

/** All text of an item on one line, the beginning of the description only. */
export function itemTextOf({
  title,
  brand,
  categories,
  keywords,
  description,
}: Omit<CatalogueItem, 'item' | 'intention'>): string {
  return [title, brand, categories, keywords, description.slice(0, DESCRIPTION_CHARACTERS_MAX)]
    .filter((part) => part !== '')
    .join(' ');
}

function asCatalogueItem(value: unknown): CatalogueItem | null {
  if (typeof value !== 'object' || value === null) return null;
  const fields = value as Record<string, unknown>;
  if (fields['intention'] !== undefined && typeof fields['intention'] !== 'string') return null;
  return TEXT_FIELDS.every((name) => typeof fields[name] === 'string') ? (value as CatalogueItem) : null;
}
