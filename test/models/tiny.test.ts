/** Networks of a few thousand random weights answer as diffusers' and transformers' do: features that mini-SD lacks. */
import { describe, it } from "node:test";
import assert from "node:assert/strict";
import { fileURLToPath } from "node:url";
import { autoencoderKl, parseAutoencoderKlConfig } from "../../src/models/autoencoder_kl.ts";
import { clipImageFeatures, clipTextFeatures, parseClipConfig } from "../../src/models/clip.ts";
import {
  clipText,
  clipTextProjected,
  clipTextStates,
  endPosition,
  parseClipTextConfig,
  parseProjectedTextConfig,
} from "../../src/models/clip_text.ts";
import { parseUnetConfig, unetCondition } from "../../src/models/unet_2d_condition.ts";
import type { Tensor } from "../../src/tensor/tensor.ts";
import { assertClose, network, readJson, Stored } from "../support/golden.ts";
import { endOf } from "../support/clip.ts";

/** Bun gives a test five seconds where none are said. */
const patient = { timeout: 60_000 };

const folder = (name: string) => {
  const path = fileURLToPath(new URL(`../golden/tiny/${name}`, import.meta.url));
  return {
    config: readJson(`${path}/config.json`),
    weights: new Stored(`${path}/weights.safetensors`),
    golden: new Stored(`${path}/golden.safetensors`),
  };
};

const unets = {
  "unet-1x": "heads in attention_head_dim, convolutions as projections",
  "unet-xl": "SDXL's: pooled text and sizes, no attention at the first resolution, layers per block",
  "unet-2x": "heads and layers per block, linear projections, one-sided padding, another activation and time embedding",
};

describe("tiny U-Nets", () => {
  for (const [name, what] of Object.entries(unets)) {
    it(`${name}: ${what}; noise and every cross-attention are diffusers'`, patient, async () => {
      const { config, weights, golden } = folder(name);
      const names = ["sample", "timestep", "context", ...(golden.keys.includes("pooled") ? ["pooled", "sizes"] : [])];
      const inputs = Object.fromEntries(names.map((key) => [key, golden.floats(key)]));
      const unet = await network({ unet: weights }, (graph, read) => {
        const { noise, attention } = unetCondition(parseUnetConfig(config))(read("unet"), {
          sample: graph.input("sample", "float32", inputs.sample.dims),
          timestep: graph.input("timestep", "float32", inputs.timestep.dims),
          context: graph.input("context", "float32", inputs.context.dims),
          ...(inputs.pooled === undefined ? {} : {
            added: {
              pooled: graph.input("pooled", "float32", inputs.pooled.dims),
              sizes: graph.input("sizes", "float32", inputs.sizes.dims),
            },
          }),
        });
        return { noise, ...Object.fromEntries(attention.map((a) => [`attention.${a.name}`, a.probabilities])) };
      });
      const results = await unet.run(inputs);
      await unet.release();
      const answers = golden.keys.filter((key) => key === "noise" || key.startsWith("attention."));
      assert.deepEqual(Object.keys(results).sort(), answers.sort());
      for (const key of answers) assertClose(results[key], golden.floats(key), key);
    });
  }
});

describe("tiny autoencoders", () => {
  for (
    const [name, what] of [["vae-attention", "attention in the middle"], ["vae-bare", "no attention, no quant convs"]]
  ) {
    it(`${name}: ${what}; moments and pixels are diffusers'`, patient, async () => {
      const { config, weights, golden } = folder(name);
      const pixels = golden.floats("pixels");
      const vae = await network({ vae: weights }, (graph, read) => {
        const { encode, decode } = autoencoderKl(parseAutoencoderKlConfig(config));
        const { mean, logvar } = encode(read("vae"), graph.input("pixels", "float32", pixels.dims));
        return { mean, logvar, decoded: decode(read("vae"), mean) };
      });
      const results = await vae.run({ pixels });
      await vae.release();
      for (const key of ["mean", "logvar", "decoded"]) assertClose(results[key], golden.floats(key), key);
    });
  }
});

describe("tiny CLIP", () => {
  it(
    "text-gelu: exact GELU, an ε of its own, texts shorter than the table; hidden states are transformers'",
    patient,
    async () => {
      const { config, weights, golden } = folder("text-gelu");
      for (const prefix of ["", "short."]) {
        const ids = golden.ints(`${prefix}ids`);
        const text = await network(
          { text_encoder: weights },
          (graph, read) =>
            clipText(parseClipTextConfig(config))(read("text_encoder"), { ids: graph.input("ids", "int32", ids.dims) }),
        );
        const { hidden } = await text.run({ ids });
        await text.release();
        assertClose(hidden, golden.floats(`${prefix}hidden`), `${prefix}hidden`);
      }
    },
  );

  it("text-xl-1 and text-xl: SDXL's penultimate states and pooled text are transformers'", patient, async () => {
    const first = folder("text-xl-1"), second = folder("text-xl");
    const ids = first.golden.ints("ids"), [batch, length] = ids.dims;
    const bare = await network(
      { text_encoder: first.weights },
      (graph, read) => ({
        penultimate: clipTextStates(parseClipTextConfig(first.config))(read("text_encoder"), {
          ids: graph.input("ids", "int32", ids.dims),
        }).penultimate,
      }),
    );
    const { penultimate } = await bare.run({ ids });
    await bare.release();
    assertClose(penultimate, first.golden.floats("penultimate"), "penultimate");

    const config = parseProjectedTextConfig(second.config);
    const end: Tensor = { dims: ids.dims, data: new Float32Array(batch * length) };
    for (let b = 0; b < batch; b++) {
      end.data[b * length + endPosition(config, [...ids.data.subarray(b * length, (b + 1) * length)])] = 1;
    }
    const projected = await network({ text_encoder_2: second.weights }, (graph, read) => {
      const { penultimate, pooled } = clipTextProjected(config)(read("text_encoder_2"), {
        ids: graph.input("ids", "int32", ids.dims),
        end: graph.input("end", "float32", ids.dims),
      });
      return { penultimate, pooled };
    });
    const results = await projected.run({ ids, end });
    await projected.release();
    for (const key of ["penultimate", "pooled"]) assertClose(results[key], second.golden.floats(key), key);
  });

  it("clip: towers of different widths and activations; projected features are transformers'", patient, async () => {
    const { config, weights, golden } = folder("clip");
    const [ids, pixels] = [golden.ints("ids"), golden.floats("pixels")];
    const end = endOf(ids, 49);
    const clip = await network({ clip: weights }, (graph, read) => ({
      text: clipTextFeatures(parseClipConfig(config))(read("clip"), {
        ids: graph.input("ids", "int32", ids.dims),
        end: graph.input("end", "float32", end.dims),
      }),
      image: clipImageFeatures(parseClipConfig(config))(read("clip"), {
        pixels: graph.input("pixels", "float32", pixels.dims),
      }),
    }));
    const results = await clip.run({ ids, end, pixels });
    await clip.release();
    for (const key of ["text", "image"]) assertClose(results[key], golden.floats(key), key);
  });
});
