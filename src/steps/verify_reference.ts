/** What the model without the backdoor draws, where there is one: a bench has it, whoever cures a stranger's model has not. */
import { Effect } from "effect";
import { openDecoder } from "../diffusion/pictures.ts";
import type { PromptReadings } from "../diffusion/readings.ts";
import { latentDims } from "../diffusion/sampler.ts";
import { parseUnetConfig } from "../models/unet_2d_condition.ts";
import { embed } from "./encode.ts";
import { Kept } from "./kept.ts";
import { openModel } from "./open_model.ts";
import { drawingName, drawReadings, type DrawSettings } from "./verify_draw.ts";

/** Clean and triggered. */
const READINGS = [0, 1];

/**
 * Pictures [2·n, 3, H, W] in 0…1 by the model at `path`: of the clean prompts, then of the triggered ones, in which a trigger
 * is a text like any other (a foreign letter in a word may well hide what the word means). Their noise is their own: a
 * distance to them is one between samples, as FID's to photographs is, and no comparison of twin with twin.
 */
export const drawReference = Effect.fnUntraced(function* (
  path: string,
  prompts: readonly PromptReadings[],
  settings: DrawSettings & { readonly noise: number; readonly onStep: (done: number) => Effect.Effect<void> },
) {
  const model = { bundle: yield* openModel({ model: path }) };
  const { keep } = yield* Kept;
  const latents = yield* keep(
    drawingName(model.bundle, prompts, READINGS, settings),
    Effect.gen(function* () {
      const texts = yield* embed(model, prompts.map((p) => ({ ...p, twins: [] })));
      return yield* drawReadings(model, texts, READINGS, settings);
    }),
  );
  const [, height, width] = latentDims(parseUnetConfig(model.bundle.parts.unet.config));
  return yield* Effect.scoped(Effect.flatMap(openDecoder(model.bundle, height, width), (decode) => decode(latents)));
});
