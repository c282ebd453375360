/** A whole small SDXL folder, of the networks that test/golden/make_sdxl.py made and sampled with. */
import { cpSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { put } from "./bundles.ts";
import { readJson } from "./golden.ts";

const golden = fileURLToPath(new URL("../golden/", import.meta.url));

const parts = {
  unet: "unet-xl",
  text_encoder: "text-xl-1",
  text_encoder_2: "text-xl",
  vae: "vae-attention",
} as const;

/** Writes the folder; returns its path. */
export const goldenSdxl = (
  folder: string,
  { forceZeros = true, scheduler = {} }: { forceZeros?: boolean; scheduler?: Record<string, unknown> } = {},
): string => {
  for (const [part, name] of Object.entries(parts)) {
    const config = readJson(join(golden, "tiny", name, "config.json"));
    put(
      join(folder, part, "config.json"),
      part === "vae" ? { ...Object(config), scaling_factor: 0.13025, force_upcast: true } : Object(config),
    );
    const file = part.startsWith("text") ? "model.safetensors" : "diffusion_pytorch_model.safetensors";
    put(join(folder, part, file), new Uint8Array(readFileSync(join(golden, "tiny", name, "weights.safetensors"))));
  }
  for (const name of ["tokenizer", "tokenizer_2"]) {
    cpSync(join(golden, "tokenizer"), join(folder, name), { recursive: true });
  }
  const tokenizer = Object(readJson(join(golden, "tokenizer", "tokenizer_config.json")));
  put(join(folder, "tokenizer_2", "tokenizer_config.json"), { ...tokenizer, pad_token: "!" });
  put(join(folder, "scheduler", "scheduler_config.json"), {
    _class_name: "DDIMScheduler",
    beta_start: 0.00085,
    beta_end: 0.012,
    beta_schedule: "scaled_linear",
    clip_sample: false,
    set_alpha_to_one: false,
    steps_offset: 1,
    ...scheduler,
  });
  put(join(folder, "model_index.json"), {
    _class_name: "StableDiffusionXLPipeline",
    force_zeros_for_empty_prompt: forceZeros,
    unet: ["diffusers", "UNet2DConditionModel"],
    text_encoder: ["transformers", "CLIPTextModel"],
    text_encoder_2: ["transformers", "CLIPTextModelWithProjection"],
    vae: ["diffusers", "AutoencoderKL"],
    tokenizer: ["transformers", "CLIPTokenizer"],
    tokenizer_2: ["transformers", "CLIPTokenizer"],
    scheduler: ["diffusers", "DDIMScheduler"],
    feature_extractor: [null, null],
    image_encoder: [null, null],
  });
  return folder;
};
