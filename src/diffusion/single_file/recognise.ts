/** What a .safetensors file holds that is no checkpoint read here, in words: so that an error can say what to do. */
import type { Header } from "../../tensor/safetensors.ts";

/** What was found, and what to do about it. */
export interface Found {
  readonly what: string;
  readonly hint?: string;
}

const UNET = "model.diffusion_model.";
const OTHER = "Stable Diffusion 1.x, 2.x and XL are read from one file.";
const PART =
  "Put it into the folder of a whole model, beside its config.json, or give that folder as --replace-unet or --replace-text-encoder.";

/** Kinds of files by keys that no other kind has; the first that fits is told. */
const kinds: ReadonlyArray<readonly [RegExp, Found]> = [
  [/^(lora_unet_|lora_te\w*_)|\.lora_(down|up|A|B|linear_layer)\.|\.hada_w1_a$|\.lokr_w1$/, {
    what: "a LoRA, a change of some weights and no model",
    hint: "It belongs over a model: give that one.",
  }],
  [/^(control_model\.|controlnet_|controlnet_cond_embedding\.)|\.controlnet_/, {
    what: "a ControlNet",
    hint: "Give the model that it steers.",
  }],
  [/^(string_to_param|emb_params|clip_[lg])$/, {
    what: "a textual inversion, some embeddings and no model",
    hint: "Give the model that it was made for.",
  }],
  [/motion_modules\./, { what: "an AnimateDiff motion module", hint: "Give the model that it moves." }],
  [/^edm_(mean|vpred\.sigma_max)$/, {
    what: "a model of XL's networks that was trained on another scale of noise (Playground 2.5, CosXL)",
    hint: OTHER,
  }],
  [/(^|\.)joint_blocks\./, { what: "Stable Diffusion 3", hint: OTHER }],
  [/(^|\.)double_blocks\./, { what: "Flux, or a model of its kind", hint: OTHER }],
  [/^model\.diffusion_model\.(input_blocks\.\d+\.1\.time_stack|.*temporal)/, {
    what: "a model of moving pictures",
    hint: OTHER,
  }],
  [/^(unet|text_encoder|vae)\.(down_blocks|text_model|encoder)\./, {
    what: "parts under diffusers' names in one file",
    hint: "Save the pipeline as a folder: save_pretrained(FOLDER).",
  }],
  [/^(down_blocks|mid_block|time_embedding)\./, { what: "a U-Net alone, as diffusers saves it", hint: PART }],
  [/^(encoder|decoder)\.(down_blocks|up_blocks|mid_block|down|up|mid)\./, {
    what: "an autoencoder (VAE) alone",
    hint: "Give the checkpoint that it belongs to.",
  }],
  [/^(text_model|vision_model|transformer)\./, { what: "a text encoder, or a CLIP, alone", hint: PART }],
];

/** Beginnings of keys with how often each stands, the commonest first. */
const beginnings = (header: Header): string => {
  const counts = new Map<string, number>();
  for (const key of header.entries.keys()) {
    const start = key.split(".").slice(0, key.startsWith("model.") ? 2 : 1).join(".").slice(0, 60);
    counts.set(start, (counts.get(start) ?? 0) + 1);
  }
  const list = [...counts].toSorted(([, a], [, b]) => b - a);
  const shown = list.slice(0, 4).map(([start, n]) => `${JSON.stringify(start)} (${n})`).join(", ");
  return list.length > 4 ? `${shown}, …` : shown;
};

const REFINER: Found = {
  what: "the refiner of Stable Diffusion XL, which goes over pictures that the base model made",
  hint: "Give the base model: it is the one that reads a prompt first.",
};
const LABELS: Found = {
  what: "a U-Net with labels or pooled texts as a condition (unCLIP or an upscaler)",
  hint: OTHER,
};

/** Checkpoints whose U-Net takes more than one text's states, and that are not the base model of XL. */
const conditioned = (keys: readonly string[]): Found | undefined => {
  const has = (stem: string) => keys.some((key) => key.startsWith(stem));
  if (!has(`${UNET}label_emb.`) || has("conditioner.embedders.1.")) return undefined;
  return has("conditioner.embedders.0.model.") ? REFINER : LABELS;
};

const INPUTS: Readonly<Record<number, string>> = {
  5: "depth to image",
  7: "an upscaler",
  8: "editing by instruction, or variations of a picture",
  9: "inpainting",
};

/** What a file holds that no layout of a whole checkpoint fits. */
export const describeFile = (header: Header): Found => {
  const keys = [...header.entries.keys()];
  const kind = kinds.find(([pattern]) => keys.some((key) => pattern.test(key)));
  const other = kind?.[1] ?? conditioned(keys);
  if (other !== undefined) return other;
  const inputs = header.entries.get(`${UNET}input_blocks.0.0.weight`)?.dims[1];
  if (inputs !== undefined && INPUTS[inputs] !== undefined) {
    return { what: `a U-Net with ${inputs} input channels (${INPUTS[inputs]})`, hint: OTHER };
  }
  if (inputs !== undefined) {
    const lacking = [
      keys.some((key) => /^(cond_stage_model|conditioner\.embedders\.0)\./.test(key)) ? "" : "text encoder",
      keys.some((key) => key.startsWith("first_stage_model.")) ? "" : "autoencoder (first_stage_model)",
    ].filter((name) => name !== "");
    return lacking.length === 0
      ? { what: `a checkpoint of an unknown kind; its keys begin with ${beginnings(header)}`, hint: OTHER }
      : { what: `a U-Net and no ${lacking.join(", no ")}`, hint: "Give the whole checkpoint, or a diffusers folder." };
  }
  return { what: `no model that is known here; its keys begin with ${beginnings(header)}`, hint: OTHER };
};
