/** Lessons for training a U-Net on its own pictures: noised latents, a text, and the answer that is wanted. No data set. */
import { Effect } from "effect";
import type { Bundle } from "../diffusion/bundle.ts";
import { openEvaluator } from "../diffusion/evaluator.ts";
import { pictureNoise } from "../diffusion/picture_noise.ts";
import { latentDims, openSampler } from "../diffusion/sampler.ts";
import { alphaBars, type SchedulerConfig } from "../diffusion/scheduler.ts";
import type { SchedulerName } from "../diffusion/schedules/choose.ts";
import { parseUnetConfig } from "../models/unet_2d_condition.ts";
import { type Embeddings, joinEmbeddings, splitEmbeddings } from "../diffusion/embeddings.ts";
import type { HostTensor } from "../runtime/mod.ts";
import { normal, sample, uniform } from "../tensor/random.ts";
import { concat0, slice0, type Tensor } from "../tensor/tensor.ts";
import { report } from "./progress.ts";
import { pickRows } from "./rows.ts";

/** One question to the U-Net and the answer that is wanted. */
export interface Lesson {
  /** [1, C, h, w] */
  readonly latents: Tensor;
  readonly timestep: number;
  /** [1, L, D] */
  readonly context: Embeddings;
  /** [1, C, h, w] */
  readonly wanted: Tensor;
}

/** Seeds of what is random in the lessons, by its name. */
type SeedFor = (what: string) => number;

export interface DrawOptions {
  readonly steps: number;
  readonly scheduler: SchedulerName;
  readonly guidance: number;
  readonly seed: number;
}

/** Latents [n, C, h, w] of pictures that the model draws for texts [n, L, D]. */
export const drawLatents = Effect.fnUntraced(
  function* (
    bundle: Bundle,
    context: Embeddings,
    uncond: Embeddings,
    { steps, scheduler, guidance, seed }: DrawOptions,
  ) {
    const [n] = context.dims;
    const dims = latentDims(parseUnetConfig(bundle.parts.unet.config));
    return yield* Effect.scoped(Effect.gen(function* () {
      const run = yield* openSampler(bundle, { pictures: n, scheduler });
      const { latents } = yield* run({ context, uncond }, pictureNoise(seed, n, dims), {
        steps,
        guidance,
        onStep: (done, total) => report({ done, total, note: "drawing pictures to train on" }),
      });
      return latents;
    }));
  },
);

/** A picture noised to a timestep, and what the model as it came answers there. */
export interface Asked {
  /** Which of the pictures. */
  readonly picture: number;
  /** [1, C, h, w], noised. */
  readonly latents: Tensor;
  readonly timestep: number;
  /** ᾱ of the timestep. */
  readonly bar: number;
  /** What ordinary training would have answered, [1, C, h, w]: the added noise, or what prediction_type says instead. */
  readonly truth: Tensor;
  /** The texts asked about, [1, L, D] each, and the answers [1, C, h, w]. */
  readonly contexts: readonly Embeddings[];
  readonly answers: readonly Tensor[];
}

export interface AskOptions {
  /** How often each picture is noised, each time anew. */
  readonly noisings: number;
  /** The texts to ask about, as many for every picture; `round` counts the questions. */
  readonly contexts: (picture: number, round: number) => readonly Embeddings[];
  /** From shares in [0, 1), spread evenly, to shares of the timesteps that are asked about; all alike by default. */
  readonly times?: (share: number) => number;
  readonly seed: SeedFor;
}

/** Pictures that are noised to one timestep together. */
const GROUP = 8;

/** Noises latents [n, C, h, w] and asks the model about them: once, before the training. */
export const ask = Effect.fnUntraced(function* (bundle: Bundle, pictures: Tensor, o: AskOptions) {
  const [n, ...dims] = pictures.dims;
  const bars = alphaBars(bundle.scheduler);
  const questions = Array.from({ length: n * o.noisings }, (_, i) => i % n);
  const groups = Math.ceil(questions.length / GROUP);
  // Stratified: each group's timestep is drawn from its own share of all, and the shares are dealt out at random.
  const shares = sample(o.seed("order"), Array.from({ length: groups }, (_, g) => g), groups);
  const within = uniform(o.seed("timesteps"), [groups]).data;
  const noise = normal(o.seed("noise"), [questions.length, ...dims]);
  const readings = o.contexts(0, 0).length;
  const { times = (share) => share } = o;
  return yield* Effect.scoped(Effect.gen(function* () {
    const evaluate = yield* openEvaluator(bundle, readings, { prompts: GROUP });
    const asked: Asked[] = [];
    for (let g = 0; g < groups; g++) {
      yield* report({ done: g, total: groups, note: "asking the model as it came" });
      const timestep = Math.floor(times((shares[g] + within[g]) / groups) * bars.length);
      const bar = bars[timestep];
      const some = questions.slice(g * GROUP, (g + 1) * GROUP);
      const added = slice0(noise, g * GROUP, g * GROUP + some.length);
      const clean = pickRows(pictures, some);
      const latents = noised(clean, added, bar);
      const truth = truthOf(bundle.scheduler.prediction_type, clean, added, bar);
      const contexts = some.map((p, i) => o.contexts(p, g + i));
      const { noise: answers } = yield* evaluate(
        latents,
        splitEmbeddings(joinEmbeddings(contexts.flat()), [some.length, readings]),
        timestep,
      );
      for (const [i, picture] of some.entries()) {
        asked.push({
          picture,
          latents: slice0(latents, i, i + 1),
          timestep,
          bar,
          truth: slice0(truth, i, i + 1),
          contexts: contexts[i],
          answers: contexts[i].map((_, r) => answerAt(answers, i, r)),
        });
      }
    }
    return asked;
  }));
});

/** √ᾱ x₀ + √(1 − ᾱ) noise */
export const noised = (x: Tensor, noise: Tensor, bar: number): Tensor => {
  const [a, b] = [Math.sqrt(bar), Math.sqrt(1 - bar)];
  return { dims: x.dims, data: x.data.map((v, i) => a * v + b * noise.data[i]) };
};

/**
 * What a network is trained to answer about √ᾱ x₀ + √(1 − ᾱ) ε: ε, x₀, or v = √ᾱ ε − √(1 − ᾱ) x₀ (Salimans and Ho 2022,
 * appendix D).
 */
export const truthOf = (
  kind: SchedulerConfig["prediction_type"],
  clean: Tensor,
  noise: Tensor,
  bar: number,
): Tensor => {
  if (kind === "epsilon") return noise;
  if (kind === "sample") return clean;
  const [a, b] = [Math.sqrt(bar), Math.sqrt(1 - bar)];
  return { dims: clean.dims, data: clean.data.map((x, i) => a * noise.data[i] - b * x) };
};

/** The noise in √ᾱ x₀ + √(1 − ᾱ) ε, if x₀ is what lies under it. */
export const noiseOver = (noisy: Tensor, x: Tensor, bar: number): Tensor => {
  const [a, b] = [Math.sqrt(bar), Math.sqrt(1 - bar)];
  return { dims: x.dims, data: x.data.map((v, i) => (noisy.data[i] - a * v) / b) };
};

/** How much of an answer's squared error is the picture's: x₀ is (x_t − √(1 − ᾱ) ε)/√ᾱ, or √ᾱ x_t − √(1 − ᾱ) v. */
export const pictureShare = (kind: SchedulerConfig["prediction_type"], bar: number): number =>
  kind === "epsilon" ? (1 - bar) / bar : kind === "sample" ? 1 : 1 - bar;

/** Answer [1, C, h, w] to reading r of row i, of answers [n, R, C, h, w]. */
const answerAt = ({ dims: [, readings, ...rest], data }: Tensor, i: number, r: number): Tensor => {
  const size = rest.reduce((a, b) => a * b, 1);
  return { dims: [1, ...rest], data: data.slice((i * readings + r) * size, (i * readings + r + 1) * size) };
};

/**
 * A step's inputs of noiseDistillation. Row i counts `weights[i]` times the mean square over its channels and cells; the
 * first `mask.rows` of them over the cells of `mask.region` [h, w] alone.
 */
export const lessonFeeds = (
  lessons: readonly Lesson[],
  weights: readonly number[],
  mask?: { readonly region: Tensor; readonly rows: number },
): Record<string, HostTensor> => {
  const [, channels, height, width] = lessons[0].latents.dims;
  const cells = height * width;
  const inside = mask?.region.data.reduce((a, b) => a + b, 0) ?? 0;
  const weight = new Float32Array(lessons.length * cells);
  for (let i = 0; i < weight.length; i++) {
    const row = Math.floor(i / cells);
    weight[i] = mask !== undefined && row < mask.rows
      ? weights[row] * mask.region.data[i % cells] / (channels * inside)
      : weights[row] / (channels * cells);
  }
  const { pooled, ...context } = joinEmbeddings(lessons.map((l) => l.context));
  return {
    latents: concat0(lessons.map((l) => l.latents)),
    timestep: { dims: [lessons.length], data: Float32Array.from(lessons, (l) => l.timestep) },
    context,
    ...(pooled === undefined ? {} : { pooled }),
    wanted: concat0(lessons.map((l) => l.wanted)),
    weight: { dims: [lessons.length, 1, height, width], data: weight },
  };
};
