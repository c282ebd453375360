/** Confidence intervals: no rate and no mean is reported without one. */
import { quantileOfSorted } from "../tensor/quantile.ts";
import { integers, type Seed } from "../tensor/random.ts";
import { normalQuantile } from "./normal.ts";

/** An estimate with the ends of its confidence interval. */
export interface Interval {
  readonly estimate: number;
  readonly low: number;
  readonly high: number;
}

/**
 * Wilson's score interval for a rate (E. B. Wilson, JASA 22, 1927): right also for few trials and for rates of 0 and 1.
 * @throws RangeError unless 0 ≤ successes ≤ trials, both whole, and trials ≥ 1
 */
export const wilson = (successes: number, trials: number, confidence = 0.95): Interval => {
  const whole = Number.isInteger(successes) && Number.isInteger(trials);
  if (!(whole && trials >= 1 && successes >= 0 && successes <= trials)) {
    throw new RangeError(`wilson: ${successes} successes in ${trials} trials are no rate`);
  }
  const z = normalQuantile(0.5 + confidence / 2), zz = z * z;
  const rate = successes / trials;
  const centre = (successes + zz / 2) / (trials + zz);
  const reach = z / (trials + zz) * Math.sqrt(successes * (trials - successes) / trials + zz / 4);
  return {
    estimate: rate,
    low: successes === 0 ? 0 : centre - reach, // both ends are exact there, but for rounding
    high: successes === trials ? 1 : centre + reach,
  };
};

export const mean = (values: ArrayLike<number>): number => {
  let sum = 0;
  for (let i = 0; i < values.length; i++) sum += values[i];
  return sum / values.length;
};

export interface BootstrapOptions {
  /** What is estimated from a sample; the mean unless told. */
  readonly statistic?: (sample: Float64Array) => number;
  readonly confidence?: number;
  readonly resamples?: number;
  readonly seed?: Seed;
}

/**
 * Percentile bootstrap interval (B. Efron, Annals of Statistics 7(1), 1979): the statistic over samples of the same size
 * drawn with replacement. Deterministic for a seed.
 * @throws RangeError when there are no values
 */
export const bootstrap = (values: ArrayLike<number>, options: BootstrapOptions = {}): Interval => {
  const { statistic = mean, confidence = 0.95, resamples = 2000, seed = 0 } = options;
  const n = values.length;
  if (n === 0) throw new RangeError("bootstrap: there are no values");
  const drawn = integers(seed, n, n * resamples);
  const sample = new Float64Array(n), results = new Float64Array(resamples);
  for (let r = 0; r < resamples; r++) {
    for (let i = 0; i < n; i++) sample[i] = values[drawn[r * n + i]];
    results[r] = statistic(sample);
  }
  results.sort();
  return {
    estimate: statistic(Float64Array.from(values)),
    low: quantileOfSorted(results, (1 - confidence) / 2),
    high: quantileOfSorted(results, (1 + confidence) / 2),
  };
};
