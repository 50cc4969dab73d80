/**
 * Eigenvalues and eigenvectors of a small symmetric matrix by cyclic Jacobi rotations: slow (n³ a sweep), simple and the same bits
 * everywhere. Values descend; equal values keep the order of their diagonal places.
 */
const SWEEPS_MAX = 60;
const OFF_DIAGONAL_SHARE = 1e-26;

export interface Eigen {
  values: number[];
  /** `vectors[k]` belongs to `values[k]`, unit length. */
  vectors: Float64Array[];
}

export function symmetricEigen(matrix: readonly Float64Array[]): Eigen {
  const n = matrix.length;
  const a = matrix.map((row) => row.slice());
  const rotations = Array.from({ length: n }, (_, i) => {
    const row = new Float64Array(n);
    row[i] = 1;
    return row;
  });
  for (let sweep = 0; sweep < SWEEPS_MAX && !isDiagonal(a); sweep += 1) {
    for (let p = 0; p < n; p += 1) for (let q = p + 1; q < n; q += 1) rotate(a, rotations, p, q);
  }
  const order = Array.from({ length: n }, (_, i) => i).sort((i, j) => at(a, j, j) - at(a, i, i) || i - j);
  return { values: order.map((i) => at(a, i, i)), vectors: order.map((i) => rotations[i] ?? new Float64Array(n)) };
}

/** Makes a[p][q] zero by one rotation; row k of `rotations` gathers eigenvector k. */
function rotate(a: Float64Array[], rotations: Float64Array[], p: number, q: number): void {
  const apq = at(a, p, q);
  if (apq === 0) return;
  const theta = (at(a, q, q) - at(a, p, p)) / (2 * apq);
  const tangent = (theta >= 0 ? 1 : -1) / (Math.abs(theta) + Math.sqrt(theta * theta + 1));
  const cosine = 1 / Math.sqrt(tangent * tangent + 1);
  const sine = tangent * cosine;
  for (let k = 0; k < a.length; k += 1) {
    const row = a[k];
    if (row !== undefined) mix(row, p, row, q, cosine, sine);
  }
  const [rowP, rowQ, vectorP, vectorQ] = [a[p], a[q], rotations[p], rotations[q]];
  if (rowP === undefined || rowQ === undefined || vectorP === undefined || vectorQ === undefined) return;
  for (let k = 0; k < a.length; k += 1) {
    mix(rowP, k, rowQ, k, cosine, sine);
    mix(vectorP, k, vectorQ, k, cosine, sine);
  }
}

/** (x, y) ← (c·x − s·y, s·x + c·y) for x = first[i], y = second[j]. */
function mix(first: Float64Array, i: number, second: Float64Array, j: number, cosine: number, sine: number): void {
  const x = first[i] ?? 0;
  const y = second[j] ?? 0;
  first[i] = cosine * x - sine * y;
  second[j] = sine * x + cosine * y;
}

function isDiagonal(a: readonly Float64Array[]): boolean {
  let off = 0;
  let all = 0;
  for (let i = 0; i < a.length; i += 1) {
    for (let j = 0; j < a.length; j += 1) {
      const square = at(a, i, j) ** 2;
      all += square;
      if (i !== j) off += square;
    }
  }
  return off <= all * OFF_DIAGONAL_SHARE;
}

function at(a: readonly Float64Array[], i: number, j: number): number {
  return a[i]?.[j] ?? 0;
}
