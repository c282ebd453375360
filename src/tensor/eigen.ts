/**
 * Eigenvalues and eigenvectors of a symmetric matrix, in float64: Householder reduction to tridiagonal form, then the
 * QL method with implicit shifts (Bowdler, Martin, Reinsch, Wilkinson: Numerische Mathematik 11, 1968). About 9 n³
 * operations with vectors, 2 n³ without; all inner loops run along rows.
 */
import { transpose } from "./linalg.ts";

export interface Eigen {
  /** In ascending order. */
  readonly values: Float64Array;
  /** [n, n]: row i is the unit eigenvector of value i. */
  readonly vectors: Float64Array;
}

/** Diagonal, the numbers beside it (the last is 0), and the reflections that led there, row by row. */
interface Tridiagonal {
  readonly diagonal: Float64Array;
  readonly beside: Float64Array;
  readonly reflections: Float64Array;
  readonly factors: Float64Array;
}

const tridiagonal = (matrix: Float64Array, n: number): Tridiagonal => {
  const a = matrix.slice();
  const diagonal = new Float64Array(n), beside = new Float64Array(n), factors = new Float64Array(n);
  const reflections = new Float64Array(n * n), p = new Float64Array(n);
  for (let k = 0; k < n; k++) {
    diagonal[k] = a[k * n + k];
    const row = k * n;
    let tail = 0;
    for (let j = k + 2; j < n; j++) tail += a[row + j] * a[row + j];
    if (tail === 0) { // nothing to remove: the row is tridiagonal as it is
      if (k + 1 < n) beside[k] = a[row + k + 1];
      continue;
    }
    // v = x + sign(x₀)‖x‖e₀ and H = 1 − factor · vvᵀ send the row's tail x to a multiple of e₀.
    const v = reflections.subarray(row, row + n);
    v.set(a.subarray(row + k + 1, row + n), k + 1);
    const first = v[k + 1], norm = Math.sqrt(first * first + tail);
    beside[k] = first > 0 ? -norm : norm;
    v[k + 1] = first - beside[k];
    const factor = 2 / (v[k + 1] * v[k + 1] + tail);
    factors[k] = factor;
    // A ← HAH on the part not done yet: A − vwᵀ − wvᵀ with w = p − ½ factor (pᵀv) v, p = factor · Av.
    let pv = 0;
    for (let i = k + 1; i < n; i++) {
      let sum = 0;
      for (let j = k + 1; j < n; j++) sum += a[i * n + j] * v[j];
      p[i] = factor * sum;
      pv += p[i] * v[i];
    }
    for (let i = k + 1; i < n; i++) p[i] -= 0.5 * factor * pv * v[i];
    for (let i = k + 1; i < n; i++) {
      const vi = v[i], wi = p[i];
      for (let j = k + 1; j < n; j++) a[i * n + j] -= vi * p[j] + wi * v[j];
    }
  }
  return { diagonal, beside, reflections, factors };
};

/** The product of all reflections, transposed: its rows are what the rotations of the QL method then act on. */
const product = ({ reflections, factors }: Tridiagonal, n: number): Float64Array => {
  const q = new Float64Array(n * n), u = new Float64Array(n);
  for (let i = 0; i < n; i++) q[i * n + i] = 1;
  for (let k = n - 3; k >= 0; k--) {
    if (factors[k] === 0) continue;
    const v = reflections.subarray(k * n, (k + 1) * n);
    u.fill(0);
    for (let i = k + 1; i < n; i++) for (let j = k + 1; j < n; j++) u[j] += v[i] * q[i * n + j];
    for (let i = k + 1; i < n; i++) {
      const f = factors[k] * v[i];
      for (let j = k + 1; j < n; j++) q[i * n + j] -= f * u[j];
    }
  }
  return transpose(q, n, n);
};

/** Diagonalises in place; the rows of `vectors`, when given, are rotated along. */
const implicitQl = (d: Float64Array, e: Float64Array, n: number, vectors?: Float64Array): void => {
  // Against the largest entry, not the neighbours: among the zeros of a singular matrix there is only rounding noise.
  let negligible = 0;
  for (let i = 0; i < n; i++) negligible = Math.max(negligible, Number.EPSILON * (Math.abs(d[i]) + Math.abs(e[i])));
  for (let low = 0; low < n; low++) {
    for (let round = 0;; round++) {
      let high = low;
      while (high < n - 1 && Math.abs(e[high]) > negligible) high++;
      if (high === low) break;
      if (round === 100) throw new RangeError(`eigen: no convergence after ${round} rounds`);
      const half = (d[low + 1] - d[low]) / (2 * e[low]);
      const root = Math.sqrt(half * half + 1);
      let g = d[high] - d[low] + e[low] / (half + (half < 0 ? -root : root)); // shift by the nearer corner eigenvalue
      let s = 1, c = 1, p = 0, i = high - 1;
      for (; i >= low; i--) {
        const f = s * e[i], b = c * e[i];
        const r = Math.sqrt(f * f + g * g);
        e[i + 1] = r;
        if (r === 0) { // the matrix falls apart here: begin again with the upper part
          d[i + 1] -= p;
          e[high] = 0;
          break;
        }
        s = f / r;
        c = g / r;
        const shifted = d[i + 1] - p;
        const t = (d[i] - shifted) * s + 2 * c * b;
        p = s * t;
        d[i + 1] = shifted + p;
        g = c * t - b;
        if (vectors) rotate(vectors, n, i, c, s);
      }
      if (i >= low) continue;
      d[low] -= p;
      e[low] = g;
      e[high] = 0;
    }
  }
};

const rotate = (rows: Float64Array, n: number, i: number, c: number, s: number): void => {
  const at = i * n, next = at + n;
  for (let k = 0; k < n; k++) {
    const x = rows[at + k], y = rows[next + k];
    rows[next + k] = s * x + c * y;
    rows[at + k] = c * x - s * y;
  }
};

const reduced = (a: Float64Array, n: number): Tridiagonal => {
  if (a.length !== n * n) throw new RangeError(`eigen: the matrix holds ${a.length} numbers, expected ${n} × ${n}`);
  if (!a.every(Number.isFinite)) throw new RangeError("eigen: the matrix holds NaN or infinite numbers");
  return tridiagonal(a, n);
};

/** Eigenvalues of a symmetric matrix [n, n] in ascending order. @throws RangeError on NaN or a wrong size */
export const eigenvalues = (a: Float64Array, n: number): Float64Array => {
  const { diagonal, beside } = reduced(a, n);
  implicitQl(diagonal, beside, n);
  return diagonal.sort();
};

/** Eigenvalues and eigenvectors of a symmetric matrix [n, n]. @throws RangeError on NaN or a wrong size */
export const eigen = (a: Float64Array, n: number): Eigen => {
  const form = reduced(a, n);
  const rows = product(form, n);
  const { diagonal, beside } = form;
  implicitQl(diagonal, beside, n, rows);
  const order = [...diagonal.keys()].sort((x, y) => diagonal[x] - diagonal[y]);
  const vectors = new Float64Array(n * n);
  order.forEach((from, to) => vectors.set(rows.subarray(from * n, (from + 1) * n), to * n));
  return { values: Float64Array.from(order, (i) => diagonal[i]), vectors };
};
