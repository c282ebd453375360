/**
 * DDIM sampling without noise (Song et al. 2021, eq. 12 with η = 0), as diffusers' DDIMScheduler steps it. Each step is a
 * linear map of the latents and the network's output, so the device needs one multiply-add a step.
 * Betas and their products are rounded to float32 where torch holds them so.
 */
import { Effect, Schema } from "effect";

/** A key that may be left out or null, with DDIMScheduler's own default. */
const or = <S extends Schema.Constraint>(schema: S, value: NoInfer<S["Encoded"]>) =>
  Schema.withDecodingDefaultKey<S>(Effect.succeed(value))(schema);
const atLeast = (minimum: number, maximum: number) => Schema.isBetween({ minimum, maximum });
const Beta = Schema.Finite.check(atLeast(0, 1));
const MAX_STEPS = 100_000;

/** scheduler_config.json. Keys that do not change DDIM's deterministic steps are not read. */
export const SchedulerConfig = Schema.Struct({
  _class_name: or(Schema.String, "DDIMScheduler"),
  num_train_timesteps: or(Schema.Int.check(atLeast(1, MAX_STEPS)), 1000),
  beta_start: or(Beta, 0.0001),
  beta_end: or(Beta, 0.02),
  beta_schedule: or(Schema.Literals(["linear", "scaled_linear", "squaredcos_cap_v2"]), "linear"),
  trained_betas: or(
    Schema.NullOr(Schema.Array(Beta).check(Schema.isMinLength(1), Schema.isMaxLength(MAX_STEPS))),
    null,
  ),
  clip_sample: or(Schema.Boolean, true),
  thresholding: or(Schema.Boolean, false),
  set_alpha_to_one: or(Schema.Boolean, true),
  steps_offset: or(Schema.Int.check(atLeast(0, MAX_STEPS)), 0),
  prediction_type: or(Schema.Literals(["epsilon", "v_prediction", "sample"]), "epsilon"),
  timestep_spacing: or(Schema.Literals(["leading", "linspace", "trailing"]), "leading"),
  rescale_betas_zero_snr: or(Schema.Boolean, false),
});
export type SchedulerConfig = typeof SchedulerConfig.Type;

/** What a reader of the report should know about how this scheduler is run. */
export const schedulerNotes = (config: SchedulerConfig): string[] => {
  const notes: string[] = [];
  if (config._class_name !== "DDIMScheduler") {
    notes.push(`the scheduler is ${config._class_name}; pictures are drawn by DDIM with the same noise schedule`);
  }
  if (config.clip_sample || config.thresholding) {
    notes.push("the scheduler asks to clip samples; latents are not clipped here");
  }
  return notes;
};

/** x_{t−1} = x·latents + noise·output. */
export interface Coefficients {
  readonly x: number;
  readonly noise: number;
}

/** A run of the sampler: timestep and coefficients of each step, from most noise to least. */
export interface Schedule {
  readonly timesteps: readonly number[];
  readonly coefficients: readonly Coefficients[];
}

const f32 = Math.fround;

/** torch.linspace in float32: from both ends towards the middle. */
const linspace = (from: number, to: number, n: number): number[] => {
  if (n === 1) return [f32(from)];
  const [a, b] = [f32(from), f32(to)];
  const step = f32((b - a) / (n - 1));
  return Array.from({ length: n }, (_, i) => f32(i < n / 2 ? a + step * i : b - step * (n - 1 - i)));
};

/** Glide's cosine schedule (Nichol & Dhariwal 2021, eq. 17), betas at most 0.999. */
const cosineBetas = (n: number): number[] => {
  const bar = (t: number) => Math.cos((t + 0.008) / 1.008 * Math.PI / 2) ** 2;
  return Array.from({ length: n }, (_, i) => f32(Math.min(1 - bar((i + 1) / n) / bar(i / n), 0.999)));
};

const betasOf = (c: SchedulerConfig): number[] => {
  if (c.trained_betas !== null) return c.trained_betas.map(f32);
  switch (c.beta_schedule) {
    case "linear":
      return linspace(c.beta_start, c.beta_end, c.num_train_timesteps);
    case "scaled_linear":
      return linspace(c.beta_start ** 0.5, c.beta_end ** 0.5, c.num_train_timesteps).map((b) => f32(b * b));
    case "squaredcos_cap_v2":
      return cosineBetas(c.num_train_timesteps);
  }
};

/** Running product, summed up in double and stored in float32, as torch.cumprod does on a CPU. */
const products = (values: readonly number[]): number[] => {
  let product = 1;
  return values.map((v) => f32(product *= v));
};

/** Lin et al. 2023, algorithm 1: shifts and scales √ᾱ so that the last one is 0. Returns new betas. */
const zeroTerminalSnr = (betas: readonly number[]): number[] => {
  const roots = products(betas.map((b) => f32(1 - b))).map((a) => f32(Math.sqrt(a)));
  const [first, last] = [roots[0], roots[roots.length - 1]];
  const scale = f32(first / f32(first - last));
  const bars = roots.map((r) => f32(f32(f32(r - last) * scale) ** 2));
  return bars.map((bar, i) => f32(1 - (i === 0 ? bar : f32(bar / bars[i - 1]))));
};

/** ᾱ_t for every training timestep: the share of the picture's variance that is left. */
export const alphaBars = (config: SchedulerConfig): readonly number[] => {
  const betas = betasOf(config);
  return products((config.rescale_betas_zero_snr ? zeroTerminalSnr(betas) : betas).map((b) => f32(1 - b)));
};

/** numpy's rounding: ties to even. */
const roundEven = (v: number): number => {
  const low = Math.floor(v);
  return v - low === 0.5 ? low + low % 2 : Math.round(v);
};

const timestepsOf = (c: SchedulerConfig, steps: number): number[] => {
  const total = c.num_train_timesteps;
  switch (c.timestep_spacing) {
    case "linspace":
      return Array.from({ length: steps }, (_, i) => roundEven(steps === 1 ? 0 : i * ((total - 1) / (steps - 1))))
        .reverse();
    case "leading":
      return Array.from({ length: steps }, (_, i) => i * Math.floor(total / steps) + c.steps_offset).reverse();
    case "trailing":
      return Array.from({ length: steps }, (_, i) => roundEven(total - i * (total / steps)) - 1);
  }
};

/** One step from ᾱ_t = a to ᾱ_{t−1} = b, as a linear map of latents and output. */
const stepOf = (kind: SchedulerConfig["prediction_type"], a: number, b: number): Coefficients => {
  const [sa, na, sb, nb] = [Math.sqrt(a), Math.sqrt(1 - a), Math.sqrt(b), Math.sqrt(1 - b)];
  switch (kind) {
    case "epsilon": // x₀ = (x − na·ε)/sa
      return { x: sb / sa, noise: nb - sb * na / sa };
    case "v_prediction": // x₀ = sa·x − na·v, ε = sa·v + na·x
      return { x: sb * sa + nb * na, noise: nb * sa - sb * na };
    case "sample": // ε = (x − sa·x₀)/na
      return { x: nb / na, noise: sb - nb * sa / na };
  }
};

/**
 * The steps of one sampling run. Latents start as plain standard normal noise.
 * @throws RangeError when `steps` is not a whole number from 1 to the training timesteps, when a timestep falls beyond
 * them, or when the first step divides by zero (noise prediction with zero terminal SNR).
 */
export const ddim = (config: SchedulerConfig, steps: number): Schedule => {
  const total = config.num_train_timesteps;
  if (!Number.isInteger(steps) || steps < 1 || steps > total) {
    throw new RangeError(`${steps} sampling steps; expected a whole number from 1 to ${total}`);
  }
  const bars = alphaBars(config);
  const timesteps = timestepsOf(config, steps);
  const last = config.set_alpha_to_one ? 1 : bars[0];
  const coefficients = timesteps.map((t) => {
    if (t >= bars.length) {
      throw new RangeError(
        `${steps} sampling steps reach timestep ${t}, beyond the ${bars.length} of training; take fewer`,
      );
    }
    const before = t - Math.floor(total / steps);
    return stepOf(config.prediction_type, bars[t], before >= 0 ? bars[before] : last);
  });
  if (coefficients.some((c) => !Number.isFinite(c.x) || !Number.isFinite(c.noise))) {
    throw new RangeError("this scheduler starts from pure noise, from which its prediction_type cannot step");
  }
  return { timesteps, coefficients };
};

/** Coefficients that noise a clean picture to timestep t: x_t = x·x₀ + noise·ε. */
export const noising = (config: SchedulerConfig, t: number): Coefficients => {
  const bars = alphaBars(config);
  const bar = bars[t];
  if (bar === undefined) throw new RangeError(`timestep ${t}; expected a whole number from 0 to ${bars.length - 1}`);
  return { x: Math.sqrt(bar), noise: Math.sqrt(1 - bar) };
};
