/**
 * How far every layer of the U-Net moves when a prompt is read another way: the neuron activation variation that NaviT2I
 * compares. The differences are summed up inside the graph, so that no activation leaves the device.
 */
import { Effect } from "effect";
import { abs, add, expand, Graph, reduceMean, reshape, slice, sub, type Value } from "../graph/mod.ts";
import { parseUnetConfig, unetCondition } from "../models/unet_2d_condition.ts";
import type { Tensor } from "../tensor/tensor.ts";
import type { Bundle } from "./bundle.ts";
import { float32, openSession, scalar } from "./networks.ts";
import { latentDims } from "./sampler.ts";

/** Whether a value is the output of a layer with weights of its own: a convolution or a linear layer, before its bias. */
const isLayer = ({ source }: Value): boolean => {
  if (source.kind !== "node" || !["Conv", "MatMul"].includes(source.op.type)) return false;
  const weight = source.inputs[1].source;
  return weight.kind === "weight" ||
    (weight.kind === "node" && weight.op.type === "Transpose" && weight.inputs[0].source.kind === "weight");
};

/**
 * Opens the U-Net for groups of `rows` readings of one prompt, reading 0 the whole one. The result maps latents
 * [1, C, h, w], contexts [rows, L, D] and a timestep to Σ over layers of the mean |A_r − A_0|, [rows].
 */
export const openActivations = Effect.fnUntraced(function* (bundle: Bundle, rows: number) {
  const config = parseUnetConfig(bundle.parts.unet.config);
  const dims = latentDims(config);
  const length = bundle.tokenizer.maxLength;
  const g = new Graph();
  const latents = g.input("latents", "float32", [1, ...dims]);
  const contexts = g.input("contexts", "float32", [rows, length, config.cross_attention_dim]);
  const { noise } = unetCondition(config)(g.weights("unet"), {
    sample: expand(latents, [rows, ...dims]),
    timestep: g.input("timestep", "float32", [1]),
    context: contexts,
  });
  const moved = g.reachable([noise]).filter((v) => v.dims[0] === rows && isLayer(v)).map((layer) => {
    const flat = reshape(layer, [rows, layer.dims.slice(1).reduce((a, b) => a * b, 1)]);
    return reduceMean(abs(sub(flat, slice(flat, 0, 0, 1))), [1]);
  });
  g.output("variation", moved.map((m) => reshape(m, [rows])).reduce(add));
  const session = yield* openSession("layer activations", g, bundle, "unet");

  return Effect.fnUntraced(function* (at: Tensor, texts: Tensor, timestep: number) {
    const out = yield* session.run({ latents: at, contexts: texts, timestep: scalar(timestep, [1]) });
    return yield* float32(out.variation);
  });
});
