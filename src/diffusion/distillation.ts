/**
 * Distillation as graphs: a network with some of its weights trained answers its inputs, and is drawn towards answers that
 * were computed before. Which rows are to be unlearned and which to be kept is in their weights, so one graph serves both.
 */
import {
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
import { clipText, type ClipTextConfig } from "../models/clip_text.ts";
import { unetCondition, type UnetConfig } from "../models/unet_2d_condition.ts";

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
 */
export const textDistillation = (config: ClipTextConfig, { batch, length, trained, ...options }: Distillation) => {
  const graph = new Graph({ weightsAsInputs: (_, key) => trained(key) });
  const ids = graph.input("ids", "int32", [batch, length]);
  const { hidden } = clipText(config)(graph.weights("text_encoder"), { ids });
  const wanted = graph.input("wanted", "float32", hidden.dims);
  const weight = graph.input("weight", "float32", [batch, length, 1]);
  const state = trainingStep(graph, weightedSquares(hidden, wanted, weight), options);
  return { graph, state } satisfies DistillationGraph;
};

/**
 * A step that draws the U-Net's answers to texts, on given latents at given timesteps, towards wanted ones.
 *
 * Inputs beside trainingStep's: `latents` [B, C, h, w], `timestep` [B], `context` [B, L, D], `wanted` [B, C, h, w],
 * `weight` [B, 1, h, w].
 */
export const noiseDistillation = (
  config: UnetConfig,
  [height, width]: readonly [number, number],
  { batch, length, trained, ...options }: Distillation,
) => {
  const graph = new Graph({ weightsAsInputs: (_, key) => trained(key) });
  const dims = [batch, config.in_channels, height, width];
  const { noise } = unetCondition(config)(graph.weights("unet"), {
    sample: graph.input("latents", "float32", dims),
    timestep: graph.input("timestep", "float32", [batch]),
    context: graph.input("context", "float32", [batch, length, config.cross_attention_dim]),
  });
  const wanted = graph.input("wanted", "float32", noise.dims);
  const weight = graph.input("weight", "float32", [batch, 1, height, width]);
  const state = trainingStep(graph, weightedSquares(noise, wanted, weight), options);
  return { graph, state } satisfies DistillationGraph;
};
