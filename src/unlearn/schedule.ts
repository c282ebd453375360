/** How the learning rate goes over a training run. */

export type Decay = "cosine" | "linear" | "constant";

/** Share of the steps over which the rate rises: AdamW's first steps are as long as the rate, whatever the gradient is. */
const RISE = 0.05;

/**
 * Learning rate of a step: it rises linearly to `peak`, then falls to 0 along half a cosine (Loshchilov and Hutter 2017,
 * eq. 5) or a line, or stays.
 *
 * @param step counted from 1
 * @param steps number of steps of the whole run
 */
export const rateAt = (decay: Decay, peak: number, step: number, steps: number): number => {
  const rise = Math.max(1, Math.round(RISE * steps));
  if (step <= rise) return (peak * step) / rise;
  // The step after the last one would have rate 0.
  const done = (step - rise) / (steps - rise + 1);
  const share = { cosine: (1 + Math.cos(Math.PI * done)) / 2, linear: 1 - done, constant: 1 };
  return peak * share[decay];
};

/** From a rate at one step down a line, such that the step after `end` would have rate 0. */
export const coolDown = (rate: number, from: number, end: number) => (step: number): number =>
  rate * (end + 1 - step) / (end + 1 - from);
