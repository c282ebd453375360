/**
 * Guided sampling. One graph holds a whole step (both guidance branches, the guidance and the scheduler's update), so the
 * latents, and what a scheduler remembers of earlier steps, stay on the device from the first step to the last.
 */
import { Effect } from "effect";
import { add, concat, expand, Graph, mul, slice, sub, type Value } from "../graph/mod.ts";
import { parseUnetConfig, unetCondition, type UnetConfig } from "../models/unet_2d_condition.ts";
import { type DeviceTensor, type HostTensor, isDevice, Runtime, type Session } from "../runtime/mod.ts";
import { concat0, slice0, type Tensor, zeros } from "../tensor/tensor.ts";
import type { Bundle } from "./bundle.ts";
import { addedOf, pooledInput, sizesOf, textFeedsOf } from "./conditioning.ts";
import { eachEmbedding, type Embeddings } from "./embeddings.ts";
import { evenBatch, float32, inBatches, inHalves, openSession, rows, scalar } from "./networks.ts";
import { freshNoise, type PictureNoise } from "./picture_noise.ts";
import { planFor, solverFor } from "./plan.ts";
import type { SchedulerName } from "./schedules/choose.ts";
import type { SamplingStep, Schedule, Solver } from "./schedules/schedule.ts";

/** Pictures computed at once: as many as fill about 8 × 256 latent cells, the point past which a batch gains nothing. */
export const batchFor = (height: number, width: number): number =>
  Math.max(1, Math.min(8, Math.floor(2048 / (height * width))));

export interface SampleOptions {
  readonly steps: number;
  /** Classifier-free guidance scale (Ho and Salimans 2022); 1 turns it off. */
  readonly guidance: number;
  /** Indices of steps whose incoming latents are wanted, as the U-Net is asked about them. */
  readonly capture?: readonly number[];
  /** Weights that the sampler takes as inputs, by input name. */
  readonly weights?: Readonly<Record<string, Tensor>>;
  /** Called after each step of each batch, with the pictures×steps that are done. */
  readonly onStep?: (done: number, total: number) => Effect.Effect<void>;
}

export interface Samples {
  /** [n, C, h, w] */
  readonly latents: Tensor;
  /** Latents that went into each captured step, [n, C, h, w] each, in the order of `capture`. */
  readonly captured: readonly Tensor[];
}

/** The blend of latents at sampling time: a second context is sampled beside the first and flows into it where the mask is 1. */
export interface Blend {
  /** Weight of the clean latents, [h, w] in [0,1]. */
  readonly mask: Tensor;
}

/** Size of the latents: what the U-Net was trained on. */
export const latentDims = (config: UnetConfig): readonly [number, number, number] => [
  config.in_channels,
  config.sample_size,
  config.sample_size,
];

/**
 * Opens a sampler. The result maps texts as openTextEncoder gives them, context [n, L, D] and uncond [1, L, D], and the
 * noise of n pictures to latents; with `blend`, `clean` [n, L, D] is the context that flows in; with `weightsAsInputs`,
 * `settings.weights` feeds the weights it picks. Fails when the model does not go with the scheduler, or so many steps
 * cannot be made.
 */
export const openSampler = Effect.fnUntraced(function* (
  bundle: Bundle,
  options: {
    /** How many pictures a call asks for, where that is known: batches are then filled evenly. */
    readonly pictures?: number;
    /** DDIM unless told. */
    readonly scheduler?: SchedulerName;
    readonly blend?: Blend;
    readonly weightsAsInputs?: (key: string) => boolean;
    /** Pictures alone are wanted, nothing is measured on the way: half precision will do where the runtime has it. */
    readonly drawing?: boolean;
  } = {},
) {
  const config = parseUnetConfig(bundle.parts.unet.config);
  const [channels, height, width] = latentDims(config);
  const most = batchFor(height, width);
  const { lanes } = yield* Runtime;
  const batch = options.pictures === undefined ? most : evenBatch(options.pictures, most, lanes);
  const length = bundle.tokenizer.maxLength;
  const { weightsAsInputs, scheduler = "ddim" } = options;
  const solver = yield* solverFor(bundle, scheduler);
  const graph = stepGraph(config, {
    batch,
    channels,
    height,
    width,
    length,
    blend: options.blend !== undefined,
    memory: solver.memory,
    noisy: solver.noisy,
    weightsAsInputs,
    sizes: sizesOf(bundle),
  });
  const session = yield* openSession(
    options.blend === undefined ? "denoising step" : "blended denoising step",
    graph,
    bundle,
    "unet",
    { half: options.drawing === true && weightsAsInputs === undefined && (yield* inHalves(bundle.parts.unet)) },
  );

  return Effect.fnUntraced(function* (
    texts: { readonly context: Embeddings; readonly uncond: Embeddings; readonly clean?: Embeddings },
    noise: PictureNoise,
    settings: SampleOptions,
  ) {
    const schedule = yield* planFor(bundle, { scheduler, steps: settings.steps });
    const n = noise.start.dims[0];
    const wanted = settings.capture ?? [];
    const total = n * schedule.steps.length;
    let count = 0;
    const sampleBatch = Effect.fnUntraced(function* (begin: number, real: number) {
      const fixed: Record<string, Tensor> = {
        ...settings.weights,
        ...textFeedsOf(config, {
          context: ["pooled", eachEmbedding(texts.context, (t) => rows(t, begin, batch))],
          uncond: ["uncond_pooled", texts.uncond],
        }),
        guidance: scalar(settings.guidance),
      };
      if (options.blend !== undefined) {
        const clean = eachEmbedding(texts.clean!, (t) => rows(t, begin, batch));
        Object.assign(fixed, textFeedsOf(config, { clean_context: ["clean_pooled", clean] }));
        fixed.mask = { dims: [1, 1, height, width], data: options.blend.mask.data };
      }
      const captured: Tensor[] = [];
      const start = scaled(rows(noise.start, begin, batch), schedule.start);
      const fresh = (step: number) => freshNoise(noise, step, begin, batch);
      const run = { session, solver, schedule, fixed, start, fresh, blended: options.blend !== undefined };
      const latents = yield* loop(run, {
        before: Effect.fnUntraced(function* (index, latents) {
          const slot = wanted.indexOf(index);
          if (slot >= 0) captured[slot] = slice0(yield* float32(latents), 0, real);
        }),
        after: () => settings.onStep?.(count += real, total) ?? Effect.void,
      });
      return { latents: slice0(latents, 0, real), captured };
    });
    const batches = yield* inBatches(session, n, batch, sampleBatch);
    return {
      latents: concat0(batches.map((b) => b.latents)),
      captured: wanted.map((_, slot) => concat0(batches.map((b) => b.captured[slot]))),
    } satisfies Samples;
  });
});

type Carried = HostTensor | DeviceTensor;

interface LoopHooks<E, R> {
  /** Sees each step's index and its incoming latents. */
  readonly before: (index: number, latents: Carried) => Effect.Effect<void, E, R>;
  readonly after: () => Effect.Effect<void, E, R>;
}

interface BatchRun {
  readonly session: Session;
  readonly solver: Solver;
  readonly schedule: Schedule;
  /** Inputs that are the same in every step. */
  readonly fixed: Readonly<Record<string, Tensor>>;
  readonly start: Tensor;
  /** Fresh noise of a step. */
  readonly fresh: (step: number) => Tensor;
  readonly blended: boolean;
}

/** Runs the steps of one batch. */
const loop = Effect.fnUntraced(function* <E, R>(
  { session, solver, schedule, fixed, start, fresh, blended }: BatchRun,
  { before, after }: LoopHooks<E, R>,
) {
  const names = blended ? ["latents", "clean_latents"] : ["latents"];
  const carried: Record<string, Carried> = Object.fromEntries(names.map((name) => [name, start]));
  const [batch, ...rest] = start.dims;
  const nothing = zeros([names.length * batch, ...rest]);
  /** What is remembered, the latest first. */
  let past: readonly Carried[] = Array.from({ length: solver.memory }, () => nothing);
  const still = zeros(start.dims);
  for (const [index, step] of schedule.steps.entries()) {
    yield* before(index, carried.latents);
    const feeds = {
      ...fixed,
      ...carried,
      ...Object.fromEntries(past.map((m, i) => [`past.${i}`, m])),
      ...numbersOf(step, solver),
      ...(solver.noisy ? { fresh: step.noise === 0 ? still : fresh(index) } : {}),
    };
    const last = index === schedule.steps.length - 1;
    const remembers = solver.memory > 0 && !last && step.remember !== undefined;
    const out = yield* session.run(feeds, {
      keep: last ? [] : [...names.map((name) => `next_${name}`), ...(remembers ? ["remember"] : [])],
    });
    for (const name of names) {
      discard(carried[name]);
      carried[name] = out[`next_${name}`];
    }
    if (last) past.forEach(discard);
    if (remembers) {
      past.slice(-1).forEach(discard);
      past = [out.remember, ...past.slice(0, -1)];
    }
    yield* after();
  }
  return yield* float32(carried.latents);
});

const discard = (t: Carried): void => {
  if (isDevice(t)) t.dispose();
};

const scaled = (t: Tensor, by: number): Tensor => by === 1 ? t : { dims: t.dims, data: t.data.map((x) => by * x) };

/** A step's numbers, by the graph's inputs. */
const numbersOf = (step: SamplingStep, { memory, noisy }: Solver): Record<string, Tensor> => ({
  timestep: scalar(step.timestep, [1]),
  keep: scalar(step.x),
  step: scalar(step.answer),
  ...Object.fromEntries(Array.from({ length: memory }, (_, i) => [`past_weight.${i}`, scalar(step.past[i] ?? 0)])),
  ...(memory > 0
    ? { remember_keep: scalar(step.remember?.x ?? 0), remember_step: scalar(step.remember?.answer ?? 0) }
    : {}),
  ...(noisy ? { fresh_weight: scalar(step.noise) } : {}),
});

interface StepShape {
  readonly batch: number;
  readonly channels: number;
  readonly height: number;
  readonly width: number;
  readonly length: number;
  readonly blend: boolean;
  /** Predictions of earlier steps that come in. */
  readonly memory: number;
  /** Whether fresh noise comes in. */
  readonly noisy: boolean;
  readonly weightsAsInputs: ((key: string) => boolean) | undefined;
  readonly sizes: Tensor | undefined;
}

/**
 * next = keep · x + step · ε̂ + Σ past_weight · past + fresh_weight · fresh, with ε̂ = ε_u + s (ε_c − ε_u); to be
 * remembered: remember_keep · x + remember_step · ε̂. With blend, what the clean text's latents come to flows in at M:
 * next + M ⊙ (next_clean − next), and so for what is remembered, which then is the clean picture's there as well.
 */
const stepGraph = (config: UnetConfig, s: StepShape): Graph => {
  const picks = s.weightsAsInputs;
  const g = new Graph(picks === undefined ? {} : { weightsAsInputs: (_, key) => picks(key) });
  const dims = [s.batch, s.channels, s.height, s.width];
  const text = (name: string, pooledName: string, n: number) => ({
    states: g.input(name, "float32", [n, s.length, config.cross_attention_dim]),
    pooled: pooledInput(g, config, pooledName, [n]),
  });
  const one = (name: string) => g.input(name, "float32", []);
  const latents = g.input("latents", "float32", dims);
  const context = text("context", "pooled", s.batch);
  const nothing = text("uncond", "uncond_pooled", 1);
  const uncond = {
    states: expand(nothing.states, [s.batch, ...nothing.states.dims.slice(1)]),
    pooled: nothing.pooled && expand(nothing.pooled, [s.batch, ...nothing.pooled.dims.slice(1)]),
  };
  const timestep = g.input("timestep", "float32", [1]);
  const [guidance, keep, step] = ["guidance", "keep", "step"].map(one);
  const both = s.blend ? 2 : 1;
  const past = Array.from({ length: s.memory }, (_, i) => ({
    value: g.input(`past.${i}`, "float32", [both * s.batch, ...dims.slice(1)]),
    weight: one(`past_weight.${i}`),
  }));
  const fresh = s.noisy ? mul(one("fresh_weight"), g.input("fresh", "float32", dims)) : undefined;
  const predict = unetCondition(config);

  const advance = (x: Value, texts: readonly (typeof context)[]) => {
    const count = texts.length;
    const all = [...texts.map(() => uncond), ...texts];
    const pooled = all.flatMap((t) => t.pooled === undefined ? [] : [t.pooled]);
    const { noise } = predict(g.weights("unet"), {
      sample: concat([x, x], 0),
      timestep,
      context: concat(all.map((t) => t.states), 0),
      ...addedOf(g, pooled.length === 0 ? undefined : concat(pooled, 0), s.sizes),
    });
    const without = slice(noise, 0, 0, count * s.batch);
    const guided = add(without, mul(guidance, sub(slice(noise, 0, count * s.batch, 2 * count * s.batch), without)));
    const own = add(mul(keep, x), mul(step, guided));
    const remembered = past.reduce((sum, { value, weight }) => add(sum, mul(weight, value)), own);
    return {
      next: fresh === undefined ? remembered : add(remembered, concat(texts.map(() => fresh), 0)),
      remember: s.memory === 0 ? undefined : add(mul(one("remember_keep"), x), mul(one("remember_step"), guided)),
    };
  };

  if (!s.blend) {
    const { next, remember } = advance(latents, [context]);
    g.output("next_latents", next);
    if (remember !== undefined) g.output("remember", remember);
    return g;
  }
  const clean = g.input("clean_latents", "float32", dims);
  const mask = g.input("mask", "float32", [1, 1, s.height, s.width]);
  const { next, remember } = advance(concat([latents, clean], 0), [
    context,
    text("clean_context", "clean_pooled", s.batch),
  ]);
  const flown = (t: Value) => {
    const [poisoned, pure] = [slice(t, 0, 0, s.batch), slice(t, 0, s.batch, 2 * s.batch)];
    return { blended: add(poisoned, mul(mask, sub(pure, poisoned))), pure };
  };
  const { blended, pure } = flown(next);
  g.output("next_latents", blended);
  g.output("next_clean_latents", pure);
  if (remember !== undefined) {
    const after = flown(remember);
    g.output("remember", concat([after.blended, after.pure], 0));
  }
  return g;
};
