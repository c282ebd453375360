/** How well scores and decisions tell triggered from clean. */

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
