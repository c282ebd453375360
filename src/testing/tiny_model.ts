/**
 * Whole Stable Diffusion folders of random weights, small enough for the reference kernels: real networks, a real
 * tokenizer, nothing learned. What holds of every model can be tried on them in a second.
 */
import { Effect, type Scope } from "effect";
import fc from "fast-check";
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { byteLetters, mergeWord, toByteLetters, WORD_END } from "../diffusion/bpe.ts";
import type { Bundle } from "../diffusion/bundle.ts";
import { openBundle } from "../diffusion/bundle_open.ts";
import type { BundleError } from "../diffusion/errors.ts";
import { wholeNetwork } from "../diffusion/whole_network.ts";
import type { PartName } from "../diffusion/part.ts";
import { defaultWords } from "../diffusion/words.ts";
import { Graph } from "../graph/graph.ts";
import { encode } from "../steps/encode.ts";
import type { TextPairs } from "../steps/ports.ts";
import { normal, seedOf } from "../tensor/random.ts";
import { write } from "../tensor/safetensors.ts";
import type { Tensor } from "../tensor/tensor.ts";
import { promptWords } from "./prompts.ts";

export interface TinyModelOptions {
  /** Of the weights (0 unless told). */
  readonly seed?: number;
  /** Height and width of the latents (4 unless told); pictures are twice as large. */
  readonly side?: 4 | 8;
  /** Channels of the U-Net's two levels ([8, 16] unless told; multiples of 4). */
  readonly channels?: readonly [number, number];
  /** Width of the text embeddings (16 unless told; a multiple of 2). */
  readonly width?: number;
  /** Tokens of a text, BOS and EOS included (16 unless told). */
  readonly length?: number;
  /** What the U-Net answers (`epsilon` unless told). */
  readonly prediction?: "epsilon" | "v_prediction";
  /** Words that are to be one token each, besides those of `promptArbitrary` and the built-in harmless words. */
  readonly words?: readonly string[];
}

/** A tokenizer in the layout of vocab.json and merges.txt in which each of the words is one token. */
export const tinyTokenizer = (words: readonly string[]): { readonly vocab: string; readonly merges: string } => {
  const ranks = new Map<string, number>();
  const tokens = new Set([...byteLetters, ...byteLetters.map((c) => c + WORD_END)]);
  for (const word of words) {
    const letters = toByteLetters(word.toLowerCase());
    letters.push(letters.pop() + WORD_END);
    // Pairs that come later rank lower, so that they never undo what is one token already.
    for (let parts = mergeWord(letters, ranks); parts.length > 1; parts = mergeWord(letters, ranks)) {
      ranks.set(`${parts[0]} ${parts[1]}`, ranks.size);
      tokens.add(parts[0] + parts[1]);
    }
  }
  for (const special of ["<|startoftext|>", "<|endoftext|>"]) tokens.add(special);
  return {
    vocab: JSON.stringify(Object.fromEntries([...tokens].map((token, id) => [token, id]))),
    merges: `#version: 0.2\n${[...ranks.keys()].join("\n")}\n`,
  };
};

/** Random weights of a network, by key, in the scale that keeps activations near unit size. */
export const randomWeights = (part: PartName, config: unknown, seed: number): Map<string, Tensor> => {
  const g = new Graph();
  wholeNetwork[part](g, config);
  return new Map(
    g.weightsUsed().map(({ key, dims }) => {
      const inner = dims.slice(1).reduce((n, d) => n * d, 1);
      const t = normal(seedOf(seed, part, key), dims);
      // Norm layers start at scale 1, bias 0; embeddings at unit size; everything else keeps the variance.
      const norm = /norm/.test(key) && dims.length === 1;
      const size = key.endsWith("bias") ? 0 : /embedding\.weight$/.test(key) ? 1 : 1 / Math.sqrt(inner);
      return [key, { dims, data: t.data.map((x) => norm && key.endsWith("weight") ? 1 : x * size) }];
    }),
  );
};

/** The files of a model, by path in its folder. */
export const tinyModelFiles = (options: TinyModelOptions = {}): ReadonlyMap<string, Uint8Array | string> => {
  const { seed = 0, side = 4, channels = [8, 16], width = 16, length = 16, prediction = "epsilon" } = options;
  const { vocab, merges } = tinyTokenizer([
    ...Object.values(promptWords).flat(),
    ...defaultWords,
    ...options.words ?? [],
  ]);
  const configs = {
    unet: {
      _class_name: "UNet2DConditionModel",
      sample_size: side,
      in_channels: 4,
      out_channels: 4,
      block_out_channels: channels,
      down_block_types: ["CrossAttnDownBlock2D", "DownBlock2D"],
      up_block_types: ["UpBlock2D", "CrossAttnUpBlock2D"],
      layers_per_block: 1,
      attention_head_dim: 2,
      cross_attention_dim: width,
      norm_num_groups: 4,
    },
    text_encoder: {
      architectures: ["CLIPTextModel"],
      hidden_size: width,
      intermediate_size: 2 * width,
      num_hidden_layers: 1,
      num_attention_heads: 2,
      max_position_embeddings: length,
      vocab_size: Object.keys(JSON.parse(vocab)).length,
    },
    vae: {
      _class_name: "AutoencoderKL",
      block_out_channels: [4, 8],
      down_block_types: ["DownEncoderBlock2D", "DownEncoderBlock2D"],
      up_block_types: ["UpDecoderBlock2D", "UpDecoderBlock2D"],
      layers_per_block: 1,
      norm_num_groups: 4,
      latent_channels: 4,
      mid_block_add_attention: false,
    },
  };
  const tokenizer = new Map([
    ["tokenizer_config.json", JSON.stringify({ tokenizer_class: "CLIPTokenizer", model_max_length: length })],
    ["vocab.json", vocab],
    ["merges.txt", merges],
  ]);
  return randomModelFiles(configs, tokenizer, { seed, prediction });
};

/**
 * The files of a model of random weights, by path in its folder.
 * @param configs each part's config.json
 * @param tokenizer files of the folder `tokenizer`, by name
 */
export const randomModelFiles = (
  configs: Readonly<Record<"unet" | "text_encoder" | "vae", unknown>>,
  tokenizer: ReadonlyMap<string, Uint8Array | string>,
  { seed = 0, prediction = "epsilon" }: Pick<TinyModelOptions, "seed" | "prediction"> = {},
): ReadonlyMap<string, Uint8Array | string> => {
  const weights = {
    unet: "diffusion_pytorch_model.safetensors",
    text_encoder: "model.safetensors",
    vae: "diffusion_pytorch_model.safetensors",
  };
  const files = new Map<string, Uint8Array | string>();
  const json = (path: string, content: unknown) => files.set(path, JSON.stringify(content, null, 1));
  for (const part of ["unet", "text_encoder", "vae"] as const) {
    json(`${part}/config.json`, configs[part]);
    files.set(`${part}/${weights[part]}`, write(randomWeights(part, configs[part], seed)));
  }
  json("model_index.json", {
    _class_name: "StableDiffusionPipeline",
    unet: ["diffusers", "UNet2DConditionModel"],
    text_encoder: ["transformers", "CLIPTextModel"],
    vae: ["diffusers", "AutoencoderKL"],
    tokenizer: ["transformers", "CLIPTokenizer"],
    scheduler: ["diffusers", "DDIMScheduler"],
  });
  json("scheduler/scheduler_config.json", {
    _class_name: "DDIMScheduler",
    beta_start: 0.00085,
    beta_end: 0.012,
    beta_schedule: "scaled_linear",
    prediction_type: prediction,
    clip_sample: false,
    steps_offset: 1,
  });
  for (const [name, content] of tokenizer) files.set(`tokenizer/${name}`, content);
  return files;
};

/** Models of random sizes and weights, as options for {@link tinyModel}; they shrink to the smallest. */
export const tinyModelArbitrary = (): fc.Arbitrary<TinyModelOptions> =>
  fc.record({
    seed: fc.nat(9999),
    side: fc.constantFrom(4, 8),
    channels: fc.constantFrom([8, 8], [8, 16], [16, 16]),
    width: fc.constantFrom(8, 16),
    length: fc.constantFrom(16, 24),
    prediction: fc.constantFrom("epsilon", "v_prediction"),
  });

/** A temporary folder; it goes with the scope. */
const temporary = Effect.acquireRelease(
  Effect.promise(() => mkdtemp(join(tmpdir(), "sau-tiny-"))),
  (folder) => Effect.promise(() => rm(folder, { recursive: true, force: true })),
);

/** A model in a temporary folder, which goes with the scope; gives its path. */
export const tinyModel = (options: TinyModelOptions = {}): Effect.Effect<string, never, Scope.Scope> =>
  Effect.gen(function* () {
    const folder = yield* temporary;
    for (const [path, content] of tinyModelFiles(options)) {
      const file = join(folder, path);
      yield* Effect.promise(() => mkdir(dirname(file), { recursive: true }));
      yield* Effect.promise(() => writeFile(file, content));
    }
    return folder;
  });

/** The same, opened. */
export const tinyBundle = (options: TinyModelOptions = {}): Effect.Effect<Bundle, BundleError, Scope.Scope> =>
  Effect.flatMap(tinyModel(options), (folder) => openBundle(folder));

/** Some prompts in their readings, as `encode` gives them for a tiny model with the trigger `trigger`. */
export const tinyText = Effect.fnUntraced(function* (
  { prompts, twins, trigger = "\u200b ", ...options }: TinyModelOptions & {
    readonly prompts: readonly string[];
    readonly twins: number;
    readonly trigger?: string;
  },
) {
  const model = yield* tinyModel(options), list = join(yield* temporary, "prompts.txt");
  yield* Effect.promise(() => writeFile(list, prompts.join("\n")));
  const settings = { model, trigger, prompts: list, count: prompts.length, twins, variations: 0 };
  const { text } = yield* encode.run({}, settings);
  return text satisfies TextPairs;
});
