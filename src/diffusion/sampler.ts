/**
 * Guided DDIM sampling. One graph holds a whole step (both guidance branches, the guidance and the scheduler's update),
 * so the latents stay on the device from the first step to the last.
 */
import { Effect } from "effect";
import { add, concat, expand, Graph, mul, slice, sub, type Value } from "../graph/mod.ts";
import { parseUnetConfig, unetCondition, type UnetConfig } from "../models/unet_2d_condition.ts";
import { type DeviceTensor, type HostTensor, isDevice, Runtime, type Session } from "../runtime/mod.ts";
import { concat0, slice0, type Tensor } from "../tensor/tensor.ts";
import type { Bundle } from "./bundle.ts";
import { addedOf, pooledInput, sizesOf, textFeedsOf } from "./conditioning.ts";
import { eachEmbedding, type Embeddings } from "./embeddings.ts";
import { evenBatch, float32, inBatches, openSession, rows, scalar } from "./networks.ts";
import { ddim, type Schedule } from "./scheduler.ts";

/** Pictures computed at once: as many as fill about 8 × 256 latent cells, the point past which a batch gains nothing. */
export const batchFor = (height: number, width: number): number =>
  Math.max(1, Math.min(8, Math.floor(2048 / (height * width))));

export interface SampleOptions {
  readonly steps: number;
  /** Classifier-free guidance scale (Ho and Salimans 2022); 1 turns it off. */
  readonly guidance: number;
  /** Indices of steps whose incoming latents are wanted. */
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
 * Opens a sampler. The result maps texts as openTextEncoder gives them, context [n, L, D], uncond [1, L, D] and noise [n, C, h, w] to latents; with `blend`,
 * `clean` [n, L, D] is the context that flows in; with `weightsAsInputs`, `settings.weights` feeds the weights it picks.
 */
export const openSampler = Effect.fnUntraced(function* (
  bundle: Bundle,
  options: {
    /** How many pictures a call asks for, where that is known: batches are then filled evenly. */
    readonly pictures?: number;
    readonly blend?: Blend;
    readonly weightsAsInputs?: (key: string) => boolean;
  } = {},
) {
  const config = parseUnetConfig(bundle.parts.unet.config);
  const [channels, height, width] = latentDims(config);
  const most = batchFor(height, width);
  const { lanes } = yield* Runtime;
  const batch = options.pictures === undefined ? most : evenBatch(options.pictures, most, lanes);
  const length = bundle.tokenizer.maxLength;
  const { weightsAsInputs } = options;
  const graph = stepGraph(config, {
    batch,
    channels,
    height,
    width,
    length,
    blend: options.blend !== undefined,
    weightsAsInputs,
    sizes: sizesOf(bundle),
  });
  const session = yield* openSession(
    options.blend === undefined ? "denoising step" : "blended denoising step",
    graph,
    bundle,
    "unet",
  );

  return Effect.fnUntraced(function* (
    texts: { readonly context: Embeddings; readonly uncond: Embeddings; readonly clean?: Embeddings },
    noise: Tensor,
    settings: SampleOptions,
  ) {
    const schedule = ddim(bundle.scheduler, settings.steps);
    const n = noise.dims[0];
    const wanted = settings.capture ?? [];
    const total = n * schedule.timesteps.length;
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
      const start = rows(noise, begin, batch);
      const latents = yield* loop(session, schedule, fixed, start, options.blend !== undefined, {
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

/** Runs the steps of one batch. */
const loop = Effect.fnUntraced(function* <E, R>(
  session: Session,
  schedule: Schedule,
  fixed: Record<string, Tensor>,
  start: Tensor,
  blended: boolean,
  { before, after }: LoopHooks<E, R>,
) {
  const names = blended ? ["latents", "clean_latents"] : ["latents"];
  const carried: Record<string, Carried> = Object.fromEntries(names.map((name) => [name, start]));
  for (const [index, timestep] of schedule.timesteps.entries()) {
    yield* before(index, carried.latents);
    const feeds = {
      ...fixed,
      ...carried,
      timestep: scalar(timestep, [1]),
      keep: scalar(schedule.coefficients[index].x),
      step: scalar(schedule.coefficients[index].noise),
    };
    const last = index === schedule.timesteps.length - 1;
    const out = yield* session.run(feeds, { keep: last ? [] : names.map((name) => `next_${name}`) });
    for (const name of names) {
      const old = carried[name];
      if (isDevice(old)) old.dispose();
      carried[name] = out[`next_${name}`];
    }
    yield* after();
  }
  return yield* float32(carried.latents);
});

interface StepShape {
  readonly batch: number;
  readonly channels: number;
  readonly height: number;
  readonly width: number;
  readonly length: number;
  readonly blend: boolean;
  readonly weightsAsInputs: ((key: string) => boolean) | undefined;
  readonly sizes: Tensor | undefined;
}

/** next = keep · x + step · (ε_u + s (ε_c − ε_u)); with blend, next + M ⊙ (next_clean − next). */
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
  const predict = unetCondition(config);

  const advance = (x: Value, texts: readonly (typeof context)[]): Value => {
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
    return add(mul(keep, x), mul(step, guided));
  };

  if (!s.blend) {
    g.output("next_latents", advance(latents, [context]));
    return g;
  }
  const clean = g.input("clean_latents", "float32", dims);
  const mask = g.input("mask", "float32", [1, 1, s.height, s.width]);
  const both = advance(concat([latents, clean], 0), [context, text("clean_context", "clean_pooled", s.batch)]);
  const [poisoned, pure] = [slice(both, 0, 0, s.batch), slice(both, 0, s.batch, 2 * s.batch)];
  g.output("next_latents", add(poisoned, mul(mask, sub(pure, poisoned))));
  g.output("next_clean_latents", pure);
  return g;
};
