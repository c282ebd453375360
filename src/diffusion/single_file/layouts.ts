/** The checkpoints that are read from one file: how each is recognised, where its parts lie, and what their configs are. */
import type { Header } from "../../tensor/safetensors.ts";
import type { Padding } from "../stock_tokenizer.ts";
import type { Prediction } from "./prediction.ts";
import type { Rule } from "./names.ts";
import { type Shapes, shapesOf } from "./shapes.ts";
import { clipConfig, clipRules, openClipConfig, openClipRules, projectedConfig } from "./text.ts";
import { addedConfig, unetConfig, unetLayout, unetRules } from "./unet.ts";
import { vaeConfig, vaeLayout, vaeRules } from "./vae.ts";

/** One part of a checkpoint. */
export interface PartLayout {
  readonly prefix: string;
  readonly rules: readonly Rule[];
  readonly config: Readonly<Record<string, unknown>>;
}

/** The parts of a checkpoint, by their names in a diffusers folder; XL alone has a second text encoder. */
export type OfParts<A> = Readonly<
  Record<"unet" | "text_encoder" | "vae", A> & { readonly text_encoder_2?: A }
>;

/** A checkpoint of a known kind. */
export interface Layout {
  /** `Stable Diffusion 1.x` */
  readonly name: string;
  readonly second: boolean;
  /** Class that model_index.json of the same model as a folder names. */
  readonly pipeline: string;
  /** What the stock tokenizer of each text encoder fills texts up with. */
  readonly paddings: readonly [Padding, ...Padding[]];
  /** @throws LayoutError */
  readonly parts: (prediction: Prediction) => OfParts<PartLayout>;
}

const UNET = "model.diffusion_model.";
const VAE = "first_stage_model.";

/** Side of the pictures that the file was trained for, by Stability's ModelSpec, or undefined. */
const resolution = ({ metadata }: Header): number | undefined => {
  const [, width, height] = /^(\d{1,5})x(\d{1,5})$/.exec(metadata["modelspec.resolution"] ?? "") ?? [];
  const side = Math.max(Number(width ?? 0), Number(height ?? 0));
  return side >= 8 && side <= 4096 ? side : undefined;
};

interface TextEncoder {
  readonly prefix: string;
  readonly of: (file: Shapes) => { readonly rules: readonly Rule[]; readonly config: Record<string, unknown> };
}

/** SD 1.x: CLIP ViT-L/14 under transformers' names; SGM writes `conditioner.embedders.0.`. */
const CLIP: TextEncoder = {
  prefix: "transformer.",
  of: (file) => ({ rules: clipRules(file), config: clipConfig(file) }),
};

/**
 * SD 2.x: OpenCLIP ViT-H/14 of 24 layers, of which the last one is left out. Programs that write such files from a diffusers
 * folder leave it out already: 23 are all.
 */
const OPEN_CLIP: TextEncoder = {
  prefix: "model.",
  of: (file) => {
    const config = openClipConfig(file, file.count("transformer.resblocks.") === 23 ? 0 : 1);
    return { rules: openClipRules(Number(config.num_hidden_layers)), config };
  },
};

/** The layout of a checkpoint whose text encoder is of this kind, or undefined where the file is none. */
const stableDiffusion = (
  header: Header,
  text: TextEncoder,
  about: Pick<Layout, "name" | "second" | "paddings">,
): Layout | undefined => {
  const unet = shapesOf(header, UNET);
  const vae = shapesOf(header, VAE);
  const stem = ["cond_stage_model.", "conditioner.embedders.0."].map((at) => at + text.prefix).find((at) =>
    shapesOf(header, at).any("")
  );
  if (stem === undefined || !vae.any("decoder.") || unet.dims("input_blocks.0.0.weight")[1] !== 4) return undefined;
  if (unet.any("label_emb.") || shapesOf(header, "conditioner.embedders.1.").any("")) return undefined;
  return {
    ...about,
    pipeline: "StableDiffusionPipeline",
    parts: (prediction) => {
      const layout = unetLayout(unet);
      const coder = vaeLayout(vae);
      const factor = 2 ** (coder.channels.length - 1);
      const side = resolution(header) ?? (about.second && prediction === "v_prediction" ? 768 : 512);
      return {
        unet: { prefix: UNET, rules: unetRules(layout), config: unetConfig(unet, layout, Math.floor(side / factor)) },
        text_encoder: { prefix: stem, ...text.of(shapesOf(header, stem)) },
        vae: { prefix: VAE, rules: vaeRules(coder), config: vaeConfig(vae, coder, side) },
      };
    },
  };
};

/**
 * SDXL: CLIP ViT-L/14 under transformers' names beside OpenCLIP ViT-bigG/14 with its projection. Of the latter every layer is in
 * the network: the one that the U-Net's context leaves out is read for the pooled text.
 */
const stableDiffusionXl = (header: Header): Layout | undefined => {
  const [first, second] = ["conditioner.embedders.0.transformer.", "conditioner.embedders.1.model."];
  const [unet, vae, text, projected] = [UNET, VAE, first, second].map((stem) => shapesOf(header, stem));
  const isOne = text.any("") && projected.any("transformer.") && vae.any("decoder.") &&
    unet.dims("input_blocks.0.0.weight")[1] === 4;
  // Models that see noise as Karras et al. 2022 do (Playground 2.5, CosXL) have their own scale of latents and noise.
  if (!isOne || ["edm_mean", "edm_vpred.sigma_max"].some((key) => header.entries.has(key))) return undefined;
  return {
    name: "Stable Diffusion XL",
    second: false,
    pipeline: "StableDiffusionXLPipeline",
    paddings: ["<|endoftext|>", "!"],
    parts: () => {
      const layout = unetLayout(unet);
      const coder = vaeLayout(vae);
      const side = resolution(header) ?? 1024;
      const sample = Math.floor(side / 2 ** (coder.channels.length - 1));
      const config = { ...unetConfig(unet, layout, sample), ...addedConfig(unet) };
      const openClip = openClipConfig(projected, 0);
      return {
        unet: { prefix: UNET, rules: unetRules(layout), config },
        text_encoder: { prefix: first, rules: clipRules(text), config: clipConfig(text) },
        text_encoder_2: {
          prefix: second,
          rules: openClipRules(Number(openClip.num_hidden_layers), true),
          config: { ...openClip, ...projectedConfig(projected) },
        },
        vae: { prefix: VAE, rules: vaeRules(coder), config: vaeConfig(vae, coder, side, 0.13025) },
      };
    },
  };
};

/** Kinds in the order in which they are tried. Another kind of checkpoint is another line here. */
const kinds: ReadonlyArray<(header: Header) => Layout | undefined> = [
  (header) =>
    stableDiffusion(header, CLIP, { name: "Stable Diffusion 1.x", second: false, paddings: ["<|endoftext|>"] }),
  (header) => stableDiffusion(header, OPEN_CLIP, { name: "Stable Diffusion 2.x", second: true, paddings: ["!"] }),
  stableDiffusionXl,
];

/** The layout of a checkpoint, or undefined where no kind fits. */
export const layoutOf = (header: Header): Layout | undefined => {
  for (const kind of kinds) {
    const found = kind(header);
    if (found !== undefined) return found;
  }
  return undefined;
};
