/** SD 1.5, SD 2.1, SD-Turbo and SDXL without their weights: the graphs read exactly the keys of their checkpoints, in those shapes. */
import { describe, it } from "node:test";
import assert from "node:assert/strict";
import { fileURLToPath } from "node:url";
import { Graph, type Value } from "../../src/graph/graph.ts";
import { autoencoderKl, parseAutoencoderKlConfig } from "../../src/models/autoencoder_kl.ts";
import {
  clipText,
  clipTextProjected,
  parseClipTextConfig,
  parseProjectedTextConfig,
} from "../../src/models/clip_text.ts";
import { parseUnetConfig, unetCondition } from "../../src/models/unet_2d_condition.ts";
import { readJson } from "../support/golden.ts";

const here = fileURLToPath(new URL("../golden/", import.meta.url));
const config = (name: string, part: string): unknown => readJson(`${here}configs/${name}/${part}/config.json`);

/** "key [dims]" of every tensor that the published checkpoint's class holds. */
const checkpoint = (name: string, part: string): string[] =>
  Object.entries(readJson(`${here}keys/${name}.${part}.json`) as Record<string, string[]>)
    .flatMap(([dims, keys]) => keys.map((key) => `${key} [${dims}]`))
    .sort();

const read = (graph: Graph): string[] => graph.weightsUsed().map(({ key, dims }) => `${key} [${dims}]`).sort();

const outputs = (graph: Graph, values: Readonly<Record<string, Value>>): void => {
  for (const [name, value] of Object.entries(values)) graph.output(name, value);
};

// Older checkpoint files hold one tensor more, embeddings.position_ids: 0, 1, 2, … as integers, which the classes of
// today no longer keep. No network reads it.
// Two layers in each of three blocks going down, one in the middle, three in each of three blocks going up.
const OF_SD = [0, 0, 1, 1, 2, 2, 3, 2, 2, 2, 1, 1, 1, 0, 0, 0];
// SDXL has none at the first resolution, two transformer layers in each attention of the second, ten of the third.
const OF_XL = [[1, 4], [2, 20], [2, 10], [2, 30], [1, 6]].flatMap(([level, n]) =>
  Array.from({ length: n }, () => level)
);

for (
  const { name, side, width, encoder, heads, grids, pooled } of [
    { name: "sd-1.5", side: 512, width: 768, encoder: 768, heads: [8, 8, 8, 8], grids: OF_SD, pooled: undefined },
    { name: "sd-2.1", side: 768, width: 1024, encoder: 1024, heads: [5, 10, 20, 20], grids: OF_SD, pooled: undefined },
    {
      name: "sd-turbo",
      side: 512,
      width: 1024,
      encoder: 1024,
      heads: [5, 10, 20, 20],
      grids: OF_SD,
      pooled: undefined,
    },
    { name: "sdxl-1.0", side: 1024, width: 2048, encoder: 768, heads: [5, 10, 20], grids: OF_XL, pooled: 1280 },
  ]
) {
  describe(`${name} at ${side} pixels`, () => {
    const cells = side / 8;

    it("U-Net: keys and shapes are the checkpoint's, noise and attention maps have the right shapes", () => {
      const graph = new Graph();
      const { noise, attention } = unetCondition(parseUnetConfig(config(name, "unet")))(graph.weights("unet"), {
        sample: graph.input("sample", "float32", [2, 4, cells, cells]),
        timestep: graph.input("timestep", "float32", [1]),
        context: graph.input("context", "float32", [2, 77, width]),
        ...(pooled === undefined ? {} : {
          added: {
            pooled: graph.input("pooled", "float32", [2, pooled]),
            sizes: graph.input("sizes", "float32", [1, 6]),
          },
        }),
      });
      outputs(graph, { noise });
      assert.deepEqual(read(graph), checkpoint(name, "unet"));
      assert.deepEqual(noise.dims, [2, 4, cells, cells]);
      assert.deepEqual(
        attention.map((a) => a.probabilities.dims),
        grids.map((level) => [2, heads[level], (cells / 2 ** level) ** 2, 77]),
      );
      const keys = new Set(graph.weightsUsed().map(({ key }) => key));
      for (const { name } of attention) assert.ok(keys.has(`${name}.to_k.weight`), name);
    });

    it("VAE: keys and shapes are the checkpoint's, latents are an eighth of the picture", () => {
      const graph = new Graph();
      const { encode, decode } = autoencoderKl(parseAutoencoderKlConfig(config(name, "vae")));
      const weights = graph.weights("vae");
      const { mean, logvar } = encode(weights, graph.input("pixels", "float32", [1, 3, side, side]));
      const pixels = decode(weights, graph.input("latents", "float32", [1, 4, cells, cells]));
      outputs(graph, { mean, logvar, decoded: pixels });
      assert.deepEqual(read(graph), checkpoint(name, "vae"));
      assert.deepEqual([mean.dims, logvar.dims, pixels.dims], [
        [1, 4, cells, cells],
        [1, 4, cells, cells],
        [1, 3, side, side],
      ]);
    });

    it("text encoder: keys and shapes are the checkpoint's", () => {
      const graph = new Graph();
      const ids = graph.input("ids", "int32", [2, 77]);
      const { hidden } = clipText(parseClipTextConfig(config(name, "text_encoder")))(graph.weights("text_encoder"), {
        ids,
      });
      outputs(graph, { hidden });
      assert.deepEqual(read(graph), checkpoint(name, "text_encoder"));
      assert.deepEqual(hidden.dims, [2, 77, encoder]);
    });

    if (pooled === undefined) return;
    it("second text encoder: keys and shapes are the checkpoint's, with the projection", () => {
      const graph = new Graph();
      const { hidden, penultimate, pooled: text } = clipTextProjected(
        parseProjectedTextConfig(config(name, "text_encoder_2")),
      )(graph.weights("text_encoder_2"), {
        ids: graph.input("ids", "int32", [2, 77]),
        end: graph.input("end", "float32", [2, 77]),
      });
      outputs(graph, { hidden, text });
      assert.deepEqual(read(graph), checkpoint(name, "text_encoder_2"));
      assert.deepEqual([penultimate.dims, text.dims], [[2, 77, width - encoder], [2, pooled]]);
    });
  });
}
