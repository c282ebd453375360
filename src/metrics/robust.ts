/** Outliers by the robust z-score (Iglewicz and Hoaglin 1993): distance from the median in units of the scaled MAD. */

export const median = (values: ArrayLike<number>): number => {
  const sorted = Float64Array.from(values).sort();
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
};

/** How far each value lies above the median; 1 is one standard deviation of a normal distribution. Negative below. */
export const robustScores = (values: readonly number[]): number[] => {
  const centre = median(values);
  const spread = 1.4826 * median(values.map((x) => Math.abs(x - centre))) + 1e-12;
  return values.map((x) => (x - centre) / spread);
};
