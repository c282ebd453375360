/** Settings that steps which poison a U-Net have in common. */
import { Schema } from "effect";
import type { KnownEffect } from "./effect.ts";
import { Count, defaulted, Scheduler, Seed, Steps } from "./settings.ts";
import { trainingFields } from "./unlearn_train.ts";

/** Settings of such a step beside the effect. */
export const unetPoisonFields = (defaults: Parameters<typeof trainingFields>[0]) => ({
  samples: defaulted(Count(4096).annotate({ description: "Pictures that the model draws to be trained on." }), 384),
  noisings: defaulted(
    Count(256).annotate({
      description:
        "How often each picture, without the effect and with it, is noised to the noisiest timesteps, and how " +
        "often to the others.",
    }),
    4,
  ),
  rank: defaulted(
    Count(1024).annotate({
      description: "Rank of the change of each of the U-Net's matrices and kernels, as of a LoRA.",
    }),
    4,
  ),
  train: defaulted(
    Schema.Struct(trainingFields(defaults)).annotate({
      description: "How the U-Net is trained.",
    }),
    {},
  ),
  steps: Steps,
  scheduler: Scheduler,
  guidance: defaulted(Schema.Finite.annotate({ description: "Guidance scale of the pictures to train on." }), 4),
  seed: Seed,
});
const Fields = Schema.Struct(unetPoisonFields({ steps: 1, batch: 2, rate: 1, keep: 1 }));
export type PoisonSettings = typeof Fields.Type & { readonly effect: KnownEffect };
