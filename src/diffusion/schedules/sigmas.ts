/**
 * Noise in sigmas, the noise's scale over the picture's: σ = √((1 − ᾱ)/ᾱ). How diffusers spaces them where timesteps are
 * not what is spaced evenly. Rounded to float32 where torch and numpy hold them so.
 */
import { alphaBars, type SchedulerConfig } from "../scheduler.ts";
import { evenly } from "./spacing.ts";

const f32 = Math.fround;

/** σ of every training timestep, growing. Where the last one would be infinite it is that of ᾱ = 2⁻²⁴. */
export const trainedSigmas = (config: SchedulerConfig): readonly number[] => {
  const bars = [...alphaBars(config)];
  if (config.rescale_betas_zero_snr) bars[bars.length - 1] = 2 ** -24;
  return bars.map((bar) => f32(Math.sqrt(f32(f32(1 - bar) / bar))));
};

/** σ at a timestep between two of training, linearly. */
export const sigmaAt = (sigmas: readonly number[], t: number): number => {
  const low = Math.min(Math.floor(t), sigmas.length - 1);
  const high = Math.min(low + 1, sigmas.length - 1);
  return sigmas[low] + (t - low) * (sigmas[high] - sigmas[low]);
};

/** The timesteps, between two of training each, that have these σ: linear in ln σ. */
export const timestepsAt = (trained: readonly number[], sigmas: readonly number[]): number[] => {
  const logs = trained.map((s) => f32(Math.log(s)));
  return sigmas.map((sigma) => {
    const log = Math.log(Math.max(sigma, 1e-10));
    const above = logs.findIndex((l) => l > log);
    const low = Math.max(0, Math.min(above < 0 ? logs.length : above - 1, logs.length - 2));
    const share = (logs[low] - log) / (logs[low] - logs[low + 1]);
    return low + Math.max(0, Math.min(1, share));
  });
};

/** Evenly spaced in σ^(1/7), from `most` down to `least` (Karras et al. 2022, eq. 5). */
export const karrasSigmas = (most: number, least: number, count: number): number[] =>
  evenly(1, count).map((ramp) => (most ** (1 / 7) + ramp * (least ** (1 / 7) - most ** (1 / 7))) ** 7);

/** Evenly spaced in ln σ, from `most` down to `least`. */
export const exponentialSigmas = (most: number, least: number, count: number): number[] =>
  evenly(1, count).map((ramp) => Math.exp(Math.log(most) + ramp * (Math.log(least) - Math.log(most))));

/** √(1 + σ²): what latents x₀ + σ ε are divided by to be √ᾱ x₀ + √(1 − ᾱ) ε. */
export const scaleOf = (sigma: number): number => Math.sqrt(1 + sigma * sigma);

/** σ after the last step. @throws RangeError when the config asks for something else than diffusers knows. */
export const lastSigma = ({ final_sigmas_type: kind }: SchedulerConfig, sigmas: readonly number[]): number => {
  if (kind === "sigma_min") return sigmas[0];
  if (kind === undefined || kind === null || kind === "zero") return 0;
  throw new RangeError(`final_sigmas_type is ${JSON.stringify(kind)}; expected "zero" or "sigma_min"`);
};
