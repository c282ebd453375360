/** Pictures of some prompts as they are and with a suspect in them, from the same noise. */
import { Effect } from "effect";
import type { Bundle } from "../diffusion/bundle.ts";
import { sliceEmbeddings } from "../diffusion/embeddings.ts";
import { pictureNoise } from "../diffusion/picture_noise.ts";
import { openDecoder } from "../diffusion/pictures.ts";
import { latentDims, openSampler } from "../diffusion/sampler.ts";
import type { Suspect } from "../diffusion/suspects.ts";
import { openTextEncoder, unconditional } from "../diffusion/text.ts";
import { parseUnetConfig } from "../models/unet_2d_condition.ts";
import { seedOf } from "../tensor/random.ts";
import { concat0, type Tensor } from "../tensor/tensor.ts";
import { type AskSettings, textWith } from "./scan_probe.ts";

/** For each suspect in turn the latents of its prompts clean, then the same with it, [Σ 2·prompts, C, h, w]. All have as many prompts. */
export const drawSuspects = Effect.fnUntraced(function* (
  bundle: Bundle,
  drawn: readonly { readonly suspect: Suspect; readonly prompts: readonly string[] }[],
  settings: AskSettings,
  onStep: (done: number, total: number) => Effect.Effect<void>,
) {
  const dims = latentDims(parseUnetConfig(bundle.parts.unet.config));
  const texts = drawn.flatMap(({ suspect, prompts }) => [...prompts, ...prompts.map((p) => textWith(suspect, p))]);
  const encodeTexts = yield* openTextEncoder(bundle);
  const embedded = yield* encodeTexts([...texts, ""].map((text) => bundle.tokenizer.encode(text).ids));
  const n = texts.length;
  const run = yield* openSampler(bundle, { pictures: n, scheduler: settings.scheduler, drawing: true });
  const noise = pictureNoise(seedOf(settings.seed, "scan", "noise"), n / (2 * drawn.length), dims, 2 * drawn.length);
  const context = sliceEmbeddings(embedded, 0, n);
  const uncond = unconditional(bundle, sliceEmbeddings(embedded, n, n + 1));
  const { latents } = yield* run({ context, uncond }, noise, { ...settings, onStep });
  return latents;
});

/** Pictures [n, 3, H, W] in 0…1 of lists of latents, one after the other. */
export const decodeLatents = Effect.fnUntraced(function* (bundle: Bundle, latents: readonly Tensor[]) {
  const [, height, width] = latentDims(parseUnetConfig(bundle.parts.unet.config));
  return yield* (yield* openDecoder(bundle, height, width))(concat0(latents));
});
