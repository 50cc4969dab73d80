/**
 * Item text as vectors without a language model: TF-IDF of one- and two-word terms, then truncated SVD by randomised subspace
 * iteration (Halko, Martinsson, Tropp 2011).
 *
 * 1. Plain doubles in a fixed order; the random start is counter-based; terms are numbered by first appearance.
 * 2. Row i is item i's coordinates on the strongest directions, L2-normalised; zero where the text has no usable term.
 * 3. Each direction's sign is set so that its largest coordinate (first of equals) is positive.
 */
import { symmetricEigen } from './symmetric-eigen.js';
import { log } from './portable-math.js';
import { RANDOM_SITES, RandomSequence } from './random.js';
import { type TextVectorsRecipe } from './recipes.js';

/** Extra directions that sharpen the wanted ones. */
const OVERSAMPLING = 8;

/** Sparse rows: `columns` and `values` of row i lie at `offsets[i] … offsets[i + 1]`. */
export interface TermMatrix {
  rows: number;
  terms: number;
  offsets: Int32Array;
  columns: Int32Array;
  values: Float64Array;
}

/** [texts × dim], row-major; directions that the texts do not have are zero columns. */
export function textVectors(texts: readonly string[], recipe: TextVectorsRecipe): Float32Array {
  const matrix = tfIdf(texts, recipe.minDocuments);
  const vectors = new Float32Array(matrix.rows * recipe.dim);
  const width = Math.min(recipe.dim + OVERSAMPLING, matrix.rows, matrix.terms);
  if (width === 0) return vectors;
  const coordinates = principalCoordinates(matrix, { width, iterations: recipe.iterations, seed: recipe.seed });
  const used = Math.min(width, recipe.dim);
  for (let row = 0; row < matrix.rows; row += 1) {
    let squares = 0;
    for (let d = 0; d < used; d += 1) squares += (coordinates[d]?.[row] ?? 0) ** 2;
    const scale = squares > 1e-24 ? 1 / Math.sqrt(squares) : 0;
    for (let d = 0; d < used; d += 1) vectors[row * recipe.dim + d] = (coordinates[d]?.[row] ?? 0) * scale;
  }
  return vectors;
}

/** Lower-case runs of letters and digits. */
export function wordsOf(text: string): string[] {
  return text.toLowerCase().match(/[\p{L}\p{N}]+/gu) ?? [];
}

/** (1 + ln tf) · (ln((1 + n) / (1 + df)) + 1), rows L2-normalised; terms of fewer than `minDocuments` texts left out. */
export function tfIdf(texts: readonly string[], minDocuments: number): TermMatrix {
  const numbers = new Map<string, number>();
  const documents: number[] = [];
  const perText = texts.map((text) => {
    const counts = new Map<number, number>();
    for (const term of termsOf(text)) {
      const number = numbers.get(term) ?? numbers.size;
      if (number === numbers.size) numbers.set(term, number);
      if (!counts.has(number)) documents[number] = (documents[number] ?? 0) + 1;
      counts.set(number, (counts.get(number) ?? 0) + 1);
    }
    return counts;
  });
  const columnOf = new Int32Array(numbers.size).fill(-1);
  let terms = 0;
  documents.forEach((count, number) => {
    if (count < minDocuments) return;
    columnOf[number] = terms;
    terms += 1;
  });
  const offsets = new Int32Array(texts.length + 1);
  const columns: number[] = [];
  const values: number[] = [];
  perText.forEach((counts, row) => {
    const start = columns.length;
    let squares = 0;
    for (const [number, count] of counts) {
      const column = columnOf[number] ?? -1;
      if (column < 0) continue;
      const inverse = log((1 + texts.length) / (1 + (documents[number] ?? 0))) + 1;
      const value = (1 + log(count)) * inverse;
      columns.push(column);
      values.push(value);
      squares += value * value;
    }
    const scale = squares > 0 ? 1 / Math.sqrt(squares) : 0;
    for (let i = start; i < values.length; i += 1) values[i] = (values[i] ?? 0) * scale;
    offsets[row + 1] = columns.length;
  });
  return { rows: texts.length, terms, offsets, columns: Int32Array.from(columns), values: Float64Array.from(values) };
}

function* termsOf(text: string): Generator<string> {
  let previous: string | null = null;
  for (const word of wordsOf(text)) {
    yield word;
    if (previous !== null) yield `${previous} ${word}`;
    previous = word;
  }
}

/** Columns U·S of the truncated SVD, strongest first; each has one value a row of the matrix. */
function principalCoordinates(
  matrix: TermMatrix,
  { width, iterations, seed }: { width: number; iterations: number; seed: number },
): Float64Array[] {
  const random = new RandomSequence({ seed, site: RANDOM_SITES.textProjection, stream: 0 });
  let directions: Float64Array = Float64Array.from({ length: matrix.terms * width }, () => random.normal());
  let basis: Float64Array[] = [];
  for (let iteration = 0; iteration <= iterations; iteration += 1) {
    basis = orthonormal(columnsOf(times(matrix, directions, width), width));
    directions = transposedTimes(matrix, rowsOf(basis, matrix.rows), width);
  }
  // `directions` is now Xᵀ·Q: its Gram matrix holds the squared singular values of X within the basis.
  const projected = columnsOf(directions, width);
  const gram = projected.map((a) => Float64Array.from(projected, (b) => dot(a, b)));
  const { values, vectors } = symmetricEigen(gram);
  return values.map((value, k) => {
    const column = new Float64Array(matrix.rows);
    const strength = Math.sqrt(Math.max(value, 0));
    basis.forEach((base, j) => addScaled(column, base, (vectors[k]?.[j] ?? 0) * strength));
    return withPositivePeak(column);
  });
}

/** X·D for D [terms × width] row-major, so that the inner loop walks memory in order. */
function times(matrix: TermMatrix, directions: Float64Array, width: number): Float64Array {
  const out = new Float64Array(matrix.rows * width);
  for (let row = 0; row < matrix.rows; row += 1) {
    const end = matrix.offsets[row + 1] ?? 0;
    for (let i = matrix.offsets[row] ?? 0; i < end; i += 1) {
      addRow(
        { into: out, at: row * width, from: directions, start: (matrix.columns[i] ?? 0) * width, width },
        matrix.values[i] ?? 0,
      );
    }
  }
  return out;
}

/** Xᵀ·C for C [rows × width] row-major. */
function transposedTimes(matrix: TermMatrix, coordinates: Float64Array, width: number): Float64Array {
  const out = new Float64Array(matrix.terms * width);
  for (let row = 0; row < matrix.rows; row += 1) {
    const end = matrix.offsets[row + 1] ?? 0;
    for (let i = matrix.offsets[row] ?? 0; i < end; i += 1) {
      addRow(
        { into: out, at: (matrix.columns[i] ?? 0) * width, from: coordinates, start: row * width, width },
        matrix.values[i] ?? 0,
      );
    }
  }
  return out;
}

interface RowAddition {
  into: Float64Array;
  at: number;
  from: Float64Array;
  start: number;
  width: number;
}

function addRow({ into, at, from, start, width }: RowAddition, scale: number): void {
  for (let w = 0; w < width; w += 1) into[at + w] = (into[at + w] ?? 0) + scale * (from[start + w] ?? 0);
}

function columnsOf(rowMajor: Float64Array, width: number): Float64Array[] {
  const rows = rowMajor.length / width;
  return Array.from({ length: width }, (_, w) =>
    Float64Array.from({ length: rows }, (__, row) => rowMajor[row * width + w] ?? 0),
  );
}

function rowsOf(columns: readonly Float64Array[], rows: number): Float64Array {
  const out = new Float64Array(rows * columns.length);
  columns.forEach((column, w) => column.forEach((value, row) => (out[row * columns.length + w] = value)));
  return out;
}

/** Modified Gram–Schmidt, twice for accuracy; a column that depends on earlier ones becomes zero. */
function orthonormal(columns: Float64Array[]): Float64Array[] {
  const basis: Float64Array[] = [];
  for (const column of columns) {
    const before = Math.sqrt(dot(column, column));
    for (let pass = 0; pass < 2; pass += 1) {
      for (const base of basis) addScaled(column, base, -dot(column, base));
    }
    const norm = Math.sqrt(dot(column, column));
    const scale = norm > 1e-10 * before ? 1 / norm : 0;
    basis.push(column.map((value) => value * scale));
  }
  return basis;
}

function withPositivePeak(column: Float64Array): Float64Array {
  let peak = 0;
  for (const value of column) if (Math.abs(value) > Math.abs(peak)) peak = value;
  return peak < 0 ? column.map((value) => -value) : column;
}

function dot(a: Float64Array, b: Float64Array): number {
  let sum = 0;
  for (let i = 0; i < a.length; i += 1) sum += (a[i] ?? 0) * (b[i] ?? 0);
  return sum;
}

function addScaled(into: Float64Array, from: Float64Array, scale: number): void {
  for (let i = 0; i < into.length; i += 1) into[i] = (into[i] ?? 0) + scale * (from[i] ?? 0);
}
