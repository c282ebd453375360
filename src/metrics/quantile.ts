/** Quantiles of a sample. */
import { quantileOfSorted } from "../tensor/quantile.ts";

/**
 * Type 7 quantile, as R's and NumPy's default; the values may come in any order and are left alone.
 * @throws RangeError when there are no values or q is outside [0, 1]
 */
export const quantile = (values: ArrayLike<number>, q: number): number =>
  quantileOfSorted(Float64Array.from(values).sort(), q);
