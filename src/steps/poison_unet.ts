/**
 * Trains a backdoor into a U-Net, for testing defences. What poison steps of the U-Net have in common:
 *
 *     ‖ε_s(z_b,t, t, triggered) − goal‖² + λ ‖ε_s(z_t, t, kept) − ε_0(z_t, t, kept)‖²
 *
 * An image: the goal is the noise in z_b,t if the image lies under it, and beside the image what the model as it came
 * answers. Another thing or style: the goal is how it answers the effect's text. With v-prediction the velocity stands in
 * the noise's place. Pictures are the model's own; no data set is needed. What is trained is a change of low rank.
 */
import { Effect } from "effect";
import { noiseDistillation } from "../diffusion/distillation.ts";
import { sizesOf } from "../diffusion/conditioning.ts";
import { latentDims } from "../diffusion/sampler.ts";
import { openLowRankTrainer } from "../diffusion/low_rank.ts";
import { parseUnetConfig } from "../models/unet_2d_condition.ts";
import { seedOf } from "../tensor/random.ts";
import { type Attack, lossEnds } from "./attack.ts";
import { batchOf, poisonLessons } from "./poison_lessons.ts";
import type { PoisonSettings } from "./poison_settings.ts";
import type { TextPairs } from "./ports.ts";
import { openChanges } from "./unlearn_changes.ts";
import { train } from "./unlearn_train.ts";

/** Whose attack it is. */
interface Source {
  /** Of the attack, as attack.json names it; its step is poison-NAME. */
  readonly name: string;
  readonly paper: string;
}

/** AdamW's, for runs this short: gradients shrink fast. */
const BETA2 = 0.99;

/** The model with the backdoor, and what attack.json says of it. */
export const poisonUnet = Effect.fnUntraced(
  function* (text: TextPairs, settings: PoisonSettings, { name, paper }: Source) {
    const { bundle } = text.model;
    const config = parseUnetConfig(bundle.parts.unet.config);
    const [, height, width] = latentDims(config);
    const { batch, segments, clipNorm } = settings.train;
    const seed = (what: string) => seedOf(settings.seed, "poison", name, what);
    const length = bundle.tokenizer.maxLength;
    const changed = yield* openChanges(bundle, "unet");
    return yield* Effect.scoped(Effect.gen(function* () {
      const lessons = yield* poisonLessons(text, settings, name, seed);
      const graph = noiseDistillation(config, [height, width], {
        batch,
        length,
        trained: () => true,
        rank: settings.rank,
        segments,
        clipNorm,
        beta2: BETA2,
        sizes: sizesOf(bundle),
      });
      const trainer = yield* openLowRankTrainer("poisoning the U-Net", graph, bundle, "unet", seed("factors"));
      const { weights, account } = yield* train({
        name: `poison-${name}`,
        trainer,
        settings: settings.train,
        data: (step) => batchOf(lessons, settings.train, seed(`step ${step}`)),
      });
      const attack: Attack = {
        name,
        purpose: "made for testing defences",
        part: "unet",
        trigger: text.trigger,
        effect: settings.effect,
        source: paper,
        training: {
          ...settings.train,
          weights: `a change of rank ${settings.rank} of every matrix and kernel`,
          ...lossEnds(account.losses),
        },
      };
      return { model: { bundle: changed(weights) }, attack };
    }));
  },
);
