/** Quantiles of numbers in ascending order, shared by masks (thresholds) and metrics (intervals). */

/**
 * Linear interpolation between order statistics: type 7 of Hyndman and Fan (1996), the default of R and NumPy.
 * @throws RangeError when there are no values or q is outside [0, 1]
 */
export const quantileOfSorted = (sorted: ArrayLike<number>, q: number): number => {
  if (sorted.length === 0) throw new RangeError("quantile: there are no values");
  if (!(q >= 0 && q <= 1)) throw new RangeError(`quantile: ${q} is not within 0 and 1`);
  const at = q * (sorted.length - 1);
  const below = Math.floor(at), part = at - below;
  return part === 0 ? sorted[below] : sorted[below] + part * (sorted[below + 1] - sorted[below]);
};
