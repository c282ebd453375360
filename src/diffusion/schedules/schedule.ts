/**
 * A way of sampling as a list of linear maps. Whatever the method, a step makes of latents x, the network's (guided)
 * answer, predictions m that earlier steps remembered, and fresh noise z
 *
 *     next = x·latents + answer·(network's answer) + Σ past[i]·m_i + noise·z,
 *
 * so that one graph with these numbers as inputs serves every method. Latents are always in the scale in which the
 * network was trained, √ᾱ x₀ + √(1 − ᾱ) ε: methods that are written down in sigmas (latents x₀ + σ ε) are converted,
 * so the network takes the latents as they are and what is captured on the way means the same for all.
 */

/** A linear map of a step's latents and the network's answer. */
export interface Pair {
  readonly x: number;
  readonly answer: number;
}

export interface SamplingStep extends Pair {
  /** What the network is told. Whole for most methods. */
  readonly timestep: number;
  /** Weights of what is remembered, the latest first. */
  readonly past: readonly number[];
  /** Weight of fresh standard normal noise. */
  readonly noise: number;
  /** What later steps are to remember of this one; nothing where absent. */
  readonly remember?: Pair;
}

/** A run of the sampler, from most noise to least. */
export interface Schedule {
  /** Scale of the standard normal noise that it begins with. */
  readonly start: number;
  readonly steps: readonly SamplingStep[];
}

/** A method for one model. What a step's graph must have is known before the number of steps is. */
export interface Solver {
  /** How many earlier predictions a step may need. */
  readonly memory: number;
  /** Whether steps add fresh noise. */
  readonly noisy: boolean;
  /** @throws RangeError when so many steps cannot be made. */
  readonly plan: (steps: number) => Schedule;
}

/** A step that is told nothing but its latents and the answer. */
export const plain = (timestep: number, { x, answer }: Pair): SamplingStep => ({
  timestep,
  x,
  answer,
  past: [],
  noise: 0,
});

/** @throws RangeError when a step divided by zero, with advice. */
export const finite = (schedule: Schedule): Schedule => {
  const numbers = schedule.steps.flatMap(({ timestep, x, answer, noise, past, remember = { x: 0, answer: 0 } }) => [
    ...[timestep, x, answer, noise, ...past],
    ...[remember.x, remember.answer],
  ]);
  if (![schedule.start, ...numbers].every(Number.isFinite)) {
    throw new RangeError(
      "this scheduler starts from pure noise, from which its prediction_type cannot step, or its betas leave two steps " +
        "at one noise level; take fewer steps or another scheduler",
    );
  }
  return schedule;
};
