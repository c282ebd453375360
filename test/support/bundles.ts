/** Diffusers folders with networks of a few numbers, for tests that read and write folders and run no network. */
import { cpSync, mkdirSync, mkdtempSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { write } from "../../src/tensor/safetensors.ts";
import { type Tensor, tensor, type TensorData } from "../../src/tensor/tensor.ts";

export type Weights = Record<string, Tensor<TensorData>>;

const halves = (values: number[], dims: number[]): Tensor<Float16Array> => tensor(Float16Array.from(values), dims);

/** Weights of each part; half precision, as people's are. */
export const tinyWeights = {
  unet: { "conv_in.bias": halves([1, 2, 3], [3]), "mid.weight": halves([0.5, -0.5, 0.25, 4], [2, 2]) },
  text_encoder: { "text_model.final_layer_norm.bias": halves([1, 2], [2]) },
  vae: { "decoder.conv_in.bias": halves([7], [1]) },
} satisfies Record<string, Weights>;

export const configs = {
  unet: { _class_name: "UNet2DConditionModel", in_channels: 4, cross_attention_dim: 8 },
  text_encoder: { architectures: ["CLIPTextModel"], hidden_size: 8, max_position_embeddings: 32, vocab_size: 870 },
  vae: { _class_name: "AutoencoderKL", latent_channels: 4 },
};

/** A temporary folder; remove it after the tests. */
export const tempFolder = (): string => mkdtempSync(join(tmpdir(), "sau-test-"));

/** Writes a file and the folders above it; objects become JSON. */
export const put = (path: string, content: Uint8Array | string | object): string => {
  mkdirSync(dirname(path), { recursive: true });
  writeFileSync(path, typeof content === "string" || content instanceof Uint8Array ? content : JSON.stringify(content));
  return path;
};

export const weightsFile = (weights: Weights): Uint8Array => write(new Map(Object.entries(weights)), { format: "pt" });

/** A whole tiny model. `change` may rewrite the folder before it is used. */
export const tinyBundle = (temp: string, change: (folder: string) => void = () => {}): string => {
  const folder = mkdtempSync(join(temp, "model-"));
  put(join(folder, "model_index.json"), {
    _class_name: "StableDiffusionPipeline",
    unet: ["diffusers", "UNet2DConditionModel"],
    text_encoder: ["transformers", "CLIPTextModel"],
    vae: ["diffusers", "AutoencoderKL"],
    tokenizer: ["transformers", "CLIPTokenizer"],
    scheduler: ["diffusers", "DDIMScheduler"],
    safety_checker: [null, null],
  });
  for (const part of ["unet", "text_encoder", "vae"] as const) {
    put(join(folder, part, "config.json"), configs[part]);
    const name = part === "text_encoder" ? "model.safetensors" : "diffusion_pytorch_model.safetensors";
    put(join(folder, part, name), weightsFile(tinyWeights[part]));
  }
  put(join(folder, "scheduler", "scheduler_config.json"), { _class_name: "DDIMScheduler", clip_sample: false });
  cpSync(fileURLToPath(new URL("../golden/tokenizer", import.meta.url)), join(folder, "tokenizer"), {
    recursive: true,
  });
  change(folder);
  return folder;
};
