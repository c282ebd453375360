/**
 * Squared singular values of a matrix: all of them where it is small, else the largest ones by a randomised sketch (Halko,
 * Martinsson, Tropp: SIAM Review 53, 2011, algorithms 4.1, 4.4 and 5.1): a quick one that tells matrices of many directions
 * apart, then with a power iteration, made larger until enough is found or known to be out of reach. Memory beside the
 * matrix: the sketch and one stretch of rows.
 */
import { eigenvalues } from "./eigen.ts";
import { gram, matmul, transpose } from "./linalg.ts";
import { normal } from "./random.ts";

export interface Spectrum {
  /** Squared singular values in descending order, as many as were found; none where too many would be needed. */
  readonly energies: Float64Array;
  /** ‖A‖²: the sum of all of them, found or not. */
  readonly total: number;
  /** The smaller side of the matrix. */
  readonly full: number;
  /** False when `energies` are the largest ones by a sketch. */
  readonly exact: boolean;
}

/** Up to this side all singular values are computed. */
const EXACT = 192;
/** Singular values that the sketches are after, one after the other. */
const SKETCHES: readonly number[] = [8, 24, 64];
/** The largest rank that a sketch can find. */
export const MOST_SKETCHED = 64;
/**
 * The quick sketch gives up where it finds that at least this many singular values are needed for the first share. It
 * finds less than there is, so that its bound is too high, hence the factor over the most that could be found.
 */
const OUT_OF_REACH = 2 * MOST_SKETCHED;
/** Columns beyond those that are wanted: they make the wanted ones accurate. */
const OVERSAMPLING = 8;
/** Numbers in one stretch of rows (8 MB). */
const STRETCH = 1 << 20;

/** Stretches of rows of A [m, n] in double precision, with the row at which each begins. */
const stretches = function* (a: Float32Array, m: number, n: number): Generator<readonly [number, Float64Array]> {
  const rows = Math.max(1, Math.floor(STRETCH / n));
  for (let at = 0; at < m; at += rows) {
    yield [at, new Float64Array(a.subarray(at * n, Math.min(m, at + rows) * n))];
  }
};

/** AᵀA [n, n] for n ≤ m, or AAᵀ [m, m]. */
const smallerGram = (a: Float32Array, m: number, n: number): Float64Array => {
  const side = Math.min(m, n), out = new Float64Array(side * side);
  const add = (rows: Float64Array, count: number) => gram(rows, rows, count, side, side).forEach((x, i) => out[i] += x);
  if (n <= m) {
    for (const [, rows] of stretches(a, m, n)) add(rows, rows.length / n);
    return out;
  }
  const width = Math.max(1, Math.floor(STRETCH / m));
  for (let at = 0; at < n; at += width) {
    const count = Math.min(width, n - at), columns = new Float64Array(count * m);
    for (let i = 0; i < m; i++) for (let j = 0; j < count; j++) columns[j * m + i] = a[i * n + at + j];
    add(columns, count);
  }
  return out;
};

const norm = (v: Float64Array): number => {
  let sum = 0;
  for (let i = 0; i < v.length; i++) sum += v[i] * v[i];
  return Math.sqrt(sum);
};

/** Columns of Y [rows, k] made orthonormal (Gram and Schmidt, twice); those that others span are dropped. */
const orthonormal = (y: Float64Array, rows: number, k: number): { readonly q: Float64Array; readonly k: number } => {
  const columns = transpose(y, rows, k);
  let kept = 0;
  for (let j = 0; j < k; j++) {
    const v = columns.slice(j * rows, (j + 1) * rows);
    const before = norm(v);
    for (let round = 0; round < 2; round++) {
      for (let c = 0; c < kept; c++) {
        const u = columns.subarray(c * rows, (c + 1) * rows);
        let dot = 0;
        for (let i = 0; i < rows; i++) dot += u[i] * v[i];
        for (let i = 0; i < rows; i++) v[i] -= dot * u[i];
      }
    }
    const left = norm(v);
    if (!(left > 1e-10 * before)) continue;
    for (let i = 0; i < rows; i++) columns[kept * rows + i] = v[i] / left;
    kept++;
  }
  return { q: transpose(columns.subarray(0, kept * rows), kept, rows), k: kept };
};

/** A·X [m, k]. */
const times = (a: Float32Array, m: number, n: number, x: Float64Array, k: number): Float64Array => {
  const out = new Float64Array(m * k);
  for (const [at, rows] of stretches(a, m, n)) out.set(matmul(rows, x, rows.length / n, n, k), at * k);
  return out;
};

/** Aᵀ·X [n, k]. */
const timesTransposed = (a: Float32Array, m: number, n: number, x: Float64Array, k: number): Float64Array => {
  const out = new Float64Array(n * k);
  for (const [at, rows] of stretches(a, m, n)) {
    const count = rows.length / n;
    gram(rows, x.subarray(at * k, (at + count) * k), count, n, k).forEach((v, i) => out[i] += v);
  }
  return out;
};

const sketched = (a: Float32Array, m: number, n: number, k: number, powered: boolean): Float64Array => {
  const probe = Float64Array.from(normal(0, [n, k]).data);
  const first = orthonormal(times(a, m, n, probe, k), m, k);
  const back = powered ? orthonormal(timesTransposed(a, m, n, first.q, first.k), n, first.k) : undefined;
  const { q, k: kept } = back === undefined ? first : orthonormal(times(a, m, n, back.q, back.k), m, back.k);
  const small = timesTransposed(a, m, n, q, kept); // (QᵀA)ᵀ
  return eigenvalues(gram(small, small, n, kept, kept), kept).reverse();
};

const sumOf = (values: Float64Array): number => values.reduce((sum, x) => sum + x, 0);

const positive = (values: Float64Array): Float64Array => values.map((x) => Math.max(0, x));

/**
 * How many singular values are needed at the least for the first share that those found do not hold, 0 when they hold
 * all: those not found are at most as large as the last one found.
 */
const needed = (energies: Float64Array, total: number, shares: readonly number[]): number => {
  const found = sumOf(energies), goal = shares.find((share) => found < share * total);
  return goal === undefined ? 0 : energies.length + (goal * total - found) / energies[energies.length - 1];
};

/**
 * @param a [m, n], finite
 * @param shares what parts of ‖A‖² the singular values that are looked for hold together, ascending, below 1
 * @param noise part of ‖A‖² that is known to be rounding and needs not be held
 * @throws RangeError when the sizes do not fit or a value is not finite
 */
export const spectrum = (
  a: Float32Array,
  m: number,
  n: number,
  shares: readonly number[] = [0.99, 0.9999],
  noise = 0,
): Spectrum => {
  if (a.length !== m * n) throw new RangeError(`spectrum: ${a.length} numbers are no matrix [${m}, ${n}]`);
  let total = 0;
  for (let i = 0; i < a.length; i++) total += a[i] * a[i];
  if (!Number.isFinite(total)) throw new RangeError("spectrum: the matrix holds NaN or infinite numbers");
  const full = Math.min(m, n);
  const none = new Float64Array(0);
  if (total === 0) return { energies: none, total, full, exact: true };
  if (full <= EXACT) {
    return { energies: positive(eigenvalues(smallerGram(a, m, n), full).reverse()), total, full, exact: true };
  }
  const real = Math.max(0, total - noise);
  const look = (wanted: number, powered: boolean) =>
    positive(sketched(a, m, n, wanted + OVERSAMPLING, powered)).slice(0, wanted);
  if (needed(look(SKETCHES[0], false), real, shares.slice(0, 1)) > OUT_OF_REACH) {
    return { energies: none, total, full, exact: false };
  }
  let energies = none;
  for (const wanted of SKETCHES) {
    energies = look(wanted, true);
    const least = needed(energies, real, shares);
    if (least === 0 || least > MOST_SKETCHED) break;
  }
  return { energies, total, full, exact: false };
};

/**
 * How many singular values hold `share` of ‖A‖² together, undefined when more are needed than were found.
 * @param noise part of ‖A‖² that is known to be rounding, spread over all directions: it needs not be held
 */
export const rankFor = ({ energies, total, exact }: Spectrum, share: number, noise = 0): number | undefined => {
  const goal = share * Math.max(0, total - noise);
  let held = 0;
  for (let i = 0; i < energies.length; i++) {
    if (held >= goal) return i;
    held += energies[i];
  }
  return held >= goal || exact ? energies.length : undefined;
};
