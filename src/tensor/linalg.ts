/**
 * Dense linear algebra in float64 on row-major arrays: what the closed-form cure and the Fréchet distance need, for
 * n up to about a thousand. All products go through one tile of dot products along rows ({@link addProducts}).
 */

type Real = Float64Array | Float32Array;

/** One element type keeps the inner loops monomorphic; a mix of both costs a factor of several. */
const float64 = (a: Real): Float64Array => a instanceof Float64Array ? a : new Float64Array(a);

const expect = (what: string, a: Real, rows: number, columns: number): void => {
  if (a.length !== rows * columns) {
    throw new RangeError(`linalg: ${what} holds ${a.length} numbers, expected ${rows} × ${columns}`);
  }
};

/** A matrix that should have been symmetric positive definite is not: no Cholesky factor exists. */
export class NotPositiveDefinite extends Error {
  override readonly name = "NotPositiveDefinite";
  /** Row (from 0) at which the factorisation broke down, and the pivot found there. */
  readonly row: number;
  readonly pivot: number;
  constructor(row: number, pivot: number) {
    super(
      Number.isNaN(pivot)
        ? `cholesky: the matrix holds NaN or infinite numbers (seen at row ${row})`
        : `cholesky: the matrix is not positive definite: the pivot of row ${row} is ${pivot}, it must be greater than 0.` +
          " Add more to the diagonal (the ridge term), or check that the matrix is symmetric",
    );
    this.row = row;
    this.pivot = pivot;
  }
}

/** Side of the blocks: that many rows of 1024 numbers stay in a second-level cache. */
const BLOCK = 32;
/** Length of the stretches along the rows: six of them stay in a first-level cache. */
const STRETCH = 512;

const dot = (x: Float64Array, xAt: number, y: Float64Array, yAt: number, n: number): number => {
  // Four partial sums: one running sum would wait for each addition to finish.
  let s0 = 0, s1 = 0, s2 = 0, s3 = 0, i = 0;
  for (; i + 3 < n; i += 4) {
    s0 += x[xAt + i] * y[yAt + i];
    s1 += x[xAt + i + 1] * y[yAt + i + 1];
    s2 += x[xAt + i + 2] * y[yAt + i + 2];
    s3 += x[xAt + i + 3] * y[yAt + i + 3];
  }
  for (; i < n; i++) s0 += x[xAt + i] * y[yAt + i];
  return (s0 + s1) + (s2 + s3);
};

/** Adds `sign` times the 2 × 4 dot products of rows a₀, a₁ with rows b₀ … b₃ to `out`: six loads for eight products. */
const tile = (
  out: Float64Array,
  at: number,
  outStride: number,
  a: Float64Array,
  a0: number,
  b: Float64Array,
  b0: number,
  stride: number,
  length: number,
  sign: number,
): void => {
  const a1 = a0 + stride, b1 = b0 + stride, b2 = b1 + stride, b3 = b2 + stride;
  let s00 = 0, s01 = 0, s02 = 0, s03 = 0, s10 = 0, s11 = 0, s12 = 0, s13 = 0;
  for (let p = 0; p < length; p++) {
    const x = a[a0 + p], y = a[a1 + p], u = b[b0 + p], v = b[b1 + p], w = b[b2 + p], z = b[b3 + p];
    s00 += x * u;
    s01 += x * v;
    s02 += x * w;
    s03 += x * z;
    s10 += y * u;
    s11 += y * v;
    s12 += y * w;
    s13 += y * z;
  }
  const next = at + outStride;
  out[at] += sign * s00;
  out[at + 1] += sign * s01;
  out[at + 2] += sign * s02;
  out[at + 3] += sign * s03;
  out[next] += sign * s10;
  out[next + 1] += sign * s11;
  out[next + 2] += sign * s12;
  out[next + 3] += sign * s13;
};

/**
 * out[i, j] += sign · Σₚ a[i, p] b[j, p] for rows i < m of `a`, rows `from` ≤ j < `to` of `b` and columns p < k;
 * the rows of `a` and `b` begin every `stride` numbers, those of `out` every `outStride`.
 */
const addProducts = (
  out: Float64Array,
  outStride: number,
  a: Float64Array,
  m: number,
  b: Float64Array,
  from: number,
  to: number,
  stride: number,
  k: number,
  sign: number,
): void => {
  for (let p = 0; p < k; p += STRETCH) {
    const length = Math.min(STRETCH, k - p);
    for (let begin = 0; begin < m; begin += BLOCK) {
      const end = Math.min(m, begin + BLOCK), even = end - (end - begin) % 2;
      let j = from;
      for (; j + 3 < to; j += 4) {
        for (let i = begin; i < even; i += 2) {
          tile(out, i * outStride + j, outStride, a, i * stride + p, b, j * stride + p, stride, length, sign);
        }
      }
      // What is left beside the tiles: up to three columns, and the last row when their number is odd.
      for (let i = begin; i < end; i++) {
        for (let c = i < even ? j : from; c < to; c++) {
          out[i * outStride + c] += sign * dot(a, i * stride + p, b, c * stride + p, length);
        }
      }
    }
  }
};

/** A·B for A [m, k] and B [k, n]; the result is [m, n]. */
export const matmul = (a: Real, b: Real, m: number, k: number, n: number): Float64Array => {
  expect("the left factor", a, m, k);
  const out = new Float64Array(m * n);
  addProducts(out, n, float64(a), m, transpose(b, k, n), 0, n, k, k, 1);
  return out;
};

/** AᵀB for A [rows, n] and B [rows, k]: the sum over rows of the outer products aᵢᵀbᵢ. The result is [n, k]. */
export const gram = (a: Real, b: Real, rows: number, n: number, k: number): Float64Array => {
  const at = transpose(a, rows, n);
  const out = new Float64Array(n * k);
  addProducts(out, k, at, n, a === b && n === k ? at : transpose(b, rows, k), 0, k, rows, rows, 1);
  return out;
};

/** Aᵀ for A [m, n]. */
export const transpose = (a: Real, m: number, n: number): Float64Array => {
  expect("the matrix", a, m, n);
  const out = new Float64Array(m * n);
  for (let i = 0; i < m; i++) for (let j = 0; j < n; j++) out[j * m + i] = a[i * n + j];
  return out;
};

/**
 * Lower Cholesky factor L of a symmetric positive definite A [n, n], A = LLᵀ (row by row, Cholesky–Banachiewicz).
 * Only the lower half of A is read; the upper half of L is 0.
 * @throws NotPositiveDefinite
 */
export const cholesky = (a: Float64Array, n: number): Float64Array => {
  expect("the matrix", a, n, n);
  const l = new Float64Array(n * n);
  for (let i = 0; i < n; i++) {
    for (let j = 0; j < i; j++) l[i * n + j] = (a[i * n + j] - dot(l, i * n, l, j * n, j)) / l[j * n + j];
    const pivot = a[i * n + i] - dot(l, i * n, l, i * n, i);
    if (!(pivot > 0) || pivot === Infinity) throw new NotPositiveDefinite(i, pivot === Infinity ? NaN : pivot);
    l[i * n + i] = Math.sqrt(pivot);
  }
  return l;
};

/** Solves A X = B for B [n, columns], given A's Cholesky factor from {@link cholesky}. A new array; B is left alone. */
export const solve = (factor: Float64Array, n: number, b: Real, columns = 1): Float64Array => {
  expect("the factor", factor, n, n);
  expect("the right-hand side", b, n, columns);
  const xt = transpose(b, n, columns); // one right-hand side a row
  substitute(factor, n, xt, columns);
  // Lᵀ with its rows and its columns in reverse order is a lower triangle again: one routine does both halves.
  const reversed = new Float64Array(n * n);
  for (let i = 0; i < n; i++) {
    for (let j = 0; j <= i; j++) reversed[i * n + j] = factor[(n - 1 - j) * n + (n - 1 - i)];
  }
  for (let c = 0; c < columns; c++) xt.subarray(c * n, (c + 1) * n).reverse();
  substitute(reversed, n, xt, columns);
  for (let c = 0; c < columns; c++) xt.subarray(c * n, (c + 1) * n).reverse();
  return transpose(xt, columns, n);
};

/** Forward substitution in place, block by block: each row x of `xt` becomes the solution of L y = x. */
const substitute = (l: Float64Array, n: number, xt: Float64Array, columns: number): void => {
  for (let begin = 0; begin < n; begin += BLOCK) {
    const end = Math.min(n, begin + BLOCK);
    addProducts(xt, n, xt, columns, l, begin, end, n, begin, -1);
    for (let c = 0; c < columns; c++) {
      for (let i = begin; i < end; i++) {
        const known = dot(l, i * n + begin, xt, c * n + begin, i - begin);
        xt[c * n + i] = (xt[c * n + i] - known) / l[i * n + i];
      }
    }
  }
};
