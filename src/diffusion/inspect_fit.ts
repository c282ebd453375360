/** What configs say a model is, and whether the weights are what they ask for. */
import { Graph } from "../graph/mod.ts";
import { ConfigError } from "../models/config.ts";
import { sameDims } from "../tensor/tensor.ts";
import { counted, finding } from "./inspect_finding.ts";
import { commonName } from "./inspect_names.ts";
import type { Found, Json } from "./inspect_parts.ts";
import type { Fact, Finding } from "./inspection.ts";
import { wholeNetwork } from "./whole_network.ts";

/** A config value as text, "" when it is not there. */
const text = (value: unknown): string => {
  if (value === undefined || value === null) return "";
  const shown = typeof value === "string"
    ? value
    : Array.isArray(value)
    ? value.map((v) => typeof v === "string" || typeof v === "number" ? String(v) : JSON.stringify(v)).join(", ")
    : JSON.stringify(value) ?? "";
  return shown.length > 200 ? `${shown.slice(0, 200)}…` : shown;
};

const LABELS: Readonly<Record<string, ReadonlyArray<readonly [string, string]>>> = {
  UNet2DConditionModel: [
    ["block_out_channels", "channels"],
    ["down_block_types", "blocks down"],
    ["layers_per_block", "layers in each"],
    ["transformer_layers_per_block", "transformer layers in each attention"],
    ["attention_head_dim", "attention heads"],
    ["num_attention_heads", "attention heads"],
    ["cross_attention_dim", "context width"],
    ["in_channels", "channels of latents in"],
    ["out_channels", "channels of latents out"],
    ["sample_size", "side of latents, cells"],
    ["addition_embed_type", "added conditions"],
  ],
  CLIPTextModel: [
    ["num_hidden_layers", "layers"],
    ["hidden_size", "width"],
    ["num_attention_heads", "attention heads"],
    ["vocab_size", "tokens"],
    ["max_position_embeddings", "positions"],
    ["hidden_act", "activation"],
  ],
  AutoencoderKL: [
    ["block_out_channels", "channels"],
    ["layers_per_block", "layers in each"],
    ["latent_channels", "channels of latents"],
    ["scaling_factor", "scale of latents"],
    ["sample_size", "side of pictures, pixels"],
  ],
};

/** What a part's config.json says, line by line. */
export const partFacts = ({ class: name, config, files, owns }: Found): Fact[] => {
  const labels = LABELS[name === "CLIPTextModelWithProjection" ? "CLIPTextModel" : name ?? ""] ?? [];
  const said = labels.flatMap(([key, label]) => {
    const value = text(config?.[key]);
    return value === "" ? [] : [{ name: label, value }];
  });
  const from = text(config?._name_or_path);
  return [
    ...said,
    ...(config === undefined ? seenFacts(files.flatMap((f) => [...f.header.entries]), owns) : []),
    ...(from === "" ? [] : [{ name: "name that its config gives", value: from }]),
  ];
};

type Entries = ReadonlyArray<readonly [string, { readonly dims: readonly number[] }]>;

/** What can be told of a part without a config: the width of its context, the ranks of a LoRA. */
const seenFacts = (entries: Entries, owns?: (key: string) => boolean): Fact[] => {
  const own = entries.filter(([key]) => owns?.(key) ?? true);
  const context = own.find(([key]) => /attn2\.to_k\.weight$/.test(key))?.[1].dims[1];
  const ranks = own.filter(([key]) => /lora[_.](?:down|A)\b/.test(key)).map(([, { dims }]) => dims[0]);
  const targets = own.filter(([key]) => /lora[_.](?:down|A)\b/.test(key)).map(([key]) =>
    /(attn\d|self_attn|ff|mlp|resnets|proj_in|proj_out|conv|text_projection)/.exec(key)?.[1] ?? "others"
  );
  return [
    ...(context === undefined ? [] : [{ name: "context width", value: String(context) }]),
    ...(ranks.length === 0 ? [] : [
      { name: "LoRA ranks", value: [...new Set(ranks)].sort((a, b) => a - b).slice(0, 12).join(", ") },
      {
        name: "LoRA targets",
        value: [...Map.groupBy(targets, (t) => t)].map(([t, all]) => `${t} × ${all.length}`).join(", "),
      },
    ]),
  ];
};

const numberOf = (config: Json | undefined, key: string): number | undefined => {
  const value = config?.[key];
  const one = Array.isArray(value) ? value[0] : value;
  return typeof one === "number" ? one : undefined;
};

/** Width of the context by config, or by what the tensors are. */
const contextWidth = (part: Found | undefined): number | undefined =>
  numberOf(part?.config, "cross_attention_dim") ??
    part?.files.flatMap((f) => [...f.header.entries]).find(([key]) => /attn2\.to_k\.weight$/.test(key))?.[1].dims[1];

/** Which kind of Stable Diffusion a model is by the width of its U-Net's context. */
export const familyOf = (parts: readonly Found[]): string | undefined => {
  const width = contextWidth(parts.find((p) => p.name === "unet"));
  switch (width) {
    case undefined:
      return undefined;
    case 768:
      return "Stable Diffusion 1.x";
    case 1024:
      return "Stable Diffusion 2.x";
    case 2048:
      return "Stable Diffusion XL";
    default:
      return `Stable Diffusion in a size of its own (context width ${width})`;
  }
};

/** The network of a class, where it is known here. */
const NETWORKS: Readonly<Record<string, (g: Graph, config: unknown) => void>> = {
  UNet2DConditionModel: wholeNetwork.unet,
  CLIPTextModel: wholeNetwork.text_encoder,
  CLIPTextModelWithProjection: wholeNetwork.text_encoder_2,
  AutoencoderKL: wholeNetwork.vae,
  CLIPModel: wholeNetwork.clip,
};

/** A config that asks for more layers than this is not built: the graph of a stranger's file must stay small. */
const MOST_LAYERS = 256;

const layersAsked = (config: Json): number => {
  const sum = (value: unknown): number =>
    typeof value === "number" ? value : Array.isArray(value) ? value.reduce((n: number, v) => n + sum(v), 0) : 0;
  const inner = typeof config.text_config === "object" && config.text_config !== null ? config.text_config : {};
  const hidden = "num_hidden_layers" in inner ? sum(inner.num_hidden_layers) : 0;
  return Math.max(
    hidden,
    sum(config.num_hidden_layers),
    sum(config.layers_per_block),
    sum(config.transformer_layers_per_block),
  );
};

/** Dimensions of every tensor that a part's network has, by the network's names; or why they cannot be told. */
export const networkOf = (
  part: Pick<Found, "class" | "config">,
): ReadonlyMap<string, readonly number[]> | string | undefined => {
  const network = NETWORKS[part.class ?? ""];
  if (network === undefined || part.config === undefined) return undefined;
  if (layersAsked(part.config) > MOST_LAYERS) return `config.json asks for more than ${MOST_LAYERS} layers`;
  try {
    const graph = new Graph();
    network(graph, part.config);
    return new Map(graph.weightsUsed().map(({ key, dims }) => [key, dims]));
  } catch (error) {
    if (error instanceof ConfigError || error instanceof RangeError) return error.message;
    return error instanceof Error ? error.message : String(error);
  }
};

const expectedOf = (part: Found): ReadonlyMap<string, readonly number[]> | string | undefined => {
  const network = networkOf(part);
  return network instanceof Map ? new Map([...network].map(([key, dims]) => [commonName(key), dims])) : network;
};

/** Tensors that are saved with a network though none of its layers has them: positions, and the scale of CLIP's training. */
const HARMLESS = /(?:position_ids|logit_scale)$/;

/** Whether a part's tensors are those that its config.json asks for. */
export const oddKeys = (part: Found): Finding[] => {
  const expected = expectedOf(part);
  if (expected === undefined || part.files.length === 0) return [];
  if (typeof expected === "string") {
    return [finding("config-not-built", "info", [`${part.name}/config.json`], {
      what: `the tensors of ${part.name} were not held against its config.json: ${expected}`,
      why: "This is a network that is not built here, or a config that makes no sense.",
      todo: "Compare with the config of the model that it is said to come from.",
    })];
  }
  const entries = new Map(
    part.files.flatMap((f) => [...f.header.entries].map(([key, e]) => [commonName(key), { key, ...e }])),
  );
  const missing = [...expected.keys()].filter((name) => !entries.has(name));
  const reshaped = [...expected].flatMap(([name, dims]) => {
    const entry = entries.get(name);
    // Older autoencoders hold the projections of their attention as 1 × 1 convolutions.
    const squeezed = (list: readonly number[]) =>
      list.length === 4 && list[2] === 1 && list[3] === 1 ? list.slice(0, 2) : list;
    return entry === undefined || sameDims(squeezed(entry.dims), squeezed(dims))
      ? []
      : [`${part.name}: ${entry.key} [${entry.dims.join(", ")}], expected [${dims.join(", ")}]`];
  });
  const extra = [...entries].filter(([name, { key }]) => !expected.has(name) && !HARMLESS.test(key)).map((
    [, { key }],
  ) => key);
  const out: Finding[] = [];
  if (missing.length > 0) {
    out.push(finding("missing-tensors", "warn", missing.map((key) => `${part.name}: ${key}`), {
      what: `${counted(missing.length, "tensor")} that ${part.name}'s config.json asks for are not there`,
      why: "Loaders fill the gap with random numbers, often with a warning that nobody sees.",
      todo: "Fetch the file again; weights and config.json must come from the same model.",
    }));
  }
  if (reshaped.length > 0) {
    out.push(finding("wrong-shape", "warn", reshaped, {
      what: `${counted(reshaped.length, "tensor")} of ${part.name} in another shape than config.json asks for`,
      why: "Weights and config.json come from different models, or rows were added.",
      todo: "Find the config.json that belongs to the weights.",
    }));
  }
  if (extra.length > 0) {
    out.push(finding("extra-tensors", "warn", extra.map((key) => `${part.name}: ${key}`), {
      what: `${counted(extra.length, "tensor")} of ${part.name} that its network does not have`,
      why:
        "They do nothing in a plain loader; code that comes with the model may use them, or they carry something along.",
      todo: "Ask what they are for; a loader that says nothing about them ignores them.",
    }));
  }
  return out;
};

/** Whether parts fit each other. */
export const oddPairs = (parts: readonly Found[], tokens: number | undefined): Finding[] => {
  const by = (name: string) => parts.find((p) => p.name === name);
  const [unet, encoder, second, vae] = ["unet", "text_encoder", "text_encoder_2", "vae"].map(by);
  const out: Finding[] = [];
  const differ = (what: string, a: number | undefined, b: number | undefined, places: readonly string[]) => {
    if (a === undefined || b === undefined || a === b) return;
    out.push(finding("parts-do-not-fit", "warn", places, {
      what: `${what}: ${a} against ${b}`,
      why: "The parts come from different models; together they fail, or draw noise.",
      todo: "Take both parts from the same model.",
    }));
  };
  const width = numberOf(encoder?.config, "hidden_size");
  const both = width === undefined ? undefined : width + (numberOf(second?.config, "hidden_size") ?? 0);
  differ(
    "the U-Net's context width and the text encoder's width",
    numberOf(unet?.config, "cross_attention_dim"),
    both,
    [
      "unet/config.json: cross_attention_dim",
      "text_encoder/config.json: hidden_size",
    ],
  );
  differ(
    "channels of latents that the U-Net gives and the autoencoder takes",
    numberOf(unet?.config, "out_channels"),
    numberOf(vae?.config, "latent_channels"),
    ["unet/config.json: out_channels", "vae/config.json: latent_channels"],
  );
  const rows = encoder?.files.flatMap((f) => [...f.header.entries]).find(([key]) =>
    /token_embedding\.weight$/.test(key)
  )?.[1].dims[0];
  if (rows !== undefined && tokens !== undefined && rows < tokens) {
    out.push(finding("too-few-embeddings", "warn", ["text_encoder: token_embedding.weight"], {
      what: `the tokenizer has ${tokens} tokens, the text encoder ${rows} embeddings`,
      why: "Prompts with the tokens beyond that fail, or read memory that means nothing.",
      todo: "Take tokenizer and text encoder from the same model.",
    }));
  }
  if (rows !== undefined && tokens !== undefined && rows > tokens) {
    out.push(finding("extra-embeddings", "warn", ["text_encoder: token_embedding.weight"], {
      what: `${counted(rows - tokens, "embedding")} beyond the tokenizer's ${tokens} tokens`,
      why: "Textual inversion adds rows like these: a tokenizer that names them gives a text a meaning of its own.",
      todo: "Compare with the model that it is said to come from; see that added_tokens.json names none of them.",
    }));
  }
  return out;
};
