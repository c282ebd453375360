/**
 * DPM-Solver++ with several steps (Lu et al. 2022, algorithm 2: "2M"), first and second order, as diffusers'
 * DPMSolverMultistepScheduler steps it. Steps remember what they took the clean picture to be.
 */
import type { SchedulerConfig } from "../scheduler.ts";
import { finite, type Pair, type SamplingStep, type Solver } from "./schedule.ts";
import { exponentialSigmas, karrasSigmas, lastSigma, scaleOf, sigmaAt, timestepsAt, trainedSigmas } from "./sigmas.ts";
import { checkSteps, checkTimesteps, evenly, roundEven } from "./spacing.ts";

/** The clean picture, as a map of latents and the network's answer. */
const picture = (kind: SchedulerConfig["prediction_type"], sigma: number): Pair => {
  const alpha = 1 / scaleOf(sigma);
  switch (kind) {
    case "epsilon":
      return { x: 1 / alpha, answer: -sigma };
    case "v_prediction":
      return { x: alpha, answer: -sigma * alpha };
    case "sample":
      return { x: 0, answer: 1 };
  }
};

const timestepsOf = (config: SchedulerConfig, trained: readonly number[], steps: number): number[] => {
  checkSteps(config, steps);
  const total = config.num_train_timesteps;
  // Timesteps whose ln α/σ lies below a bound are left out.
  const least = config.lambda_min_clipped ?? -Infinity;
  const last = total - trained.filter((sigma) => -Math.log(sigma) < least).length;
  switch (config.timestep_spacing ?? "linspace") {
    case "linspace":
      return evenly(last - 1, steps + 1).map(roundEven).reverse().slice(0, -1);
    case "leading": {
      const stride = Math.floor(last / (steps + 1));
      return Array.from({ length: steps }, (_, i) => (i + 1) * stride + config.steps_offset).reverse();
    }
    case "trailing":
      return Array.from({ length: steps }, (_, i) => roundEven(last - i * (total / steps)) - 1).filter((t) => t >= 0);
  }
};

interface Way {
  readonly timesteps: readonly number[];
  /** σ at each, and after the last. */
  readonly sigmas: readonly number[];
}

const wayOf = (config: SchedulerConfig, steps: number): Way => {
  const trained = trainedSigmas(config);
  const even = timestepsOf(config, trained, steps);
  checkTimesteps(even, trained.length);
  const end = lastSigma(config, trained);
  const ends = [config.sigma_max ?? trained[trained.length - 1], config.sigma_min ?? trained[0]] as const;
  const spaced = config.use_karras_sigmas
    ? karrasSigmas(...ends, steps)
    : config.use_exponential_sigmas
    ? exponentialSigmas(...ends, steps)
    : undefined;
  if (spaced === undefined) {
    return { timesteps: even, sigmas: [...even.map((t) => sigmaAt(trained, t)), end].map(Math.fround) };
  }
  const rounded = config.use_karras_sigmas && config.beta_schedule !== "squaredcos_cap_v2" ? roundEven : Math.floor;
  return {
    timesteps: timestepsAt(trained, spaced).map(rounded),
    sigmas: [...spaced, end].map(Math.fround),
  };
};

/** @throws RangeError for what DPMSolverMultistepScheduler can do and this cannot. */
export const dpmpp = (config: SchedulerConfig): Solver => {
  const { prediction_type: kind, lower_order_final, euler_at_final, final_sigmas_type } = config;
  const [algorithm, order, solver] = [
    config.algorithm_type ?? "dpmsolver++",
    config.solver_order ?? 2,
    config.solver_type ?? "midpoint",
  ];
  // DPMSolverMultistepScheduler takes configs of DEIS and UniPC and steps its own way.
  if (algorithm !== "dpmsolver++" && algorithm !== "deis") {
    throw new RangeError(`algorithm_type is ${JSON.stringify(algorithm)}; of these solvers there is "dpmsolver++"`);
  }
  if (order !== 1 && order !== 2) throw new RangeError(`solver_order is ${order}; there are orders 1 and 2`);
  const odd = (["use_beta_sigmas", "use_lu_lambdas", "use_flow_sigmas"] as const).find((key) => config[key]);
  if (odd !== undefined) throw new RangeError(`${odd}: sigmas spaced that way are not there`);
  return {
    memory: order - 1,
    noisy: false,
    plan: (count) => {
      const { timesteps, sigmas } = wayOf(config, count);
      const few = timesteps.length < 15;
      const endsLow = euler_at_final || ((lower_order_final ?? true) && few) ||
        (final_sigmas_type ?? "zero") === "zero";
      const steps = timesteps.map((timestep, i): SamplingStep => {
        const [sigma, to] = [sigmas[i], sigmas[i + 1]];
        const m = picture(kind, sigma);
        const alpha = 1 / scaleOf(to);
        // With λ = −ln σ and h the step in λ: σ' / σ of the latents' own scale, and α' (1 − e^(−h)).
        const keep = to * alpha * scaleOf(sigma) / sigma;
        const take = alpha * (1 - to / sigma);
        let [own, before] = [take, 0];
        if (order === 2 && i > 0 && !(i === timesteps.length - 1 && endsLow)) {
          const h = Math.log(sigma / to);
          const ratio = Math.log(sigmas[i - 1] / sigma) / h;
          const slope = (solver === "heun" ? alpha - take / h : take / 2) / ratio;
          [own, before] = [take + slope, -slope];
        }
        const rest = { timestep, x: keep + own * m.x, answer: own * m.answer, noise: 0 };
        return order === 1 ? { ...rest, past: [] } : { ...rest, past: before === 0 ? [] : [before], remember: m };
      });
      return finite({ start: 1, steps });
    },
  };
};
