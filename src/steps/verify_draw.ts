/** How verify draws: rows of readings with one model, from the same noise each; and what may be kept of it. */
import { Effect } from "effect";
import type { Bundle } from "../diffusion/bundle.ts";
import { type Embeddings, joinEmbeddings } from "../diffusion/embeddings.ts";
import type { PromptReadings } from "../diffusion/readings.ts";
import { pictureNoise } from "../diffusion/picture_noise.ts";
import { latentDims, openSampler } from "../diffusion/sampler.ts";
import type { SchedulerName } from "../diffusion/schedules/choose.ts";
import { parseUnetConfig } from "../models/unet_2d_condition.ts";
import { readingRows } from "./denoise.ts";
import type { Model } from "./ports.ts";

export interface DrawSettings {
  readonly steps: number;
  readonly scheduler: SchedulerName;
  readonly guidance: number;
}

/** Readings of n prompts as a model encodes them. */
export interface Texts {
  /** [n, R, L, D] */
  readonly embeddings: Embeddings;
  /** [1, L, D] */
  readonly empty: Embeddings;
}

/**
 * Latents [which.length · n, C, h, w] of the readings `which`, one after the other; picture j of each begins with the same
 * noise. A model that blends takes the latents of reading 0.
 */
export const drawReadings = Effect.fnUntraced(function* (
  model: Model,
  { embeddings, empty }: Texts,
  which: readonly number[],
  settings: DrawSettings & { readonly noise: number; readonly onStep: (done: number) => Effect.Effect<void> },
) {
  return yield* Effect.scoped(Effect.gen(function* () {
    const n = embeddings.dims[0];
    const run = yield* openSampler(model.bundle, {
      pictures: which.length * n,
      scheduler: settings.scheduler,
      drawing: true,
      ...(model.blend === undefined ? {} : { blend: { mask: model.blend } }),
    });
    const result = yield* run(
      {
        context: joinEmbeddings(which.map((r) => readingRows(embeddings, r))),
        uncond: empty,
        ...(model.blend === undefined ? {} : { clean: joinEmbeddings(which.map(() => readingRows(embeddings, 0))) }),
      },
      pictureNoise(settings.noise, n, latentDims(parseUnetConfig(model.bundle.parts.unet.config)), which.length),
      { steps: settings.steps, guidance: settings.guidance, onStep: settings.onStep },
    );
    return result.latents;
  }));
});

/** A name for what a model as it came draws: everything that decides it. */
export const drawingName = (
  bundle: Bundle,
  prompts: readonly PromptReadings[],
  which: readonly number[],
  settings: DrawSettings & { readonly noise: number },
): string => {
  const { steps, scheduler, guidance, noise } = settings;
  return JSON.stringify([
    [...bundle.hashes],
    bundle.opened,
    bundle.loras?.uses.map(({ weight }) => weight),
    prompts.map((p) => [p.clean, p.triggered, ...p.twins].map(({ ids }) => ids)),
    which,
    [steps, scheduler, guidance, noise],
  ]);
};
