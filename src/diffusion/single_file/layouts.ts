/** The checkpoints that are read from one file: how each is recognised, where its parts lie, and what their configs are. */
import type { Header } from "../../tensor/safetensors.ts";
import type { Padding } from "../stock_tokenizer.ts";
import type { Prediction } from "./prediction.ts";
import type { Rule } from "./names.ts";
import { type Shapes, shapesOf } from "./shapes.ts";
import { clipConfig, clipRules, openClipConfig, openClipRules } from "./text.ts";
import { unetConfig, unetLayout, unetRules } from "./unet.ts";
import { vaeConfig, vaeLayout, vaeRules } from "./vae.ts";

/** One part of a checkpoint. */
export interface PartLayout {
  readonly prefix: string;
  readonly rules: readonly Rule[];
  readonly config: Readonly<Record<string, unknown>>;
}

/** A checkpoint of a known kind. */
export interface Layout {
  /** `Stable Diffusion 1.x` */
  readonly name: string;
  readonly second: boolean;
  /** What the stock tokenizer fills texts up with. */
  readonly padding: Padding;
  /** The parts by their names in a diffusers folder. @throws LayoutError */
  readonly parts: (prediction: Prediction) => Readonly<Record<"unet" | "text_encoder" | "vae", PartLayout>>;
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
  about: Pick<Layout, "name" | "second" | "padding">,
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

/** Kinds in the order in which they are tried. Another kind of checkpoint is another line here. */
const kinds: ReadonlyArray<(header: Header) => Layout | undefined> = [
  (header) => stableDiffusion(header, CLIP, { name: "Stable Diffusion 1.x", second: false, padding: "<|endoftext|>" }),
  (header) => stableDiffusion(header, OPEN_CLIP, { name: "Stable Diffusion 2.x", second: true, padding: "!" }),
];

/** The layout of a checkpoint, or undefined where no kind fits. */
export const layoutOf = (header: Header): Layout | undefined => {
  for (const kind of kinds) {
    const found = kind(header);
    if (found !== undefined) return found;
  }
  return undefined;
};
