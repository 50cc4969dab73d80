/** Semantic ids: every item's codes as token ids. One block of `codes` token ids a level, first level first. */
import { BadInputError } from './domain-job.js';
import { type SafetensorsFile } from './safetensors.js';

export interface SemanticIds {
  items: number;
  levels: number;
  /** Codes per level. */
  codes: number;
  /** [items × levels]. */
  values: Int32Array;
}

/** `itemCount`: what the catalogue has; ids of other items, repeats and codes out of range are bad input. */
export function readSemanticIds(file: SafetensorsFile, itemCount: number): SemanticIds {
  const { data: values, shape } = file.i32('codes', [-1, -1]);
  const { shape: centroids } = file.f32('centroids', [-1, -1, -1]);
  const [items = 0, levels = 0] = shape;
  const codes = centroids[1] ?? 0;
  if (items !== itemCount) {
    throw new BadInputError(
      `codes: expected one row for each of ${itemCount} items, got ${items}; ingest and codebooks differ`,
    );
  }
  const seen = new Set<string>();
  for (let item = 0; item < items; item += 1) {
    const row = values.subarray(item * levels, (item + 1) * levels);
    if (row.some((code) => code < 0 || code >= codes)) {
      throw new BadInputError(`codes: item ${item}: expected codes from 0 to ${codes - 1}, got ${row.join(', ')}`);
    }
    seen.add(row.join(' '));
  }
  if (seen.size !== items) throw new BadInputError(`codes: expected unique ids, got ${seen.size} for ${items} items`);
  return { items, levels, codes, values };
}

/** [items × levels] token ids. */
export function itemTokenIds(ids: SemanticIds, firstItemToken: number): Int32Array {
  return ids.values.map((code, i) => firstItemToken + (i % ids.levels) * ids.codes + code);
}
