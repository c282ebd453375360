/**
 * Distillation as graphs: a network with some of its weights trained answers its inputs, and is drawn towards answers that
 * were computed before. Which rows are to be unlearned and which to be kept is in their weights, so one graph serves both.
 */
import {
  add,
  Graph,
  mul,
  reduceSum,
  reshape,
  type StateTensor,
  sub,
  type TrainingOptions,
  trainingStep,
  type Value,
} from "../graph/mod.ts";
import {
  clipText,
  type ClipTextConfig,
  clipTextProjected,
  clipTextStates,
  type ProjectedTextConfig,
} from "../models/clip_text.ts";
import { unetCondition, type UnetConfig } from "../models/unet_2d_condition.ts";
import type { Tensor } from "../tensor/tensor.ts";
import { addedOf, pooledInput } from "./conditioning.ts";
import { factorInputs, type LowRank, lowRankReader } from "./low_rank.ts";

/** What a training step's graph is made of besides the network. */
export interface Distillation extends Omit<TrainingOptions, "weights"> {
  /** Rows in a step. */
  readonly batch: number;
  /** Tokens in a row. */
  readonly length: number;
  /** Which of the part's weights are trained, by key. */
  readonly trained: (key: string) => boolean;
}

export interface DistillationGraph {
  readonly graph: Graph;
  readonly state: readonly StateTensor[];
}

/** Σ weight ⊙ (answer − wanted)², a scalar; `weight` broadcasts, and holds whatever the sum is to be divided by. */
export const weightedSquares = (answer: Value, wanted: Value, weight: Value): Value => {
  const apart = sub(answer, wanted);
  return reshape(reduceSum(mul(weight, mul(apart, apart)), [...answer.dims.keys()]), []);
};

/**
 * A step that draws embeddings of texts towards wanted ones.
 *
 * Inputs beside trainingStep's: `ids` int32 [B, L], `wanted` [B, L, D], `weight` [B, L, 1].
 *
 * @param states which hidden states are the embeddings: SDXL takes the penultimate ones, on which the last layer and the
 *   final norm have no say; these cannot be `trained` then.
 */
export const textDistillation = (
  config: ClipTextConfig,
  { batch, length, trained, ...options }: Distillation,
  states: "hidden" | "penultimate" = "hidden",
) => {
  const unused = states === "hidden" ? [] : [`encoder.layers.${config.num_hidden_layers - 1}.`, "final_layer_norm."];
  const graph = new Graph({ weightsAsInputs: (_, key) => trained(key) && !unused.some((u) => key.startsWith(u)) });
  const ids = graph.input("ids", "int32", [batch, length]);
  const read = graph.weights("text_encoder");
  const hidden = states === "hidden"
    ? clipText(config)(read, { ids }).hidden
    : clipTextStates(config)(read, { ids }).penultimate;
  const wanted = graph.input("wanted", "float32", hidden.dims);
  const weight = graph.input("weight", "float32", [batch, length, 1]);
  const state = trainingStep(graph, weightedSquares(hidden, wanted, weight), options);
  return { graph, state } satisfies DistillationGraph;
};

/**
 * The same of SDXL's second text encoder, whose penultimate states and pooled texts both condition the U-Net.
 *
 * Inputs beside textDistillation's: `end` [B, L], one-hot where each text is pooled; `wanted_pooled` [B, Q] and
 * `pooled_weight` [B, 1].
 */
export const projectedDistillation = (
  config: ProjectedTextConfig,
  { batch, length, trained, ...options }: Distillation,
) => {
  const graph = new Graph({ weightsAsInputs: (_, key) => trained(key) });
  const { penultimate, pooled } = clipTextProjected(config)(graph.weights("text_encoder_2"), {
    ids: graph.input("ids", "int32", [batch, length]),
    end: graph.input("end", "float32", [batch, length]),
  });
  const towards = (name: string, answer: Value, weightName: string, weightDims: readonly number[]) =>
    weightedSquares(
      answer,
      graph.input(name, "float32", answer.dims),
      graph.input(weightName, "float32", weightDims),
    );
  const loss = add(
    towards("wanted", penultimate, "weight", [batch, length, 1]),
    towards("wanted_pooled", pooled, "pooled_weight", [batch, 1]),
  );
  const state = trainingStep(graph, loss, options);
  return { graph, state } satisfies DistillationGraph;
};

/**
 * A step that draws the U-Net's answers to texts, on given latents at given timesteps, towards wanted ones.
 *
 * Inputs beside trainingStep's: `latents` [B, C, h, w], `timestep` [B], `context` [B, L, D], `wanted` [B, C, h, w],
 * `weight` [B, 1, h, w]; `pooled` [B, Q] where the U-Net takes pooled texts.
 *
 * @param sizes of SDXL alone: see sizesOf
 * @param rank trains changes of that rank instead of the weights (low_rank.ts); what is `trained` and has no matrix stays
 */
export const noiseDistillation = (
  config: UnetConfig,
  [height, width]: readonly [number, number],
  { batch, length, trained, sizes, rank, ...options }: Distillation & {
    readonly sizes?: Tensor | undefined;
    readonly rank?: number | undefined;
  },
) => {
  const graph = new Graph({ weightsAsInputs: (_, key) => rank === undefined && trained(key) });
  const { read, factors } = rank === undefined
    ? { read: graph.weights("unet"), factors: new Map() satisfies LowRank }
    : lowRankReader(graph, "unet", rank, trained);
  const dims = [batch, config.in_channels, height, width];
  const { noise } = unetCondition(config)(read, {
    sample: graph.input("latents", "float32", dims),
    timestep: graph.input("timestep", "float32", [batch]),
    context: graph.input("context", "float32", [batch, length, config.cross_attention_dim]),
    ...addedOf(graph, pooledInput(graph, config, "pooled", [batch]), sizes),
  });
  const wanted = graph.input("wanted", "float32", noise.dims);
  const weight = graph.input("weight", "float32", [batch, 1, height, width]);
  const weights = rank === undefined ? {} : { weights: factorInputs(factors) };
  const state = trainingStep(graph, weightedSquares(noise, wanted, weight), { ...options, ...weights });
  return { graph, state, factors } satisfies DistillationGraph & { readonly factors: LowRank };
};
