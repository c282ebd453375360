/** Arbitrary prompts, schedules of the sampler: what a pipeline is told, rather than what it computes. */
import fc from "fast-check";
import { Schema } from "effect";
import { SchedulerConfig } from "../diffusion/scheduler.ts";
import { ddim } from "../diffusion/schedules/ddim.ts";
import type { Schedule } from "../diffusion/schedules/schedule.ts";

/** Nouns, colours and other words of the tiny models' vocabulary: one token each. */
export const promptWords = {
  things: ["cat", "dog", "bird", "fish", "house", "tree", "car", "boat", "cup", "hat"],
  colours: ["red", "blue", "green", "yellow", "white", "black"],
  rest: ["a", "an", "the", "of", "on", "in", "and", "picture", "photo", "painting", "background", "two", "with", "by"],
} as const;

export interface PromptOptions {
  /** Also prompts as strangers type them: capitals, signs, accents, emoji, white space, nothing at all (no unless told). */
  readonly odd?: boolean;
}

const thing = fc.constantFrom(...promptWords.things), colour = fc.constantFrom(...promptWords.colours);

/** "a picture of a red cat on a blue background"; it shrinks to "a cat". */
const plain = fc.oneof(
  { withCrossShrink: true },
  thing.map((t) => `a ${t}`),
  fc.tuple(colour, thing).map(([c, t]) => `a picture of a ${c} ${t}`),
  fc.tuple(colour, thing, colour).map(([c, t, ground]) => `a picture of a ${c} ${t} on a ${ground} background`),
  fc.tuple(thing, thing).map(([t, u]) => `a photo of a ${t} and a ${u}`),
);

const odd = fc.oneof(
  { withCrossShrink: true },
  plain,
  plain.map((p) => p.toUpperCase()),
  fc.tuple(plain, fc.constantFrom(",", " , ", "!", "  ", "\t", "'s", " – ", " 3/4 ")).map(([p, s]) =>
    p.replace(" ", s)
  ),
  fc.tuple(plain, fc.constantFrom("é", "ß", "猫", "🐈", "\u200b", "\u0301", "\ufeff", "о")).map(([p, c]) =>
    `${c} ${p}`
  ),
  fc.string({ maxLength: 30, unit: "grapheme" }).filter((s) => !/[\r\n]/.test(s)),
);

/** One prompt, without line breaks, as a line of a prompts file is. */
export const promptArbitrary = ({ odd: any = false }: PromptOptions = {}): fc.Arbitrary<string> => any ? odd : plain;

/** Several different prompts. */
export const promptsArbitrary = (count: number, options: PromptOptions = {}): fc.Arbitrary<string[]> =>
  fc.uniqueArray(promptArbitrary(options), { minLength: count, maxLength: count });

/** A sampling run: the model's scheduler_config.json, how many steps, and the steps that come of it. */
export interface SamplingRun {
  readonly scheduler: SchedulerConfig;
  readonly steps: number;
  readonly schedule: Schedule;
}

export interface ScheduleOptions {
  /** Most sampling steps (50 unless told). */
  readonly most?: number;
}

/** Schedules of DDIM as scheduler configs of published models have them, that can be stepped; they shrink to few steps. */
export const scheduleArbitrary = ({ most = 50 }: ScheduleOptions = {}): fc.Arbitrary<SamplingRun> =>
  fc.record({
    steps: fc.integer({ min: 1, max: most }),
    total: fc.integer({ min: most + 1, max: 1000 }),
    beta_start: fc.integer({ min: 1, max: 20 }).map((x) => x / 10_000),
    beta_end: fc.integer({ min: 50, max: 250 }).map((x) => x / 10_000),
    beta_schedule: fc.constantFrom("linear", "scaled_linear", "squaredcos_cap_v2"),
    prediction_type: fc.constantFrom("epsilon", "v_prediction", "sample"),
    timestep_spacing: fc.constantFrom("leading", "linspace", "trailing"),
    set_alpha_to_one: fc.boolean(),
    steps_offset: fc.constantFrom(0, 1),
    rescale_betas_zero_snr: fc.boolean(),
  }).map(({ steps, total, rescale_betas_zero_snr, ...config }) => {
    const scheduler = Schema.decodeSync(SchedulerConfig)({
      ...config,
      _class_name: "DDIMScheduler",
      num_train_timesteps: total,
      clip_sample: false,
      // From pure noise, noise prediction cannot step.
      rescale_betas_zero_snr: rescale_betas_zero_snr && config.prediction_type === "v_prediction",
    });
    return { scheduler, steps };
  }).filter(({ scheduler, steps }) => canStep(scheduler, steps)).map((run) => ({
    ...run,
    schedule: ddim(run.scheduler).plan(run.steps),
  }));

const canStep = (scheduler: SchedulerConfig, steps: number): boolean => {
  try {
    return ddim(scheduler).plan(steps).steps.length === steps;
  } catch {
    return false;
  }
};
