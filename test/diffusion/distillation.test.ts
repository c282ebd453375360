/** The steps' losses against a direct computation, and their gradients against differences. */
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { noiseDistillation, textDistillation } from "../../src/diffusion/distillation.ts";
import { parseClipTextConfig } from "../../src/models/clip_text.ts";
import { Graph } from "../../src/graph/mod.ts";
import { clipText } from "../../src/models/clip_text.ts";
import { parseUnetConfig, unetCondition } from "../../src/models/unet_2d_condition.ts";
import { normal } from "../../src/tensor/random.ts";
import type { Tensor, TensorData } from "../../src/tensor/tensor.ts";
import { zeros } from "../../src/tensor/tensor.ts";
import { evaluate } from "../support/evaluate.ts";
import { randomWeights } from "../../src/testing/tiny_model.ts";
import { randomConfigs } from "../support/random_model.ts";

type Feeds = Record<string, Tensor<TensorData>>;

/** Weights of a network, as inputs of a graph that takes all of them so. */
const inputsOf = (part: "unet" | "text_encoder", config: unknown): Feeds =>
  Object.fromEntries([...randomWeights(part, config, 5)].map(([key, value]) => [`${part}/${key}`, value]));

/** Σ weight (answer − wanted)², `weight` holding one number for each `span` elements of the answer. */
const direct = (answer: TensorData, wanted: Tensor, weightOf: (i: number) => number): number =>
  wanted.data.reduce((sum, w, i) => sum + weightOf(i) * (Number(answer[i]) - w) ** 2, 0);

const close = (have: number, want: number, within: number) =>
  assert.ok(Math.abs(have - want) <= within * Math.abs(want), `${have}, wanted ${want}`);

const fed = (graph: Graph, feeds: Feeds): Feeds =>
  Object.fromEntries(graph.inputs.map((v) => {
    const name = v.source.kind === "input" ? v.source.name : "";
    return [name, feeds[name] ?? zeros(v.dims)];
  }));

const one = (x: number): Tensor => ({ dims: [], data: Float32Array.of(x) });

/**
 * The loss against the forward pass's answer, and how much a tiny first step lowers it: by rate × Σ |gradient|, since
 * AdamW's first step has the sign of the gradient; the gradient itself comes from differences of the loss.
 */
const checkStep = async (
  { graph }: { graph: Graph },
  feeds: Feeds,
  answer: TensorData,
  weightOf: (i: number) => number,
  key: string,
) => {
  const loss = async (given: Feeds) =>
    (await evaluate(graph, fed(graph, { ...given, step: one(1), rate: one(1e-4) })))[
      "loss"
    ].data[0];
  const wanted = feeds.wanted as Tensor;
  close(Number(await loss(feeds)), direct(answer, wanted, weightOf), 1e-4);

  // The moment after the first step is (1 − β₁) times the gradient; a large weight's is its own.
  const out = await evaluate(graph, fed(graph, { ...feeds, step: one(1), rate: one(1e-4) }));
  const gradient = Float64Array.from(out[`next/first/${key}`].data as Float32Array, (m) => m / 0.1);
  const at = gradient.reduce((best, g, i) => Math.abs(g) > Math.abs(gradient[best]) ? i : best, 0);
  const nudged = (by: number): Feeds => {
    const weight = feeds[key] as Tensor;
    const data = weight.data.slice();
    data[at] += by;
    return { ...feeds, [key]: { dims: weight.dims, data } };
  };
  const h = 1e-2;
  const slope = (Number(await loss(nudged(h))) - Number(await loss(nudged(-h)))) / (2 * h);
  close(gradient[at], slope, 2e-2);
};

/** Bun stops a test after five seconds. */
const PATIENT = { timeout: 120_000 };

describe("distillation", () => {
  it(
    "of the text encoder: the loss is the weighted squared distance, its gradient that of the loss",
    PATIENT,
    async () => {
      const config = parseClipTextConfig(randomConfigs.text_encoder);
      const [batch, length, width] = [3, 6, 32];
      const weights = inputsOf("text_encoder", randomConfigs.text_encoder);
      const ids = { dims: [batch, length], data: Int32Array.from({ length: batch * length }, (_, i) => (7 * i) % 800) };
      const forward = new Graph({ weightsAsInputs: () => true });
      const { hidden } = clipText(config)(forward.weights("text_encoder"), {
        ids: forward.input("ids", "int32", [batch, length]),
      });
      forward.output("hidden", hidden);
      const answer = (await evaluate(forward, fed(forward, { ...weights, ids }))).hidden.data;
      const weight = {
        dims: [batch, length, 1],
        data: Float32Array.from({ length: batch * length }, (_, i) => i / 100),
      };
      const feeds = { ...weights, ids, wanted: normal(1, [batch, length, width]), weight };
      const step = textDistillation(config, { batch, length, trained: () => true });
      const key = "text_encoder/embeddings.token_embedding.weight";
      await checkStep(step, feeds, answer, (i) => weight.data[Math.floor(i / width)], key);
    },
  );

  it("of the U-Net: the same, cell by cell, each row at a timestep of its own", PATIENT, async () => {
    const config = parseUnetConfig(randomConfigs.unet);
    const [batch, length] = [2, 5];
    const weights = inputsOf("unet", randomConfigs.unet);
    const data: Feeds = {
      latents: normal(1, [batch, 4, 8, 8]),
      timestep: { dims: [batch], data: Float32Array.of(20, 700) },
      context: normal(2, [batch, length, 32]),
    };
    const forward = new Graph({ weightsAsInputs: () => true });
    const { noise } = unetCondition(config)(forward.weights("unet"), {
      sample: forward.input("latents", "float32", [batch, 4, 8, 8]),
      timestep: forward.input("timestep", "float32", [batch]),
      context: forward.input("context", "float32", [batch, length, 32]),
    });
    forward.output("noise", noise);
    const answer = (await evaluate(forward, fed(forward, { ...weights, ...data }))).noise.data;
    const weight = { dims: [batch, 1, 8, 8], data: Float32Array.from({ length: batch * 64 }, (_, i) => (i % 7) / 500) };
    const feeds = { ...weights, ...data, wanted: normal(3, [batch, 4, 8, 8]), weight };
    const step = noiseDistillation(config, [8, 8], { batch, length, trained: () => true });
    const key = "unet/up_blocks.0.resnets.0.conv1.weight";
    await checkStep(step, feeds, answer, (i) => weight.data[Math.floor(i / 256) * 64 + (i % 64)], key);
  });
});
