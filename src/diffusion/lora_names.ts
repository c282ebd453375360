/**
 * The names that LoRA files give to a layer's factors. A file says `STEM.ROLE`: the stem names the layer, in one of three
 * ways, and the role says which factor it is.
 *
 * - kohya: `lora_unet_` and the layer's name with `_` for `.`, in diffusers' numbering of the blocks or in that of the
 *   original checkpoints (`input_blocks_1_1_…`); https://github.com/kohya-ss/sd-scripts networks/lora.py
 * - diffusers and PEFT: `unet.` and the layer's name; https://huggingface.co/docs/diffusers loaders/lora
 * - older diffusers: `….attn2.processor.to_k_lora`, with or without `unet.`
 */
import type { BundlePart } from "./bundle.ts";

/** down [r, in…], up [out, r], and for a convolution in three factors mid [r, r, kh, kw]. */
export type LoraRole = "down" | "up" | "mid" | "alpha";

/** How a file ends the names of the two factors. */
const SUFFIXES = [
  { down: ".lora_A.weight", up: ".lora_B.weight" },
  { down: ".lora_down.weight", up: ".lora_up.weight" },
  { down: ".lora.down.weight", up: ".lora.up.weight" },
  { down: ".lora_linear_layer.down.weight", up: ".lora_linear_layer.up.weight" },
  { down: "_lora.down.weight", up: "_lora.up.weight" },
] as const;
type Suffix = (typeof SUFFIXES)[number];
const [PEFT, KOHYA, DIFFUSERS, LINEAR, PROCESSOR] = SUFFIXES;

/** A tensor's name taken apart. Undefined for one that is no part of a LoRA. */
export const parseLoraKey = (
  key: string,
): { readonly stem: string; readonly role: LoraRole; readonly suffix?: Suffix } | undefined => {
  for (const suffix of SUFFIXES) {
    for (const role of ["down", "up"] as const) {
      if (key.endsWith(suffix[role])) return { stem: key.slice(0, -suffix[role].length), role, suffix };
    }
  }
  for (const [role, end] of [["mid", ".lora_mid.weight"], ["alpha", ".alpha"]] as const) {
    if (key.endsWith(end)) return { stem: key.slice(0, -end.length), role };
  }
  return undefined;
};

/** What else people hand around under the name of a LoRA, by what its tensors are called. */
export const FOREIGN: ReadonlyArray<readonly [RegExp, string]> = [
  [/\.dora_scale$|\.lora_magnitude_vector(\.weight)?$/, "DoRA (weight-decomposed, with a magnitude for each row)"],
  [/\.hada_(w[12]_[ab]|t[12])$/, "LoHa (Hadamard products)"],
  [/\.lokr_(w[12](_[ab])?|t[12])$/, "LoKr (Kronecker products)"],
  [/\.oft_(blocks|diag|R)(\.|$)|\.oft_R\./, "OFT (orthogonal fine-tuning)"],
  [/\.on_input$|\.ia3_l(\.|$)/, "IA³ (scaled activations)"],
  [/\.(a1|a2|b1|b2)\.weight$/, "GLoRA"],
  [/\.diff(_b)?$|\.(w|b)_norm$|\.lora_B\.bias$/, "a LoRA with whole weights or biases beside the factors"],
  [/^bundle_emb\./, "a LoRA bundled with token embeddings"],
  [/^(emb_params|string_to_param|clip_[lg])$/, "a textual inversion embedding, not a LoRA"],
  [/^(model\.diffusion_model|first_stage_model|cond_stage_model)\./, "a whole checkpoint, not a LoRA"],
];

const flat = (name: string): string => name.replaceAll(".", "_");

/** Name of a U-Net's layer in the original checkpoints' numbering, undefined where it has none. */
export const ldmName = (name: string, layersPerBlock: number): string | undefined => {
  const step = layersPerBlock + 1;
  const inner = (rest: string) =>
    rest.replace(/^conv1$/, "in_layers.2").replace(/^conv2$/, "out_layers.3")
      .replace(/^time_emb_proj$/, "emb_layers.1").replace(/^conv_shortcut$/, "skip_connection");
  const whole: Readonly<Record<string, string>> = {
    "conv_in": "input_blocks.0.0",
    "conv_out": "out.2",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
  };
  if (Object.hasOwn(whole, name)) return whole[name];
  const mid = /^mid_block\.(resnets|attentions)\.(\d+)\.(.+)$/.exec(name);
  if (mid !== null) {
    return mid[1] === "attentions"
      ? `middle_block.${1 + 2 * Number(mid[2])}.${mid[3]}`
      : `middle_block.${2 * Number(mid[2])}.${inner(mid[3])}`;
  }
  const found = /^(down|up)_blocks\.(\d+)\.(resnets|attentions|downsamplers|upsamplers)\.(\d+)\.(.+)$/.exec(name);
  if (found === null) return undefined;
  const [, side, block, kind, at, rest] = found;
  const [b, j] = [Number(block), Number(at)];
  if (kind === "downsamplers") return `input_blocks.${(b + 1) * step}.0.op`;
  const place = side === "down" ? `input_blocks.${1 + b * step + j}` : `output_blocks.${b * step + j}`;
  if (kind === "resnets") return `${place}.0.${inner(rest)}`;
  if (kind === "attentions") return `${place}.1.${rest}`;
  return undefined;
};

/** What an upsampler stands behind in its block: a resnet, and an attention where the block has them. */
const ldmUpsampler = (name: string, layersPerBlock: number, attends: boolean): string | undefined => {
  const found = /^up_blocks\.(\d+)\.upsamplers\.0\.conv$/.exec(name);
  if (found === null) return undefined;
  return `output_blocks.${(Number(found[1]) + 1) * (layersPerBlock + 1) - 1}.${attends ? 2 : 1}.conv`;
};

/** A layer of a model that a LoRA can change. */
export interface Layer {
  readonly part: BundlePart;
  /** As LoRAs call it with dots, without `.weight`. */
  readonly name: string;
  /** Of its weight in the part's file. */
  readonly key: string;
  /** [out, in] or [out, in, kh, kw]. */
  readonly dims: readonly number[];
}

const KOHYA_PREFIX: Readonly<Record<string, string>> = {
  lora_unet_: "unet",
  lora_te_: "text_encoder",
  lora_te1_: "text_encoder",
  lora_te2_: "text_encoder_2",
};

/** How one stem is written, so that others can be written alike. */
export interface Spelling {
  /** `lora_unet_`, `unet.`, or nothing. */
  readonly prefix: string;
  readonly kind: "flat" | "ldm" | "dotted";
  /** False where the file leaves `text_model.` out. */
  readonly textModel: boolean;
}

/** Finds the layer that a stem means; the model's own names settle what an underscore stands for. */
export const layerFinder = (layers: readonly Layer[], layersPerBlock: number) => {
  const ldm = ({ part, name }: Layer): string | undefined => {
    if (part !== "unet") return undefined;
    const block = /^up_blocks\.\d+\./.exec(name)?.[0];
    const attends = layers.some((l) =>
      l.part === part && block !== undefined && l.name.startsWith(`${block}attentions.`)
    );
    return ldmName(name, layersPerBlock) ?? ldmUpsampler(name, layersPerBlock, attends);
  };
  const index = new Map<
    string,
    { readonly layer: Layer; readonly kind: Spelling["kind"]; readonly textModel: boolean }[]
  >();
  const add = (text: string, layer: Layer, kind: Spelling["kind"], textModel = true) => {
    const key = `${layer.part} ${text}`;
    const there = index.get(key) ?? [];
    if (!there.some((other) => other.layer === layer)) index.set(key, [...there, { layer, kind, textModel }]);
  };
  for (const layer of layers) {
    add(layer.name, layer, "dotted");
    add(flat(layer.name), layer, "flat");
    const original = ldm(layer);
    if (original !== undefined) add(flat(original), layer, "ldm");
    if (layer.name.startsWith("text_model.")) {
      add(layer.name.slice("text_model.".length), layer, "dotted", false);
      add(flat(layer.name.slice("text_model.".length)), layer, "flat", false);
    }
  }
  const kohya = (stem: string) => {
    const prefix = Object.keys(KOHYA_PREFIX).find((p) => stem.startsWith(p));
    return prefix === undefined || stem.includes(".")
      ? undefined
      : [{ prefix, part: KOHYA_PREFIX[prefix], rest: stem.slice(prefix.length) }];
  };
  const dotted = (stem: string, suffix: Suffix | undefined) => {
    const prefix = ["unet.", "text_encoder.", "text_encoder_2."].find((p) => stem.startsWith(p)) ?? "";
    const parts = prefix === "" ? ["unet", "text_encoder", "text_encoder_2"] : [prefix.slice(0, -1)];
    return parts.map((part) => ({ prefix, part, rest: processorless(stem.slice(prefix.length), part, suffix) }));
  };
  return {
    /** The layers that a stem may mean, each with how it is spelt. One is as it should be. */
    find: (stem: string, suffix: Suffix | undefined): { readonly layer: Layer; readonly spelling: Spelling }[] => {
      const places = kohya(stem) ?? dotted(stem, suffix);
      for (const { prefix, part, rest } of places) {
        const found = index.get(`${part} ${rest}`) ?? [];
        if (found.length > 0) {
          return found.map(({ layer, kind, textModel }) => ({ layer, spelling: { prefix, kind, textModel } }));
        }
      }
      return [];
    },
    /** A layer's name in the original numbering. */
    ldm,
  };
};
export type LayerFinder = ReturnType<typeof layerFinder>;

/** A dotted stem without what older diffusers put into it. */
const processorless = (stem: string, part: string, suffix: Suffix | undefined): string => {
  const bare = stem.replace(".processor.", ".");
  if (suffix !== PROCESSOR) return bare;
  const last = /^(.*)\.to_(q|k|v|out)$/.exec(bare);
  if (last === null) return bare;
  return part === "unet" ? `${last[1]}.to_${last[2]}${last[2] === "out" ? ".0" : ""}` : `${last[1]}.${last[2]}_proj`;
};

/** A part's first stem in a file: what names of further layers are modelled on. */
export interface Sample {
  readonly part: BundlePart;
  readonly spelling: Spelling;
  readonly suffix: Suffix;
}

/** The names of the factors of a layer that a file did not hold so far, like those that it holds. */
export const newLoraKeys = (
  layer: Layer,
  samples: readonly Sample[],
  finder: LayerFinder,
): { readonly down: string; readonly up: string; readonly alpha: string } => {
  const own = samples.find(({ part }) => part === layer.part);
  const like = own ?? samples[0];
  const keys = (stem: string, { down, up }: Suffix) => ({ down: stem + down, up: stem + up, alpha: `${stem}.alpha` });
  if (like.spelling.kind !== "dotted") {
    const numbered = samples.some(({ spelling }) => spelling.prefix === "lora_te1_");
    const others = {
      unet: "lora_unet_",
      text_encoder: numbered ? "lora_te1_" : "lora_te_",
      text_encoder_2: "lora_te2_",
    };
    const prefix = own?.spelling.prefix ?? Object.entries(others).find(([part]) => part === layer.part)?.[1] ?? "";
    const name = samples.some(({ spelling }) => spelling.kind === "ldm") ? finder.ldm(layer) ?? layer.name : layer.name;
    return keys(prefix + flat(name), KOHYA);
  }
  const prefix = own?.spelling.prefix ?? `${layer.part}.`;
  const textModel = samples.every(({ spelling }) => spelling.textModel);
  const name = textModel ? layer.name : layer.name.replace(/^text_model\./, "");
  if (like.suffix === PEFT || like.suffix === KOHYA) return keys(prefix + name, like.suffix);
  if (like.suffix === PROCESSOR) {
    const projection = layer.part === "unet"
      ? /^(.*\.attn\d)\.(to_[qkv]|to_out)(\.0)?$/.exec(name)
      : /^(.*\.self_attn)\.(q|k|v|out)_proj$/.exec(name);
    if (projection !== null) {
      const [, attention, last] = projection;
      return keys(`${prefix}${attention}.${layer.part === "unet" ? `processor.${last}` : `to_${last}`}`, PROCESSOR);
    }
  }
  return keys(prefix + name, layer.part === "unet" ? DIFFUSERS : LINEAR);
};

/** Which model a file's own metadata and names speak of; undefined when they speak of none. */
export const madeFor = (keys: Iterable<string>, metadata: Readonly<Record<string, string>>): string | undefined => {
  const said = `${metadata.ss_base_model_version ?? ""} ${metadata["modelspec.architecture"] ?? ""}`.toLowerCase();
  const known: ReadonlyArray<readonly [RegExp, RegExp, string]> = [
    [/flux/, /double_blocks|single_blocks|single_transformer_blocks/, "FLUX"],
    [/sd3|stable-diffusion-v?3/, /joint_blocks|^transformer\./, "a diffusion transformer such as Stable Diffusion 3"],
    [
      /sdxl|stable-diffusion-xl/,
      /^lora_te2_|^text_encoder_2\.|label_emb|add_embedding|transformer_blocks[_.][1-9]/,
      "SDXL",
    ],
    [/sd_v2|stable-diffusion-v2/, /(?!)/, "Stable Diffusion 2.x"],
    [/sd_v1|stable-diffusion-v1/, /(?!)/, "Stable Diffusion 1.x"],
  ];
  const byMetadata = known.find(([words]) => words.test(said));
  if (byMetadata !== undefined) return byMetadata[2];
  const names = [...keys];
  return known.find(([, pattern]) => names.some((key) => pattern.test(key)))?.[2];
};
