/** Configs of strangers: what the graphs would build wrong is refused, with the key that asks for it. */
import { describe, it } from "node:test";
import assert from "node:assert/strict";
import { fileURLToPath } from "node:url";
import { Graph } from "../../src/graph/graph.ts";
import { parseAutoencoderKlConfig } from "../../src/models/autoencoder_kl.ts";
import { clipText, parseClipTextConfig } from "../../src/models/clip_text.ts";
import { parseClipVisionConfig } from "../../src/models/clip_vision.ts";
import { ConfigError } from "../../src/models/config.ts";
import { parseUnetConfig, unetCondition } from "../../src/models/unet_2d_condition.ts";
import { readJson } from "../support/golden.ts";

const here = fileURLToPath(new URL("../golden/configs/sd-1.5/", import.meta.url));
const published = (part: string) => readJson(`${here}${part}/config.json`) as Record<string, unknown>;

const refuses = (key: string, make: () => unknown) =>
  assert.throws(make, (error) => {
    assert.ok(error instanceof ConfigError, String(error));
    assert.equal(error.key, key);
    assert.ok(error.message.startsWith(`config.json, "${key}": `), error.message);
    return true;
  });

describe("U-Net configs", () => {
  const changes: Record<string, readonly unknown[]> = {
    addition_embed_type: ["text", "image"],
    class_embed_type: ["timestep"],
    cross_attention_norm: ["layer_norm"],
    encoder_hid_dim_type: ["text_proj"],
    mid_block_type: ["UNetMidBlock2D"],
    only_cross_attention: [true, [true, false, false, false]],
    resnet_skip_time_act: [true],
    resnet_time_scale_shift: ["scale_shift"],
    reverse_transformer_layers_per_block: [[1, 1, 1, 1]],
    time_cond_proj_dim: [256],
    time_embedding_dim: [1280],
    time_embedding_type: ["fourier"],
    timestep_post_act: ["silu"],
    down_block_types: [["DownBlock2D"], ["A", "B", "C", "D"], "DownBlock2D", null],
    attention_head_dim: [7, [8, 8], "8"],
    block_out_channels: [[], [320.5], null, [320, -1, 1, 1], [1e9, 1, 1, 1]],
    norm_eps: ["1e-5", Infinity],
  };
  for (const [key, values] of Object.entries(changes)) {
    it(`${key}: what cannot be built is refused`, () => {
      for (const value of values) refuses(key, () => parseUnetConfig({ ...published("unet"), [key]: value }));
    });
  }

  it("SDXL's sizes: an embedding too narrow for them, a network that is not given them are refused", () => {
    const xl = { ...published("unet"), addition_embed_type: "text_time", addition_time_embed_dim: 256 };
    refuses("projection_class_embeddings_input_dim", () => parseUnetConfig(xl));
    refuses(
      "projection_class_embeddings_input_dim",
      () => parseUnetConfig({ ...xl, projection_class_embeddings_input_dim: 1536 }),
    );
    const g = new Graph(), config = parseUnetConfig({ ...xl, projection_class_embeddings_input_dim: 2816 });
    assert.deepEqual(config.addition, { pooled: 1280, width: 256 });
    refuses("addition_embed_type", () =>
      unetCondition(config)(g.weights("unet"), {
        sample: g.input("sample", "float32", [1, 4, 8, 8]),
        timestep: g.input("timestep", "float32", [1]),
        context: g.input("context", "float32", [1, 77, 768]),
      }));
  });

  it("latents that do not halve evenly are refused", () => {
    const g = new Graph();
    refuses("sample_size", () =>
      unetCondition(parseUnetConfig(published("unet")))(g.weights("unet"), {
        sample: g.input("sample", "float32", [1, 4, 12, 8]),
        timestep: g.input("timestep", "float32", [1]),
        context: g.input("context", "float32", [1, 77, 768]),
      }));
  });

  it("something else than an object is refused", () => {
    for (const json of [null, [], "unet", 1]) assert.throws(() => parseUnetConfig(json), ConfigError);
  });
});

describe("other configs", () => {
  it("autoencoder blocks of another kind are refused", () => {
    const types = ["AttnDownEncoderBlock2D", "DownEncoderBlock2D", "DownEncoderBlock2D", "DownEncoderBlock2D"];
    refuses("down_block_types", () => parseAutoencoderKlConfig({ ...published("vae"), down_block_types: types }));
  });

  it("latents normalised channel by channel are refused", () => {
    refuses("latents_mean", () => parseAutoencoderKlConfig({ ...published("vae"), latents_mean: [0, 0, 0, 0] }));
  });

  it("heads that do not divide the width, patches that do not divide the picture are refused", () => {
    refuses("num_attention_heads", () => parseClipTextConfig({ ...published("text_encoder"), num_attention_heads: 7 }));
    refuses("patch_size", () => parseClipVisionConfig({ image_size: 224, patch_size: 15 }));
  });

  it("a text longer than the table of positions is refused", () => {
    const g = new Graph();
    refuses(
      "max_position_embeddings",
      () =>
        clipText(parseClipTextConfig(published("text_encoder")))(g.weights("t"), {
          ids: g.input("ids", "int32", [1, 78]),
        }),
    );
  });
});
