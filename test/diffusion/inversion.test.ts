/** The slope that texts are searched for along: against differences, through the U-Net and the text encoder. */
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { exchange, pullBack } from "../../src/diffusion/inversion.ts";
import { Graph } from "../../src/graph/mod.ts";
import { clipText, parseClipTextConfig } from "../../src/models/clip_text.ts";
import { parseUnetConfig, unetCondition } from "../../src/models/unet_2d_condition.ts";
import { commonOf, exchanges } from "../../src/steps/scan_invert.ts";
import { normal } from "../../src/tensor/random.ts";
import { concat0, type Tensor, type TensorData } from "../../src/tensor/tensor.ts";
import { randomWeights } from "../../src/testing/tiny_model.ts";
import { evaluator } from "../support/evaluate.ts";
import { randomConfigs } from "../support/random_model.ts";

type Feeds = Record<string, Tensor<TensorData>>;

const [N, L, D, COUNT] = [2, 8, 32, 2];
const weightsOf = (part: "unet" | "text_encoder"): Feeds =>
  Object.fromEntries([...randomWeights(part, randomConfigs[part], 5)].map(([key, t]) => [`${part}/${key}`, t]));
const asInputs = () => new Graph({ weightsAsInputs: () => true });
const given = (graph: Graph, feeds: Feeds): Feeds =>
  Object.fromEntries(graph.inputs.map(({ source }) => {
    const name = source.kind === "input" ? source.name : "";
    return [name, feeds[name]];
  }));

const close = (have: number, want: number) =>
  assert.ok(Math.abs(have - want) <= 2e-2 * Math.abs(want) + 1e-4, `${have}, wanted ${want}`);

describe("the slope of how far an answer moves", () => {
  it("is that of differences, for the context and for words exchanged", { timeout: 120_000 }, async () => {
    const [unet, text] = [weightsOf("unet"), weightsOf("text_encoder")];
    const config = parseClipTextConfig(randomConfigs.text_encoder);
    const unetConfig = parseUnetConfig(randomConfigs.unet);
    const latents = normal(1, [N, 4, 8, 8]);
    const timestep: Tensor = { dims: [1], data: Float32Array.of(900) };
    const plain = asInputs();
    const inputs = {
      sample: plain.input("latents", "float32", latents.dims),
      timestep: plain.input("timestep", "float32", [1]),
      context: plain.input("context", "float32", [N, L, D]),
    };
    plain.output("noise", unetCondition(unetConfig)(plain.weights("unet"), inputs).noise);
    const answer = await evaluator(plain);
    const answersTo = async (context: Tensor): Promise<Float32Array> =>
      (await answer.run(given(plain, { ...unet, latents, timestep, context }))).noise.data as Float32Array;
    // Answers to a text that is a little different, as those to a prompt as it is are.
    const clean = await answersTo(normal(3, [N, L, D]));
    /** How far both prompts' answers move alike, and its gradient by each answer. */
    const common = async (context: Tensor) => {
      const each = clean.length / N, moved = await answersTo(context), data = new Float32Array(4 * each);
      for (let p = 0; p < N; p++) {
        data.set(clean.subarray(p * each, (p + 1) * each), 2 * p * each);
        data.set(moved.subarray(p * each, (p + 1) * each), (2 * p + 1) * each);
      }
      return commonOf({ dims: [N, 2, 4, 8, 8], data })[0];
    };
    const movedAt = async (context: Tensor) => (await common(context)).moved;

    const encode = asInputs();
    const read = encode.input("ids", "int32", [N, L]);
    encode.output("hidden", clipText(config)(encode.weights("text_encoder"), { ids: read }).hidden);
    const encoder = await evaluator(encode);
    const words = [700, 701];
    // Before the one prompt, and behind the other.
    const ids = { dims: [N, L], data: Int32Array.from([0, ...words, 5, 6, 7, 8, 8, 0, 9, 10, ...words, 8, 8, 8]) };
    const begins = [1, 3];
    const chosen: Tensor = { dims: [N, COUNT, L], data: new Float32Array(N * COUNT * L) };
    begins.forEach((begin, p) => words.forEach((_, k) => chosen.data[(p * COUNT + k) * L + begin + k] = 1));
    const table = text["text_encoder/embeddings.token_embedding.weight"] as Tensor;
    const hiddenOf = async (embeddings: Tensor): Promise<Tensor> => {
      const feeds = { ...text, ids, "text_encoder/embeddings.token_embedding.weight": embeddings };
      const { hidden } = await encoder.run(given(encode, feeds));
      return { dims: hidden.dims, data: hidden.data as Float32Array };
    };

    const context = await hiddenOf(table), first = await common(context);
    const back = pullBack(asInputs(), unetConfig, [8, 8], N, L);
    const puller = await evaluator(back);
    const along = concat0(Array.from({ length: N }, () => first.along));
    const { towards } = await puller.run(given(back, { ...unet, latents, timestep, context, along }));
    const slope = towards.data as Float32Array, h = 1e-2;
    const most = slope.reduce((best, x, i) => Math.abs(x) > Math.abs(slope[best]) ? i : best, 0);
    const nudged = (by: number): Tensor => ({
      dims: context.dims,
      data: context.data.map((x, i) => i === most ? x + by : x),
    });
    close(slope[most], (await movedAt(nudged(h)) - await movedAt(nudged(-h))) / (2 * h));

    const swap = exchange(asInputs(), config, N, L, COUNT);
    const swapper = await evaluator(swap);
    const { gains } = await swapper.run(given(swap, { ...text, ids, towards, chosen }));
    assert.deepEqual(gains.dims, [COUNT, 870]);
    for (const [k, other] of [[0, 20], [1, 431]]) {
      // No other position holds these words, so that their row alone is the position's.
      const swapped = (by: number): Tensor => ({
        dims: table.dims,
        data: table.data.map((x, i) => {
          const [row, d] = [Math.floor(i / D), i % D];
          return row === words[k] ? x + by * (table.data[other * D + d] - x) : x;
        }),
      });
      const step = 2e-3;
      const difference =
        (await movedAt(await hiddenOf(swapped(step))) - await movedAt(await hiddenOf(swapped(-step)))) /
        (2 * step);
      close(Number(gains.data[k * 870 + other]) - Number(gains.data[k * 870 + words[k]]), difference);
    }
    for (const one of [answer, puller, encoder, swapper]) await one.release();
  });

  it("names the exchanges of one word that bring most, and none that takes away", () => {
    const gains: Tensor = { dims: [2, 4], data: Float32Array.of(0, 3, 1, 9, 4, 0, 7, 0) };
    // Words 0, 1 and 2 have the ids 1, 2 and 0.
    assert.deepEqual(exchanges(gains, [1, 2, 0], [1, 2], 9), [[1, 1], [0, 2]]);
    assert.deepEqual(exchanges(gains, [1, 2, 0], [1, 2], 1), [[1, 1]]);
  });
});
