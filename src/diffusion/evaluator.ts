/**
 * The U-Net's answer to given latents, without a sampling loop: what locate and the search for a cure compare. All
 * readings of a prompt are asked about the same latents, so that only the text makes the difference.
 */
import { Effect } from "effect";
import { div, Graph, mul, reduceMean, reshape, slice, sub, transpose, type Value } from "../graph/mod.ts";
import { type AttentionTap, parseUnetConfig, unetCondition, type UnetConfig } from "../models/unet_2d_condition.ts";
import { slice0, type Tensor, zeros } from "../tensor/tensor.ts";
import { Runtime } from "../runtime/mod.ts";
import type { Bundle } from "./bundle.ts";
import { addedOf, pooledInput, sizesOf, textFeedsOf } from "./conditioning.ts";
import { eachEmbedding, type Embeddings } from "./embeddings.ts";
import { evenBatch, float32, inBatches, openSession, rows, scalar } from "./networks.ts";
import { batchFor, latentDims } from "./sampler.ts";

/** Largest side of the grid that attention maps are averaged to inside the graph, in cells. */
const MAP_SIDE = 8;

/** Cross-attention of one layer, heads averaged, for rows of readings. */
export interface LayerMaps {
  readonly layer: string;
  /** [n, side·side, L]: how much each cell listens to each token; rows sum to 1. */
  readonly maps: Tensor;
  /** [n, R]: squared distance of the layer's text contribution to that of reading 0, over the latter's square. */
  readonly response: Tensor;
}

export interface Captured {
  /** Predicted noise [n, R, C, h, w]. */
  readonly noise: Tensor;
  /** One entry a cross-attention layer, where asked for; maps are [n·R, side·side, L]. */
  readonly layers: readonly LayerMaps[];
}

/**
 * Opens an evaluator for prompts of `readings` readings each. The result maps latents [n, C, h, w] (one per prompt),
 * contexts [n, R, L, D] and a timestep to what the U-Net predicts for each reading.
 *
 * @param options.prompts how many prompts a call brings, where that is known: batches are then filled evenly.
 * @param options.attention also returns cross-attention, reduced in the graph.
 * @param options.weightsAsInputs picks weights that the caller passes with each call, by key.
 */
export const openEvaluator = Effect.fnUntraced(function* (
  bundle: Bundle,
  readings: number,
  options: {
    readonly prompts?: number;
    readonly attention?: boolean;
    readonly weightsAsInputs?: (key: string) => boolean;
  } = {},
) {
  const config = parseUnetConfig(bundle.parts.unet.config);
  const [channels, height, width] = latentDims(config);
  const most = Math.max(1, Math.floor((2 * batchFor(height, width)) / readings));
  const { lanes } = yield* Runtime;
  const prompts = options.prompts === undefined ? most : evenBatch(options.prompts, most, lanes);
  const length = bundle.tokenizer.maxLength;
  const { graph, layers } = evaluatorGraph(config, {
    prompts,
    readings,
    dims: [channels, height, width],
    length,
    attention: options.attention ?? false,
    weightsAsInputs: options.weightsAsInputs,
    sizes: sizesOf(bundle),
  });
  const session = yield* openSession("noise prediction", graph, bundle, "unet");

  return Effect.fnUntraced(function* (
    latents: Tensor,
    contexts: Embeddings,
    timestep: number,
    weights: Readonly<Record<string, Tensor>> = {},
  ) {
    const n = latents.dims[0];
    const noise = zeros([n, readings, channels, height, width]);
    const found = layers.map((layer) => ({
      layer: layer.name,
      maps: zeros([n * readings, layer.cells, length]),
      response: zeros([n, readings]),
    }));
    yield* inBatches(
      session,
      n,
      prompts,
      Effect.fnUntraced(function* (begin, real) {
        const out = yield* session.run({
          ...weights,
          latents: rows(latents, begin, prompts),
          ...textFeedsOf(config, { contexts: ["pooled", eachEmbedding(contexts, (t) => rows(t, begin, prompts))] }),
          timestep: scalar(timestep, [1]),
        });
        const copy = Effect.fnUntraced(function* (name: string, into: Tensor, perPrompt: number) {
          const part = slice0(yield* float32(out[name]), 0, real * perPrompt);
          into.data.set(part.data, begin * (into.data.length / n));
        });
        yield* copy("noise", noise, 1);
        for (const [i, f] of found.entries()) {
          yield* copy(`maps.${i}`, f.maps, readings);
          yield* copy(`response.${i}`, f.response, 1);
        }
      }),
    );
    return { noise, layers: found } satisfies Captured;
  });
});

interface EvaluatorShape {
  readonly prompts: number;
  readonly readings: number;
  readonly dims: readonly [number, number, number];
  readonly length: number;
  readonly attention: boolean;
  readonly weightsAsInputs?: (key: string) => boolean;
  readonly sizes: Tensor | undefined;
}

const evaluatorGraph = (config: UnetConfig, s: EvaluatorShape) => {
  const picks = s.weightsAsInputs;
  const g = new Graph(picks === undefined ? {} : { weightsAsInputs: (_, key) => picks(key) });
  const [channels, height, width] = s.dims;
  const count = s.prompts * s.readings;
  const latents = g.input("latents", "float32", [s.prompts, channels, height, width]);
  const contexts = g.input("contexts", "float32", [s.prompts, s.readings, s.length, config.cross_attention_dim]);
  const pooled = pooledInput(g, config, "pooled", [s.prompts, s.readings]);
  const { noise, attention } = unetCondition(config)(g.weights("unet"), {
    sample: reshape(repeatEach(latents, s.readings), [count, channels, height, width]),
    timestep: g.input("timestep", "float32", [1]),
    context: reshape(contexts, [count, s.length, config.cross_attention_dim]),
    ...addedOf(g, pooled && reshape(pooled, [count, pooled.dims[2]]), s.sizes),
  });
  g.output("noise", reshape(noise, [s.prompts, s.readings, channels, height, width]));
  const layers = (s.attention ? attention : []).map((tap, i) => {
    const maps = pooledMaps(tap);
    g.output(`maps.${i}`, maps);
    g.output(`response.${i}`, responseOf(tap, s.prompts, s.readings));
    return { name: tap.name, cells: maps.dims[1] };
  });
  return { graph: g, layers };
};

/** [n, …] → [n, times, …] with each row repeated: a product with ones, which every backend broadcasts. */
const repeatEach = (x: Value, times: number): Value => {
  const [n, ...rest] = x.dims;
  const ones = x.graph.constant({ dims: [1, times, ...rest.map(() => 1)], data: new Float32Array(times).fill(1) });
  return mul(reshape(x, [n, 1, ...rest]), ones);
};

/** Probabilities [B, heads, cells, L] → [B, side·side, L], heads and neighbouring cells averaged. */
const pooledMaps = ({ probabilities, grid: [height, width] }: AttentionTap): Value => {
  const [batch, heads, , length] = probabilities.dims;
  const [fy, fx] = [height, width].map((side) => side % MAP_SIDE === 0 ? side / MAP_SIDE : 1);
  const split = reshape(probabilities, [batch, heads, height / fy, fy, width / fx, fx, length]);
  // Two reductions of neighbouring axes each: reductions over many scattered axes are slow on every backend.
  const perHead = reduceMean(transpose(split, [0, 2, 4, 6, 1, 3, 5]), [4, 5, 6]);
  return reshape(perHead, [batch, (height / fy) * (width / fx), length]);
};

/** ‖c_r − c_0‖² / ‖c_0‖² of the layer's text contribution, for each reading r of each prompt: [n, R]. */
const responseOf = ({ contribution }: AttentionTap, prompts: number, readings: number): Value => {
  const [, cells, width] = contribution.dims;
  const c = reshape(contribution, [prompts, readings, cells * width]);
  const first = slice(c, 1, 0, 1);
  const apart = sub(c, first);
  const ratio = div(reduceMean(mul(apart, apart), [2]), reduceMean(mul(first, first), [2]));
  return reshape(ratio, [prompts, readings]);
};
