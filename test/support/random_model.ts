/**
 * A whole Stable Diffusion folder of random weights, small enough to sample in a second: real networks, a real tokenizer,
 * nothing learned. Its tokenizer is one that transformers wrote; `sau/testing` makes smaller models, with one of their own.
 */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { randomModelFiles } from "../../src/testing/tiny_model.ts";
import { put } from "./bundles.ts";

const tokenizer = fileURLToPath(new URL("../golden/tokenizer/", import.meta.url));

export const randomConfigs = {
  unet: {
    _class_name: "UNet2DConditionModel",
    sample_size: 8,
    in_channels: 4,
    out_channels: 4,
    block_out_channels: [16, 32],
    down_block_types: ["CrossAttnDownBlock2D", "DownBlock2D"],
    up_block_types: ["UpBlock2D", "CrossAttnUpBlock2D"],
    layers_per_block: 1,
    attention_head_dim: 2,
    cross_attention_dim: 32,
    norm_num_groups: 8,
  },
  text_encoder: {
    architectures: ["CLIPTextModel"],
    hidden_size: 32,
    intermediate_size: 64,
    num_hidden_layers: 2,
    num_attention_heads: 2,
    max_position_embeddings: 32,
    vocab_size: 870,
  },
  vae: {
    _class_name: "AutoencoderKL",
    block_out_channels: [8, 16],
    down_block_types: ["DownEncoderBlock2D", "DownEncoderBlock2D"],
    up_block_types: ["UpDecoderBlock2D", "UpDecoderBlock2D"],
    layers_per_block: 1,
    norm_num_groups: 4,
    latent_channels: 4,
    mid_block_add_attention: false,
  },
};

/** Writes the folder; returns its path. */
export const randomModel = (folder: string, seed = 1): string => {
  const files = ["tokenizer.json", "tokenizer_config.json"];
  const ofTokenizer = new Map(files.map((name) => [name, readFileSync(join(tokenizer, name))]));
  for (const [path, content] of randomModelFiles(randomConfigs, ofTokenizer, { seed })) {
    put(join(folder, path), content);
  }
  return folder;
};
