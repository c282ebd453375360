/** How well scores and decisions tell triggered from clean. */
import type { Interval } from "./intervals.ts";
import { normalQuantile } from "./normal.ts";

/**
 * Area under the ROC curve: the probability that a positive's score exceeds a negative's, ties counted half (the
 * Mann–Whitney statistic). 1 tells them apart without error, ½ not at all.
 * @throws RangeError when either list is empty
 */
export const auroc = (positives: ArrayLike<number>, negatives: ArrayLike<number>): number => {
  const p = positives.length, n = negatives.length;
  if (p === 0 || n === 0) throw new RangeError(`auroc: needs scores of both kinds, not ${p} positive, ${n} negative`);
  const up = Float64Array.from(positives).sort(), down = Float64Array.from(negatives).sort();
  let below = 0, upTo = 0, wins = 0;
  for (const score of up) {
    while (below < n && down[below] < score) below++;
    while (upTo < n && down[upTo] <= score) upTo++;
    wins += (below + upTo) / 2;
  }
  return wins / (p * n);
};

/** For each value of `of`, the part of `others` below it, those equal to it counted half. */
const placements = (of: ArrayLike<number>, others: ArrayLike<number>): Float64Array => {
  const sorted = Float64Array.from(others).sort();
  const countBelow = (x: number, orEqual: boolean): number => {
    let low = 0, high = sorted.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (sorted[middle] < x || (orEqual && sorted[middle] === x)) low = middle + 1;
      else high = middle;
    }
    return low;
  };
  return Float64Array.from(of, (x) => (countBelow(x, false) + countBelow(x, true)) / 2 / sorted.length);
};

/**
 * The AUROC with DeLong's interval (E. R. DeLong, D. M. DeLong, D. L. Clarke-Pearson, Biometrics 44, 1988): the variance
 * over the placements of either kind among the other, on the logit scale, which keeps the ends within 0 and 1. Where
 * nothing overlaps the data show no variance at all; the low end is then what one exchanged pair in each would leave.
 * @throws RangeError when either list has fewer than two scores
 */
export const aurocInterval = (
  positives: ArrayLike<number>,
  negatives: ArrayLike<number>,
  confidence = 0.95,
): Interval => {
  const p = positives.length, n = negatives.length;
  if (p < 2 || n < 2) throw new RangeError(`aurocInterval: needs two scores of both kinds, not ${p} and ${n}`);
  const estimate = auroc(positives, negatives);
  const variance = (values: Float64Array) => {
    const centre = values.reduce((a, b) => a + b, 0) / values.length;
    return values.reduce((sum, v) => sum + (v - centre) ** 2, 0) / (values.length - 1);
  };
  const spread = Math.sqrt(
    variance(placements(positives, negatives)) / p + variance(placements(negatives, positives)) / n,
  );
  const z = normalQuantile(0.5 + confidence / 2);
  const edge = 1 / Math.min(p, n);
  if (estimate === 1 || estimate === 0 || spread === 0) {
    return { estimate, low: Math.max(0, estimate - edge), high: Math.min(1, estimate + edge) };
  }
  const logit = Math.log(estimate / (1 - estimate));
  const reach = z * spread / (estimate * (1 - estimate));
  const back = (x: number) => 1 / (1 + Math.exp(-x));
  return { estimate, low: back(logit - reach), high: back(logit + reach) };
};

/**
 * The part of the negatives that is flagged by the threshold at which at least `sensitivity` of the positives are; a score
 * at the threshold counts as flagged.
 * @throws RangeError when either list is empty or the sensitivity is not within 0 and 1
 */
export const falsePositivesAt = (
  positives: ArrayLike<number>,
  negatives: ArrayLike<number>,
  sensitivity = 0.95,
): number => {
  const p = positives.length, n = negatives.length;
  if (p === 0 || n === 0) throw new RangeError(`falsePositivesAt: needs scores of both kinds, not ${p} and ${n}`);
  if (!(sensitivity > 0 && sensitivity <= 1)) {
    throw new RangeError(`falsePositivesAt: a sensitivity of ${sensitivity} is not within 0 and 1`);
  }
  const down = Float64Array.from(positives).sort().reverse();
  const threshold = down[Math.ceil(sensitivity * p - 1e-9) - 1];
  return Array.from(negatives).filter((score) => score >= threshold).length / n;
};

export interface Detection {
  readonly truePositives: number;
  readonly falsePositives: number;
  readonly falseNegatives: number;
  readonly trueNegatives: number;
  /** Part of the found that is true; 0 when nothing was found. */
  readonly precision: number;
  /** Part of the true that was found; 0 when nothing is true. */
  readonly recall: number;
  /** Harmonic mean of precision and recall; 0 when both are. */
  readonly f1: number;
}

/** Counts and rates of decisions against the truth, case by case. @throws RangeError when their numbers differ */
export const detection = (found: readonly boolean[], truth: readonly boolean[]): Detection => {
  if (found.length !== truth.length) {
    throw new RangeError(`detection: ${found.length} decisions against ${truth.length} truths`);
  }
  const count = (f: boolean, t: boolean) => found.filter((v, i) => v === f && truth[i] === t).length;
  const tp = count(true, true), fp = count(true, false), fn = count(false, true);
  const rate = (part: number, whole: number) => whole === 0 ? 0 : part / whole;
  return {
    truePositives: tp,
    falsePositives: fp,
    falseNegatives: fn,
    trueNegatives: count(false, false),
    precision: rate(tp, tp + fp),
    recall: rate(tp, tp + fn),
    f1: rate(2 * tp, 2 * tp + fp + fn),
  };
};
