/**
 * Euler's method along dx/dσ = (x − x₀)/σ (Karras et al. 2022, algorithm 1 of first order) as diffusers'
 * EulerDiscreteScheduler steps it, and the ancestral variant, which steps down further and adds fresh noise
 * (EulerAncestralDiscreteScheduler). Both are converted from latents x₀ + σ ε to the network's own scale.
 */
import type { SchedulerConfig } from "../scheduler.ts";
import { finite, type Pair, type SamplingStep, type Schedule, type Solver } from "./schedule.ts";
import { exponentialSigmas, karrasSigmas, lastSigma, scaleOf, sigmaAt, timestepsAt, trainedSigmas } from "./sigmas.ts";
import { checkSteps, checkTimesteps, evenly, wholeTimesteps } from "./spacing.ts";

const f32 = Math.fround;

/** x₀ + σ ε and the derivative there, as maps of the network's own latents and its answer. */
const derivative = (kind: SchedulerConfig["prediction_type"], sigma: number): Pair => {
  const scale = scaleOf(sigma);
  switch (kind) {
    case "epsilon":
      return { x: 0, answer: 1 };
    case "v_prediction": // x₀ = x/(σ² + 1) − v·σ/√(σ² + 1)
      return { x: sigma / scale, answer: 1 / scale };
    case "sample":
      return { x: scale / sigma, answer: -1 / sigma };
  }
};

/** From σ to `down` by the derivative, then noise `up`, in the scale of σ = `to`. The last step's result is not scaled. */
const stepOf = (
  kind: SchedulerConfig["prediction_type"],
  timestep: number,
  { sigma, to, down, up, last }: { sigma: number; to: number; down: number; up: number; last: boolean },
): SamplingStep => {
  const d = derivative(kind, sigma);
  const scale = last ? 1 : scaleOf(to);
  return {
    timestep,
    x: (scaleOf(sigma) + (down - sigma) * d.x) / scale,
    answer: (down - sigma) * d.answer / scale,
    past: [],
    noise: up / scale,
  };
};

/** Timesteps of the network, and σ at each and after the last. */
interface Way {
  readonly timesteps: readonly number[];
  readonly sigmas: readonly number[];
}

const spacingOf = (config: SchedulerConfig) => config.timestep_spacing ?? "linspace";

const timestepsOf = (config: SchedulerConfig, steps: number, trained: number): number[] => {
  checkSteps(config, steps);
  const spacing = spacingOf(config);
  const timesteps = spacing === "linspace"
    ? evenly(config.num_train_timesteps - 1, steps).map(f32).reverse()
    : wholeTimesteps(config, spacing, steps);
  checkTimesteps(timesteps, trained);
  return timesteps;
};

const schedule = (
  config: SchedulerConfig,
  { timesteps, sigmas }: Way,
  towards: (sigma: number, to: number) => { readonly down: number; readonly up: number },
): Schedule => {
  const most = Math.max(...sigmas);
  const steps = timesteps.map((timestep, i) => {
    const [sigma, to] = [sigmas[i], sigmas[i + 1]];
    const last = i === timesteps.length - 1;
    return stepOf(config.prediction_type, timestep, { sigma, to, ...towards(sigma, to), last });
  });
  // Latents begin as most·ε, or as √(most² + 1)·ε where timesteps lead.
  return finite({ start: spacingOf(config) === "leading" ? 1 : most / scaleOf(most), steps });
};

/** @throws RangeError for what EulerDiscreteScheduler can do and this cannot. */
export const euler = (config: SchedulerConfig): Solver => {
  if (config.use_beta_sigmas) {
    throw new RangeError("use_beta_sigmas: sigmas spaced by a beta distribution are not there");
  }
  if (config.timestep_type === "continuous" && config.prediction_type === "v_prediction") {
    throw new RangeError('timestep_type "continuous": models that are told ln σ for a timestep are not read');
  }
  return {
    memory: 0,
    noisy: false,
    plan: (steps) => {
      const trained = trainedSigmas(config);
      const evenTimesteps = timestepsOf(config, steps, trained.length);
      // With spacing by ln σ the network is still told evenly spaced timesteps, as in diffusers.
      const even = config.interpolation_type === "log_linear"
        ? exponentialSigmas(trained[trained.length - 1], trained[0], steps + 1)
        : evenTimesteps.map((t) => sigmaAt(trained, t));
      const ends = [config.sigma_max ?? even[0], config.sigma_min ?? even[even.length - 1]] as const;
      const spaced = config.use_karras_sigmas
        ? karrasSigmas(...ends, steps)
        : config.use_exponential_sigmas
        ? exponentialSigmas(...ends, steps)
        : undefined;
      const timesteps = spaced === undefined ? evenTimesteps : timestepsAt(trained, spaced).map(f32);
      const sigmas = [...spaced ?? even, lastSigma(config, trained)].map(f32);
      return schedule(config, { timesteps, sigmas }, (_, to) => ({ down: to, up: 0 }));
    },
  };
};

export const eulerAncestral = (config: SchedulerConfig): Solver => {
  if (config.prediction_type === "sample") {
    throw new RangeError("Euler ancestral does not step models whose prediction_type is sample; take euler");
  }
  return {
    memory: 0,
    noisy: true,
    plan: (steps) => {
      const trained = trainedSigmas(config);
      const timesteps = timestepsOf(config, steps, trained.length);
      const sigmas = [...timesteps.map((t) => f32(sigmaAt(trained, t))), 0];
      return schedule(config, { timesteps, sigmas }, (sigma, to) => {
        const up = Math.sqrt(to ** 2 * (sigma ** 2 - to ** 2) / sigma ** 2);
        return { down: Math.sqrt(to ** 2 - up ** 2), up };
      });
    },
  };
};
