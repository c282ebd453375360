/**
 * scheduler_config.json, and the noise that it says the model was trained on: how much of a picture is left at each
 * timestep. How that noise is taken away again is in `schedules/`.
 * Betas and their products are rounded to float32 where torch holds them so.
 */
import { Effect, Schema } from "effect";

/** A key that may be left out or null, with diffusers' own default. */
const or = <S extends Schema.Constraint>(schema: S, value: NoInfer<S["Encoded"]>) =>
  Schema.withDecodingDefaultKey<S>(Effect.succeed(value))(schema);
const atLeast = (minimum: number, maximum: number) => Schema.isBetween({ minimum, maximum });
const Beta = Schema.Finite.check(atLeast(0, 1));
const MAX_STEPS = 100_000;
const Maybe = <S extends Schema.Constraint>(schema: S) => Schema.optionalKey(Schema.NullOr(schema));
const Flag = Maybe(Schema.Boolean);

/**
 * scheduler_config.json. Where diffusers' classes have different defaults for a key, it is absent when the file does not
 * say: each way of sampling then takes its own class's, as `from_config` does.
 */
export const SchedulerConfig = Schema.Struct({
  _class_name: or(Schema.String, "DDIMScheduler"),
  num_train_timesteps: or(Schema.Int.check(atLeast(1, MAX_STEPS)), 1000),
  beta_start: Schema.optionalKey(Beta),
  beta_end: Schema.optionalKey(Beta),
  beta_schedule: Schema.optionalKey(Schema.Literals(["linear", "scaled_linear", "squaredcos_cap_v2"])),
  trained_betas: or(
    Schema.NullOr(Schema.Array(Beta).check(Schema.isMinLength(1), Schema.isMaxLength(MAX_STEPS))),
    null,
  ),
  clip_sample: or(Schema.Boolean, true),
  thresholding: or(Schema.Boolean, false),
  set_alpha_to_one: Schema.optionalKey(Schema.Boolean),
  steps_offset: or(Schema.Int.check(atLeast(0, MAX_STEPS)), 0),
  prediction_type: or(Schema.Literals(["epsilon", "v_prediction", "sample"]), "epsilon"),
  timestep_spacing: Schema.optionalKey(Schema.Literals(["leading", "linspace", "trailing"])),
  rescale_betas_zero_snr: or(Schema.Boolean, false),
  // What only some ways of sampling ask for. Words that they do not know are refused when they are asked for, not before.
  skip_prk_steps: Flag,
  final_sigmas_type: Maybe(Schema.String),
  interpolation_type: Maybe(Schema.String),
  timestep_type: Maybe(Schema.String),
  use_karras_sigmas: Flag,
  use_exponential_sigmas: Flag,
  use_beta_sigmas: Flag,
  use_lu_lambdas: Flag,
  use_flow_sigmas: Flag,
  sigma_min: Maybe(Schema.Finite),
  sigma_max: Maybe(Schema.Finite),
  algorithm_type: Maybe(Schema.String),
  solver_order: Maybe(Schema.Int),
  solver_type: Maybe(Schema.String),
  lower_order_final: Flag,
  euler_at_final: Flag,
  /** Null is Python's -Infinity, which JSON cannot say. */
  lambda_min_clipped: Maybe(Schema.Finite),
  original_inference_steps: Maybe(Schema.Int.check(atLeast(1, MAX_STEPS))),
  timestep_scaling: Maybe(Schema.Finite),
});
export type SchedulerConfig = typeof SchedulerConfig.Type;

/** What a reader of the report should know about how this scheduler is run. */
export const schedulerNotes = (config: SchedulerConfig): string[] => {
  const notes: string[] = [];
  if (config._class_name !== "DDIMScheduler") {
    notes.push(
      `the scheduler is ${config._class_name}; pictures are drawn by DDIM with the same noise schedule, ` +
        'unless the setting scheduler says otherwise ("own" for the model\'s)',
    );
  }
  if (config.clip_sample || config.thresholding) {
    notes.push("the scheduler asks to clip samples; latents are not clipped here");
  }
  return notes;
};

/** A clean picture noised to a timestep: x_t = x·x₀ + noise·ε. */
export interface Coefficients {
  readonly x: number;
  readonly noise: number;
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

/** What the class that the file names takes for betas that it does not say. */
const defaultBetas = ({ _class_name }: SchedulerConfig) =>
  _class_name === "LCMScheduler"
    ? { kind: "scaled_linear", start: 0.00085, end: 0.012 } as const
    : { kind: "linear", start: 0.0001, end: 0.02 } as const;

const betasOf = (c: SchedulerConfig): number[] => {
  if (c.trained_betas !== null) return c.trained_betas.map(f32);
  const { kind, start, end } = defaultBetas(c);
  const [first, last] = [c.beta_start ?? start, c.beta_end ?? end];
  switch (c.beta_schedule ?? kind) {
    case "linear":
      return linspace(first, last, c.num_train_timesteps);
    case "scaled_linear":
      return linspace(first ** 0.5, last ** 0.5, c.num_train_timesteps).map((b) => f32(b * b));
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

/** Coefficients that noise a clean picture to timestep t. */
export const noising = (config: SchedulerConfig, t: number): Coefficients => {
  const bars = alphaBars(config);
  const bar = bars[t];
  if (bar === undefined) throw new RangeError(`timestep ${t}; expected a whole number from 0 to ${bars.length - 1}`);
  return { x: Math.sqrt(bar), noise: Math.sqrt(1 - bar) };
};
