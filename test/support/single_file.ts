/** Small Stable Diffusion models in both forms: a diffusers folder, and one file in the layout of the original code. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { Effect } from "effect";
import type { Rule } from "../../src/diffusion/single_file/names.ts";
import { unetRules } from "../../src/diffusion/single_file/unet.ts";
import { vaeRules } from "../../src/diffusion/single_file/vae.ts";
import { type Padding, stockSettings, stockVocabulary } from "../../src/diffusion/stock_tokenizer.ts";
import { randomModelFiles, randomWeights } from "../../src/testing/tiny_model.ts";
import { write } from "../../src/tensor/safetensors.ts";
import { type Tensor, tensor, type TensorData } from "../../src/tensor/tensor.ts";
import { put } from "./bundles.ts";
import { tensorsOf } from "./forms.ts";

export type Kind = "sd-1.5" | "sd-2.1" | "sdxl-1.0";

export type PartOf = "unet" | "text_encoder" | "text_encoder_2" | "vae";
export const partsOf = (kind: Kind): readonly PartOf[] =>
  kind === "sdxl-1.0" ? ["unet", "text_encoder", "text_encoder_2", "vae"] : ["unet", "text_encoder", "vae"];

/** Names of the file's tensors with the network's, as diffusers' conversion has them (test/golden/make_single_file.py). */
export interface Names {
  readonly names: Readonly<Record<string, string | readonly string[]>>;
  readonly shapes: Readonly<Record<string, readonly number[]>>;
  readonly unused: readonly string[];
}

const listed = (list: string): Names & { readonly stems?: Readonly<Record<string, string>> } =>
  JSON.parse(readFileSync(new URL(`../golden/single_file/${list}.json`, import.meta.url), "utf8"));

/** Names of a part's tensors. @param network by these names the network has them, where only their stems are listed */
export const goldenNames = (kind: Kind, part: PartOf, network: readonly string[]): Names => {
  const xl = kind === "sdxl-1.0";
  if (part === "text_encoder") {
    const found = listed(kind === "sd-2.1" ? "open_clip" : "clip");
    if (!xl) return found;
    const names = Object.entries(found.names).map(([key, name]) =>
      [key.replace("cond_stage_model.", "conditioner.embedders.0."), name] as const
    );
    return { ...found, names: Object.fromEntries(names) };
  }
  if (part === "text_encoder_2") return listed("open_clip_g");
  if (part === "vae" || !xl) return listed(part);
  const { names, stems = {}, ...rest } = listed("unet_xl");
  const inside = Object.entries(stems).flatMap(([from, to]) =>
    network.filter((key) => key.startsWith(to)).map((key) => [from + key.slice(to.length), key] as const)
  );
  return { ...rest, names: { ...names, ...Object.fromEntries(inside) } };
};

/** Three levels, as SDXL has them: none, some and more transformer layers. The projection is no square; by the widths diffusers tells the encoders. */
const smallXl = () => {
  const { vae } = smallConfigs("sd-2.1");
  const text = (heads: number) => ({
    model_type: "clip_text_model",
    hidden_size: 64 * heads,
    intermediate_size: 128,
    num_attention_heads: heads,
    num_hidden_layers: 2,
    max_position_embeddings: 77,
    vocab_size: 49408,
  });
  return {
    unet: {
      _class_name: "UNet2DConditionModel",
      sample_size: 8,
      in_channels: 4,
      out_channels: 4,
      block_out_channels: [64, 64, 64],
      down_block_types: ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
      up_block_types: ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
      layers_per_block: 2,
      transformer_layers_per_block: [1, 1, 2],
      attention_head_dim: [1, 1, 1],
      cross_attention_dim: 192,
      norm_num_groups: 32,
      use_linear_projection: true,
      addition_embed_type: "text_time",
      addition_time_embed_dim: 256,
      projection_class_embeddings_input_dim: 96 + 6 * 256,
    },
    text_encoder: { architectures: ["CLIPTextModel"], ...text(1), hidden_act: "quick_gelu" },
    text_encoder_2: {
      architectures: ["CLIPTextModelWithProjection"],
      ...text(2),
      hidden_act: "gelu",
      projection_dim: 96,
    },
    vae: { ...vae, scaling_factor: 0.13025 },
  };
};

/** Four levels of two blocks, as the real ones have, so that every name is that of the real one. */
export const smallConfigs = (kind: Exclude<Kind, "sdxl-1.0">) => {
  const width = kind === "sd-1.5" ? 32 : 64;
  const channels = [width, width, width, width];
  return {
    unet: {
      _class_name: "UNet2DConditionModel",
      sample_size: 8,
      in_channels: 4,
      out_channels: 4,
      block_out_channels: channels,
      down_block_types: ["CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"],
      up_block_types: ["UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"],
      layers_per_block: 2,
      attention_head_dim: kind === "sd-1.5" ? 8 : [1, 1, 1, 1],
      cross_attention_dim: 64,
      norm_num_groups: 32,
      ...(kind === "sd-1.5" ? {} : { use_linear_projection: true }),
    },
    text_encoder: {
      architectures: ["CLIPTextModel"],
      model_type: "clip_text_model",
      hidden_size: 64,
      intermediate_size: 128,
      num_hidden_layers: 2,
      num_attention_heads: 1,
      max_position_embeddings: 77,
      vocab_size: 49408,
      hidden_act: kind === "sd-1.5" ? "quick_gelu" : "gelu",
    },
    vae: {
      _class_name: "AutoencoderKL",
      block_out_channels: [32, 32, 32, 32],
      down_block_types: ["DownEncoderBlock2D", "DownEncoderBlock2D", "DownEncoderBlock2D", "DownEncoderBlock2D"],
      up_block_types: ["UpDecoderBlock2D", "UpDecoderBlock2D", "UpDecoderBlock2D", "UpDecoderBlock2D"],
      layers_per_block: 2,
      norm_num_groups: 32,
      latent_channels: 4,
    },
  };
};

/** Writes the model as a diffusers folder with random weights. */
export const smallFolder = async (folder: string, kind: Kind, seed = 1): Promise<string> => {
  const { vocab, merges } = await Effect.runPromise(stockVocabulary);
  const tokenizer = new Map([
    ["vocab.json", JSON.stringify(Object.fromEntries(vocab))],
    ["merges.txt", `#version: 0.2\n${merges.map((m) => m.join(" ")).join("\n")}\n`],
    ["tokenizer_config.json", tokenizerConfig(kind === "sd-2.1" ? "!" : "<|endoftext|>")],
  ]);
  const prediction = kind === "sd-2.1" ? "v_prediction" : "epsilon";
  const xl = kind === "sdxl-1.0" ? smallXl() : undefined;
  for (
    const [path, content] of randomModelFiles(kind === "sdxl-1.0" ? smallXl() : smallConfigs(kind), tokenizer, {
      seed,
      prediction,
    })
  ) {
    put(join(folder, path), path.startsWith("scheduler/") ? scheduler(String(content)) : content);
  }
  if (xl !== undefined) {
    const { text_encoder_2: config } = xl;
    put(join(folder, "text_encoder_2/config.json"), config);
    put(join(folder, "text_encoder_2/model.safetensors"), write(randomWeights("text_encoder_2", config, seed)));
    for (const [name, content] of tokenizer) put(join(folder, "tokenizer_2", name), content);
    put(join(folder, "tokenizer_2/tokenizer_config.json"), tokenizerConfig("!"));
    const index = JSON.parse(readFileSync(join(folder, "model_index.json"), "utf8"));
    put(join(folder, "model_index.json"), {
      ...index,
      _class_name: "StableDiffusionXLPipeline",
      text_encoder_2: ["transformers", "CLIPTextModelWithProjection"],
      tokenizer_2: ["transformers", "CLIPTokenizer"],
    });
  }
  return folder;
};

/** As transformers writes it: it tells objects that are tokens from others. */
const tokenizerConfig = (padding: Padding): string =>
  JSON.stringify(
    stockSettings(padding),
    (_, value) => value?.content === undefined ? value : { __type: "AddedToken", ...value },
  );

const scheduler = (json: string): string => JSON.stringify({ ...JSON.parse(json), set_alpha_to_one: false });

export const weightsOf = {
  unet: "diffusion_pytorch_model",
  text_encoder: "model",
  text_encoder_2: "model",
  vae: "diffusion_pytorch_model",
};

/** A matrix turned over, as OpenCLIP has its projection. */
const turned = ({ dims: [rows, columns], data }: Tensor): Tensor =>
  tensor(Float32Array.from(data, (_, i) => data[(i % rows) * columns + Math.floor(i / rows)]), [columns, rows]);

/** Tensors by the names that the original code gives them, of a folder's. */
export const originalTensors = (folder: string, kind: Kind): Map<string, Tensor> => {
  const out = new Map<string, Tensor>();
  for (const part of partsOf(kind)) {
    const all = new Map(
      [...tensorsOf(join(folder, part, `${weightsOf[part]}.safetensors`))].map(([key, t]) => [
        key.replace(/^text_model\./, ""),
        t,
      ]),
    );
    const { names, shapes } = goldenNames(kind, part, [...all.keys()]);
    for (const [key, to] of Object.entries(names)) {
      const found = [to].flat().map((name) => all.get(name)).filter((t) => t !== undefined);
      if (found.length === 0) continue;
      if (key.endsWith(".text_projection")) {
        out.set(key, turned(found[0]));
        continue;
      }
      const data = new Float32Array(found.reduce((n, t) => n + t.data.length, 0));
      let at = 0;
      for (const t of found) {
        data.set(t.data, at);
        at += t.data.length;
      }
      const [{ dims }] = found;
      // A convolution of 1×1 is a matrix in the network; matrices of queries, keys and values are one in the file.
      const shape = shapes[key]?.length === 4 ? [...dims, 1, 1] : [dims[0] * found.length, ...dims.slice(1)];
      out.set(key, tensor(data, shape));
    }
  }
  return out;
};

/** What training leaves in a file besides: a moving average, the noise schedule, position ids, the last layer of OpenCLIP. */
export const leftovers = (kind: Kind): Map<string, Tensor<TensorData>> => {
  const some = (n: number, value: number) => tensor(new Float32Array(n).fill(value), [n]);
  return new Map<string, Tensor<TensorData>>([
    ["alphas_cumprod", some(1000, 0.5)],
    ["model_ema.diffusion_modelinput_blocks00weight", some(9, NaN)],
    ["model_ema.decay", some(1, 0.9999)],
    ["betas", some(1000, 0.01)],
    ...(kind === "sdxl-1.0"
      ? [["conditioner.embedders.1.model.logit_scale", tensor(Float32Array.of(4.6), [])] as const]
      : kind === "sd-1.5"
      ? [
        [
          "cond_stage_model.transformer.text_model.embeddings.position_ids",
          tensor(BigInt64Array.from({ length: 77 }, (_, i) => BigInt(i)), [1, 77]),
        ] as const,
      ]
      : [
        ["cond_stage_model.model.transformer.resblocks.2.ln_1.weight", some(64, 1)] as const,
        ["cond_stage_model.model.text_projection", tensor(new Float32Array(64 * 64), [64, 64])] as const,
        ["cond_stage_model.model.logit_scale", tensor(Float32Array.of(4.6), [])] as const,
      ]),
  ]);
};

/** The bytes of a checkpoint in one file. `half`: norms stay in float32, all else becomes float16, so parts lie in pieces. */
export const checkpointBytes = (
  tensors: ReadonlyMap<string, Tensor<TensorData>>,
  options: { readonly metadata?: Record<string, string>; readonly half?: boolean } = {},
): Uint8Array =>
  write(
    new Map([...tensors].map(([key, t]) => [
      key,
      options.half && t.data instanceof Float32Array && !/norm|ln_|betas|model_ema/.test(key)
        ? { dims: t.dims, data: new Float16Array(t.data) }
        : t,
    ])),
    options.metadata ?? { "modelspec.resolution": "64x64" },
  );

/** The file's name of a network's tensor, by rules read backwards. */
export const originalName = (prefix: string, rules: readonly Rule[], name: string): string => {
  for (const { file, network } of rules) {
    if (name === network) return prefix + file;
    if (network.endsWith(".") && name.startsWith(network)) return prefix + file + name.slice(network.length);
  }
  throw new Error(`no rule speaks of ${name}`);
};

/** Any Stable Diffusion 1.x folder, whatever its levels, in one file; `unet` may lie elsewhere. */
export const anyFolderAsFile = (folder: string, unet = join(folder, "unet")): Uint8Array => {
  const config = JSON.parse(readFileSync(join(unet, "config.json"), "utf8"));
  const vae = JSON.parse(readFileSync(join(folder, "vae/config.json"), "utf8"));
  const has = (type: string) => type.startsWith("CrossAttn") ? 1 : 0;
  const layout = {
    layers: config.layers_per_block,
    transformers: config.down_block_types.map(has),
    channels: config.block_out_channels,
  };
  const from = (path: string, name: (key: string) => string) =>
    [...tensorsOf(path)].map(([key, t]) => [name(key), t] as const);
  const weights = `${weightsOf.unet}.safetensors`;
  const text = "cond_stage_model.transformer.text_model.";
  return checkpointBytes(
    new Map([
      ...from(join(unet, weights), (key) => originalName("model.diffusion_model.", unetRules(layout), key)),
      ...from(
        join(folder, "vae", weights),
        (key) =>
          originalName(
            "first_stage_model.",
            vaeRules({ layers: vae.layers_per_block, channels: vae.block_out_channels }),
            key,
          ),
      ),
      ...from(join(folder, "text_encoder/model.safetensors"), (key) => text + key.replace(/^text_model\./, "")),
    ]),
  );
};
