/** Which training timesteps a run of so many steps visits, from most noise to least: diffusers' `timestep_spacing`. */
import type { SchedulerConfig } from "../scheduler.ts";

export type Spacing = NonNullable<SchedulerConfig["timestep_spacing"]>;

/** numpy's rounding: ties to even. */
export const roundEven = (v: number): number => {
  const low = Math.floor(v);
  return v - low === 0.5 ? low + low % 2 : Math.round(v);
};

/** @throws RangeError unless `steps` is a whole number from 1 to the training timesteps. */
export const checkSteps = ({ num_train_timesteps: total }: SchedulerConfig, steps: number): void => {
  if (!Number.isInteger(steps) || steps < 1 || steps > total) {
    throw new RangeError(`${steps} sampling steps; expected a whole number from 1 to ${total}`);
  }
};

/** @throws RangeError when a timestep lies beyond those of training. */
export const checkTimesteps = (timesteps: readonly number[], trained: number): void => {
  const beyond = timesteps.find((t) => t >= trained);
  if (beyond !== undefined) {
    throw new RangeError(
      `${timesteps.length} sampling steps reach timestep ${beyond}, beyond the ${trained} of training; take fewer`,
    );
  }
};

/** `count` evenly spaced numbers from 0 to `last`, both included; 0 alone when one is asked for. */
export const evenly = (last: number, count: number): number[] =>
  Array.from({ length: count }, (_, i) => count === 1 ? 0 : i * (last / (count - 1)));

/** Whole timesteps, as DDIM and PNDM visit them. */
export const wholeTimesteps = (c: SchedulerConfig, spacing: Spacing, steps: number): number[] => {
  const total = c.num_train_timesteps;
  switch (spacing) {
    case "linspace":
      return evenly(total - 1, steps).map(roundEven).reverse();
    case "leading":
      return Array.from({ length: steps }, (_, i) => i * Math.floor(total / steps) + c.steps_offset).reverse();
    case "trailing":
      return Array.from({ length: steps }, (_, i) => roundEven(total - i * (total / steps)) - 1);
  }
};
