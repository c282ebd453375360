/**
 * Latent consistency models (Luo et al. 2023, algorithm 3): each step takes the network's word for the clean picture and
 * noises it anew, as diffusers' LCMScheduler does. For models distilled for that, in 1 to 8 steps.
 */
import { alphaBars, type SchedulerConfig } from "../scheduler.ts";
import { finite, type Pair, type SamplingStep, type Solver } from "./schedule.ts";
import { checkSteps, checkTimesteps } from "./spacing.ts";

/** Scale of the data, which the distillation fixes. */
const SIGMA_DATA = 0.5;

const picture = (kind: SchedulerConfig["prediction_type"], bar: number): Pair => {
  const [alpha, sigma] = [Math.sqrt(bar), Math.sqrt(1 - bar)];
  switch (kind) {
    case "epsilon":
      return { x: 1 / alpha, answer: -sigma / alpha };
    case "v_prediction":
      return { x: alpha, answer: -sigma };
    case "sample":
      return { x: 0, answer: 1 };
  }
};

export const lcm = (config: SchedulerConfig): Solver => ({
  memory: 0,
  noisy: true,
  plan: (steps) => {
    checkSteps(config, steps);
    const bars = alphaBars(config);
    const distilled = config.original_inference_steps ?? 50;
    if (steps > distilled) {
      throw new RangeError(
        `${steps} sampling steps of the ${distilled} that a latent consistency model is distilled for ` +
          "(original_inference_steps); take at most so many: 4 to 8 are usual",
      );
    }
    const stride = Math.floor(config.num_train_timesteps / distilled);
    const timesteps = Array.from(
      { length: steps },
      (_, i) => (distilled - Math.floor(i * (distilled / steps))) * stride - 1,
    );
    if (stride < 1) {
      throw new RangeError(`original_inference_steps is ${distilled}, more than the timesteps of training`);
    }
    checkTimesteps(timesteps, bars.length);
    const made = timesteps.map((t, i): SamplingStep => {
      const scaled = t * (config.timestep_scaling ?? 10);
      // Consistency asks that at t = 0 the latents are the picture.
      const skip = SIGMA_DATA ** 2 / (scaled ** 2 + SIGMA_DATA ** 2);
      const out = scaled / Math.sqrt(scaled ** 2 + SIGMA_DATA ** 2);
      const clean = picture(config.prediction_type, bars[t]);
      const next = i + 1 < steps ? bars[timesteps[i + 1]] : 1;
      const keep = Math.sqrt(next);
      return {
        timestep: t,
        x: keep * (out * clean.x + skip),
        answer: keep * out * clean.answer,
        past: [],
        noise: Math.sqrt(1 - next),
      };
    });
    return finite({ start: 1, steps: made });
  },
});
