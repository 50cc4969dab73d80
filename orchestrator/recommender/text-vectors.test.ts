import { describe, expect, it } from 'vitest';
import { RANDOM_SITES, RandomSequence } from './random.js';
import { symmetricEigen } from './symmetric-eigen.js';
import { textVectors, tfIdf, wordsOf } from './text-vectors.js';

const RECIPE = { dim: 4, minDocuments: 1, iterations: 4, seed: 3 };

function cosine(vectors: Float32Array, dim: number, a: number, b: number): number {
  let sum = 0;
  for (let d = 0; d < dim; d += 1) sum += (vectors[a * dim + d] ?? 0) * (vectors[b * dim + d] ?? 0);
  return sum;
}

describe('tf-idf', () => {
  it('splits text into lower-case words of letters and digits', () => {
    expect(wordsOf('Grüne T-Shirts, 12"!')).toEqual(['grüne', 't', 'shirts', '12']);
  });

  it('keeps words and pairs of enough texts, in unit rows', () => {
    const matrix = tfIdf(['red steel knife', 'red steel pan', 'blue pan'], 2);
    // red, steel, "red steel", pan.
    expect(matrix.terms).toBe(4);
    const rows = [0, 1, 2].map((row) => matrix.values.slice(matrix.offsets[row], matrix.offsets[row + 1]));
    expect(rows.map((row) => row.length)).toEqual([3, 4, 1]);
    for (const row of rows) expect(row.reduce((sum, value) => sum + value * value, 0)).toBeCloseTo(1, 12);
  });
});

describe('text vectors', () => {
  it('put like texts together, in unit rows, and leave texts without terms at zero', () => {
    const texts = ['steel chef knife', 'steel bread knife', 'cotton summer dress', 'cotton winter dress', ''];
    const vectors = textVectors(texts, RECIPE);
    expect(cosine(vectors, 4, 0, 0)).toBeCloseTo(1, 6);
    expect(cosine(vectors, 4, 4, 4)).toBe(0);
    expect(cosine(vectors, 4, 0, 1)).toBeGreaterThan(cosine(vectors, 4, 0, 2) + 0.1);
    expect(cosine(vectors, 4, 2, 3)).toBeGreaterThan(cosine(vectors, 4, 1, 3) + 0.1);
  });

  it('span the same subspace as the exact decomposition', () => {
    const random = new RandomSequence({ seed: 8, site: RANDOM_SITES.test, stream: 0 });
    // Three topics of ten words each: three strong directions.
    const texts = Array.from({ length: 60 }, (_, i) =>
      Array.from({ length: 8 }, () => `w${(i % 3) * 10 + random.below(10)}`).join(' '),
    );
    const matrix = tfIdf(texts, 1);
    const dense = Array.from({ length: matrix.rows }, (_, row) => {
      const values = new Float64Array(matrix.terms);
      for (let i = matrix.offsets[row] ?? 0; i < (matrix.offsets[row + 1] ?? 0); i += 1) {
        values[matrix.columns[i] ?? 0] = matrix.values[i] ?? 0;
      }
      return values;
    });
    const gram = dense.map((a) =>
      Float64Array.from(dense, (b) => a.reduce((sum, value, i) => sum + value * (b[i] ?? 0), 0)),
    );
    const { values, vectors: eigenvectors } = symmetricEigen(gram);
    const found = textVectors(texts, { dim: 3, minDocuments: 1, iterations: 12, seed: 1 });
    for (let row = 0; row < 60; row += 7) {
      for (let other = 0; other < 60; other += 5) {
        const exactRow = (r: number): number[] =>
          [0, 1, 2].map((k) => (eigenvectors[k]?.[r] ?? 0) * Math.sqrt(values[k] ?? 0));
        const [a, b] = [exactRow(row), exactRow(other)];
        const dot = (x: number[], y: number[]): number => x.reduce((sum, value, i) => sum + value * (y[i] ?? 0), 0);
        const exact = dot(a, b) / Math.sqrt(dot(a, a) * dot(b, b));
        expect(Math.abs(cosine(found, 3, row, other) - exact)).toBeLessThan(1e-4);
      }
    }
  });

  it('are a function of the recipe and pad directions that the texts do not have', () => {
    const texts = ['a b', 'b c'];
    const vectors = textVectors(texts, { ...RECIPE, dim: 6 });
    expect([...vectors]).toEqual([...textVectors(texts, { ...RECIPE, dim: 6 })]);
    expect([...vectors.slice(2, 6), ...vectors.slice(8, 12)]).toEqual(new Array(8).fill(0));
    expect([...textVectors(['', ''], RECIPE)]).toEqual(new Array(8).fill(0));
  });
});

describe('symmetricEigen', () => {
  it('gives descending values with unit vectors that the matrix scales', () => {
    const matrix = [Float64Array.of(2, 1, 0), Float64Array.of(1, 3, -1), Float64Array.of(0, -1, 1)];
    const { values, vectors } = symmetricEigen(matrix);
    expect(values.toSorted((a, b) => b - a)).toEqual(values);
    expect(values.reduce((sum, value) => sum + value, 0)).toBeCloseTo(6, 12);
    vectors.forEach((vector, k) => {
      const image = matrix.map((row) => row.reduce((sum, value, i) => sum + value * (vector[i] ?? 0), 0));
      image.forEach((value, i) => expect(value).toBeCloseTo((values[k] ?? 0) * (vector[i] ?? 0), 10));
    });
  });
});
