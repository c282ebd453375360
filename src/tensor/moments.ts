/** What can be said of a tensor's values in one pass, piece by piece: so that no tensor need be in memory as a whole. */

/** Of the finite values alone, save for the three counts of others. */
export interface Moments {
  count: number;
  nan: number;
  infinite: number;
  zeros: number;
  /** ±Infinity while no finite value was seen. */
  min: number;
  max: number;
  sum: number;
  squares: number;
}

export const noMoments = (): Moments => ({
  count: 0,
  nan: 0,
  infinite: 0,
  zeros: 0,
  min: Infinity,
  max: -Infinity,
  sum: 0,
  squares: 0,
});

/** Adds values to what is known. Sums are in double precision. */
export const addValues = (to: Moments, values: Float32Array): void => {
  let { nan, infinite, zeros, min, max, sum, squares } = to;
  for (let i = 0; i < values.length; i++) {
    const v = values[i];
    if (v - v !== 0) {
      if (v === v) infinite++;
      else nan++;
      continue;
    }
    if (v === 0) zeros++;
    if (v < min) min = v;
    if (v > max) max = v;
    sum += v;
    squares += v * v;
  }
  to.count += values.length;
  Object.assign(to, { nan, infinite, zeros, min, max, sum, squares });
};

/** Number of values that are finite. */
export const finite = (m: Moments): number => m.count - m.nan - m.infinite;

/** Root of the mean square of the finite values; 0 when there are none. */
export const rmsOf = (m: Moments): number => finite(m) === 0 ? 0 : Math.sqrt(m.squares / finite(m));
