/** What one tensor has that another of its size has not, and how much of that is mere rounding of the element type. */

/** Bits of the fraction of the floating types that files have. */
export const FRACTION_BITS: Readonly<Record<string, number>> = {
  F64: 52,
  F32: 23,
  F16: 10,
  BF16: 7,
  F8_E4M3: 3,
  F8_E5M2: 2,
};

/** Least exponents of normal numbers: below them the steps between numbers stay the same. */
const LEAST_EXPONENT: Readonly<Record<string, number>> = { F16: -14, F8_E4M3: -6, F8_E5M2: -14 };

/** Sums over the elements; those that are not finite in either tensor are left out of all but `unknown`. */
export interface Difference {
  count: number;
  /** Elements whose values differ. */
  changed: number;
  /** Elements that are not finite in one of the two. */
  unknown: number;
  /** Σ(b − a)² and Σa². */
  squares: number;
  base: number;
  /** What Σ(b − a)² would be if the changed elements had only been rounded to the coarser element type. */
  rounding: number;
}

export const noDifference = (): Difference => ({
  count: 0,
  changed: 0,
  unknown: 0,
  squares: 0,
  base: 0,
  rounding: 0,
});

/**
 * Variance of rounding a number of each float32 exponent (the 8 bits as they stand) to an element type: a step² / 12,
 * rounding errors being uniform within half a step.
 */
export const roundingVariance = (dtype: string): Float64Array => {
  const bits = FRACTION_BITS[dtype] ?? 23, least = LEAST_EXPONENT[dtype] ?? -126;
  return Float64Array.from(
    { length: 256 },
    (_, exponent) => (2 ** (Math.max(exponent - 127, least) - bits)) ** 2 / 12,
  );
};

/**
 * Adds a stretch of two tensors to what is known, and puts b − a in the place of b (0 where either is not finite).
 * @param variance from {@link roundingVariance}, of the coarser of the two element types
 */
export const addDifference = (
  to: Difference,
  a: Float32Array,
  b: Float32Array,
  variance: Float64Array,
): void => {
  if (a.length !== b.length) throw new RangeError(`difference: ${a.length} values against ${b.length}`);
  const exponents = new Uint32Array(a.buffer, a.byteOffset, a.length);
  let { changed, unknown, squares, base, rounding } = to;
  for (let i = 0; i < a.length; i++) {
    const x = a[i], d = b[i] - x;
    if (d - d !== 0) {
      unknown++;
      b[i] = 0;
      continue;
    }
    base += x * x;
    if (d !== 0) {
      changed++;
      squares += d * d;
      rounding += variance[(exponents[i] >>> 23) & 255];
    }
    b[i] = d;
  }
  to.count += a.length;
  Object.assign(to, { changed, unknown, squares, base, rounding });
};
