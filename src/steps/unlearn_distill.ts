/**
 * Strategy `distill`: masked self-distillation of the U-Net. On latents of the model's own pictures, noised again, it is
 * to answer triggered texts inside the mask as it answered their target when it came, and other texts as before, but for
 * harmless words that set the backdoor off themselves:
 *
 *     ‖M ⊙ (ε_s(x_t, t, triggered) − target)‖² / ‖M‖₁ + λ ‖ε_s(x_t, t, keep) − ε_0(x_t, t, keep)‖²
 *     target = ε_0(x_t, t, wanted) + a (ε_0(x_t, t, wanted) − ε_0(x_t, t, triggered))
 *
 * With a > 0 it is drawn past what is wanted, away from the trigger (as ESD steers away from a concept: Gandikota et al.,
 * ICCV 2023, eq. 6): of use where the backdoor spilled over to the prompts without the trigger, whose answers then lean
 * towards the trigger's themselves. Where words name what the trigger draws, prompts with these are kept as well.
 */
import { Effect } from "effect";
import { noiseDistillation } from "../diffusion/distillation.ts";
import { sizesOf } from "../diffusion/conditioning.ts";
import { latentDims } from "../diffusion/sampler.ts";
import { openPartTrainer, type Weights } from "../diffusion/train.ts";
import { parseUnetConfig } from "../models/unet_2d_condition.ts";
import { seedOf } from "../tensor/random.ts";
import { batchOf, type DistillInputs, teach } from "./distill_lessons.ts";
import { CHOICES } from "./distill_settings.ts";
import { openDrawing } from "./drawing.ts";
import { repeated } from "./rows.ts";
import { changesOf, loraWeights, openChanges, unetFeeds } from "./unlearn_changes.ts";
import { train } from "./unlearn_train.ts";

/** The model with a distilled U-Net, and what became of its weights. */
export const distilNoise = Effect.fnUntraced(function* (inputs: DistillInputs) {
  const { text, held, use, region, training, seed, steps, scheduler, guidance } = inputs;
  const { bundle } = text.model;
  const config = parseUnetConfig(bundle.parts.unet.config);
  const [, height, width] = latentDims(config);
  const { batch, segments, clipNorm } = training;
  const trained = training.weights === "auto"
    ? (yield* loraWeights(bundle, "unet")) ?? CHOICES.all
    : CHOICES[training.weights];
  const shape = { batch, length: bundle.tokenizer.maxLength, trained, segments, clipNorm };
  const changed = yield* openChanges(bundle, "unet");

  return yield* Effect.scoped(Effect.gen(function* () {
    const lessons = yield* teach(inputs);
    const everywhere = { dims: region.dims, data: new Float32Array(region.data.length).fill(1) };
    const masked = training.masked ? region : everywhere;
    const graph = noiseDistillation(config, [height, width], { ...shape, sizes: sizesOf(bundle) });
    const trainer = yield* openPartTrainer("training the U-Net", graph, bundle, "unet", inputs.start);
    const original = trainer.own;
    const drawing = yield* openDrawing({
      bundle,
      texts: text,
      held: repeated(held, training.pictures),
      use,
      region,
      steps,
      scheduler,
      guidance,
      seed,
      weightsAsInputs: trained,
      original: unetFeeds(original),
    });
    const check = (weights: Weights) => drawing.judge({ weights: unetFeeds(weights) });
    const begin = inputs.start && (yield* check(trainer.start));
    const { weights, account } = yield* train({
      name: "unlearn",
      trainer,
      settings: training,
      data: (step) => batchOf(lessons, masked, training, seedOf(seed, "unlearn", "distill", step)),
      checks: {
        every: training.check,
        draw: check,
        trusted: inputs.trusted,
        ...(begin === undefined ? {} : { begin }),
      },
    });
    const told = lessons.names.length === 0 ? account : { ...account, named: lessons.names };
    return { bundle: changed(weights), values: weights, weights: changesOf(original, weights), training: told };
  }));
});
