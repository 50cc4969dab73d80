/**
 * Text vectors that a user brings: rows by external item id become rows by item index, L2-normalised.
 *
 * 1. An item without a row, or with a row of zeros, has a row of zeros: it is an item without text.
 * 2. Ids are the tensor `item_id` (whole numbers, compared as decimal text), or a JSON list of strings in the metadata field
 *    `items`.
 */
import { BadInputError } from './domain-job.js';
import { type SafetensorsFile } from './safetensors.js';

export interface BroughtVectors {
  dim: number;
  /** [items, dim] */
  rows: Float32Array;
  withoutText: number;
}

/** `items`: external ids by index. */
export function alignVectors(file: SafetensorsFile, items: readonly string[]): BroughtVectors {
  const { data, shape } = file.f32('vectors', [-1, -1]);
  const [count = 0, dim = 0] = shape;
  const rowOf = new Map(idsOf(file, count).map((id, row) => [id, row]));
  if (rowOf.size < count)
    throw new BadInputError(`vectors: expected one row an item, got ${count - rowOf.size} ids twice`);
  const rows = new Float32Array(items.length * dim);
  let withoutText = 0;
  items.forEach((id, index) => {
    const row = rowOf.get(id);
    const values = row === undefined ? null : data.subarray(row * dim, (row + 1) * dim);
    if (values === null || !placeUnitRow(values, rows.subarray(index * dim, (index + 1) * dim), id)) withoutText += 1;
  });
  if (withoutText === items.length) {
    const shown = [...rowOf.keys()].slice(0, 3).join(', ');
    throw new BadInputError(
      `vectors: expected ids of the catalogue such as ${items.slice(0, 3).join(', ')}, got none of them but ${shown}; ` +
        'give the ids that the log has',
    );
  }
  return { dim, rows, withoutText };
}

function idsOf(file: SafetensorsFile, count: number): string[] {
  const listed = file.metadata['items'];
  if (listed === undefined) return Array.from(file.integers('item_id', [count]), String);
  const ids: unknown = JSON.parse(listed);
  const isText = (id: unknown): id is string => typeof id === 'string';
  if (Array.isArray(ids) && ids.length === count && ids.every(isText)) return ids;
  throw new BadInputError(`vectors: expected a JSON list of ${count} strings in the metadata field 'items'`);
}

/** False, and nothing placed, for a row of zeros. */
function placeUnitRow(values: Float32Array, to: Float32Array, id: string): boolean {
  let squares = 0;
  for (const value of values) squares += value * value;
  if (!Number.isFinite(squares)) throw new BadInputError(`vectors: expected finite numbers, got others for item ${id}`);
  if (squares === 0) return false;
  const length = Math.sqrt(squares);
  values.forEach((value, i) => (to[i] = value / length));
  return true;
}
