/**
 * Dense linear algebra in float64 on row-major arrays: what the closed-form cure and the Fréchet distance need, for
 * n up to about a thousand. All products go through one kernel ({@link addProducts}).
 */
import { kernel, TILE } from "./kernel.ts";

type Real = Float64Array | Float32Array;

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

/** Rows that are substituted at once. */
const BLOCK = 32;

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

/** A matrix that is read where it lies: element (i, p) is data[at + i · down + p · across]. */
interface View {
  readonly data: Real;
  readonly at: number;
  readonly down: number;
  readonly across: number;
}

/** The rows of a matrix of so many columns, and its columns as rows. */
const rowsOf = (data: Real, columns: number, at = 0): View => ({ data, at, down: columns, across: 1 });
const columnsOf = (data: Real, columns: number): View => ({ data, at: 0, down: 1, across: columns });

/** Blocks that fit caches (Goto and van de Geijn 2008): rows of the left factor, of the right one, and products summed at once. */
const LEFT = 64, RIGHT = 512, DEPTH = 256;

const up = (n: number): number => TILE * Math.ceil(n / TILE);

/** Copies rows `from` ≤ i < `to`, columns `begin` ≤ p < `end` as panels of TILE rows, column by column; zeros fill the last. */
const pack = (into: Float64Array, v: View, from: number, to: number, begin: number, end: number): void => {
  const { data, down, across } = v;
  let w = 0;
  for (let i = from; i < to; i += TILE) {
    const real = Math.min(TILE, to - i);
    for (let p = begin, at = v.at + i * down + begin * across; p < end; p++, at += across) {
      for (let r = 0; r < TILE; r++) into[w++] = r < real ? data[at + r * down] : 0;
    }
  }
};

/**
 * out[i, j] += sign · Σₚ a(i, p) b(j, p) for i < m, j < n and p < k; the rows of `out` begin every `stride` numbers from `at` on.
 * @param half leaves out blocks in which every i > j
 */
const addProducts = (
  out: Float64Array,
  { at = 0, stride, sign = 1, half = false }: { at?: number; stride: number; sign?: 1 | -1; half?: boolean },
  a: View,
  m: number,
  b: View,
  n: number,
  k: number,
): void => {
  if (m === 0 || n === 0 || k === 0) return;
  const { memory, products } = kernel();
  const widest = up(Math.min(n, RIGHT)), highest = up(Math.min(m, LEFT)), deepest = Math.min(k, DEPTH);
  const [atB, atC] = [highest * deepest, (highest + widest) * deepest];
  const missing = 8 * (atC + highest * widest) - memory.buffer.byteLength;
  if (missing > 0) memory.grow(Math.ceil(missing / 65536));
  const left = new Float64Array(memory.buffer, 0, atB);
  const right = new Float64Array(memory.buffer, 8 * atB, widest * deepest);
  const sums = new Float64Array(memory.buffer, 8 * atC, highest * widest);
  for (let p = 0; p < k; p += DEPTH) {
    const deep = Math.min(k, p + DEPTH);
    for (let j = 0; j < n; j += RIGHT) {
      const last = Math.min(n, j + RIGHT), columns = up(last - j);
      pack(right, b, j, last, p, deep);
      for (let i = 0; i < m && !(half && i >= last); i += LEFT) {
        const end = Math.min(m, i + LEFT);
        pack(left, a, i, end, p, deep);
        products(0, 8 * atB, 8 * atC, up(end - i) / TILE, columns / TILE, deep - p);
        for (let r = i; r < end; r++) {
          const from = (r - i) * columns, to = at + r * stride + j;
          for (let c = 0; c < last - j; c++) out[to + c] += sign * sums[from + c];
        }
      }
    }
  }
};

/** A·B for A [m, k] and B [k, n]; the result is [m, n]. */
export const matmul = (a: Real, b: Real, m: number, k: number, n: number): Float64Array => {
  expect("the left factor", a, m, k);
  expect("the right factor", b, k, n);
  const out = new Float64Array(m * n);
  addProducts(out, { stride: n }, rowsOf(a, k), m, columnsOf(b, n), n, k);
  return out;
};

/** AᵀB for A [rows, n] and B [rows, k]: the sum over rows of the outer products aᵢᵀbᵢ. The result is [n, k]. */
export const gram = (a: Real, b: Real, rows: number, n: number, k: number): Float64Array => {
  expect("the left factor", a, rows, n);
  expect("the right factor", b, rows, k);
  const out = new Float64Array(n * k);
  const half = a === b && n === k;
  addProducts(out, { stride: k, half }, columnsOf(a, n), n, columnsOf(b, k), k, rows);
  if (half) { for (let i = 0; i < n; i++) for (let j = 0; j < i; j++) out[i * n + j] = out[j * n + i]; }
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
    addProducts(
      xt,
      { at: begin, stride: n, sign: -1 },
      rowsOf(xt, n),
      columns,
      rowsOf(l, n, begin * n),
      end - begin,
      begin,
    );
    for (let c = 0; c < columns; c++) {
      for (let i = begin; i < end; i++) {
        const known = dot(l, i * n + begin, xt, c * n + begin, i - begin);
        xt[c * n + i] = (xt[c * n + i] - known) / l[i * n + i];
      }
    }
  }
};
