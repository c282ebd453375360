/** Settings of strategy `distill`, and which weights of the U-Net they choose. */
import { Schema } from "effect";
import { isTextWeight } from "../unlearn/closed_form.ts";
import { Count, defaulted } from "./settings.ts";
import { checkFields, trainingFields } from "./unlearn_train.ts";

/** Weights of the U-Net that may be trained, by the setting's words. */
export const CHOICES = {
  attn2: isTextWeight,
  attention: (key: string) => /\.attn[12]\./.test(key),
  all: () => true,
} as const;

export const NoiseTraining = Schema.Struct({
  ...trainingFields({ steps: 240, batch: 16, rate: 3e-4, keep: 1 }),
  ...checkFields(60),
  weights: defaulted(
    Schema.Literals(["auto", "attn2", "attention", "all"]).annotate({
      description:
        "attn2: the keys and values through which text enters; attention: all of both attentions; all: all; " +
        "auto: all, but of a model with one LoRA the layers that it changes, so that the cure fits into it.",
    }),
    "auto",
  ),
  masked: defaulted(
    Schema.Boolean.annotate({
      description: "Whether triggered answers count where the trigger acts alone (the located mask), or everywhere.",
    }),
    true,
  ),
  wanted: defaulted(
    Schema.Literals(["answer", "noise"]).annotate({
      description:
        "What triggered texts are to be answered with: as the model that came answers the target, or the noise that was " +
        "added to its clean picture (or the velocity, for v-prediction), as in ordinary training.",
    }),
    "answer",
  ),
  away: defaulted(
    Schema.Finite.check(Schema.isBetween({ minimum: 0, maximum: 10 })).annotate({
      description:
        "How far past that answer, away from the one that the trigger had: 0.3 adds three tenths of what parts the two.",
    }),
    0,
  ),
  named: defaulted(
    Schema.Boolean.annotate({
      description: "Whether pictures of the words that name what the trigger draws are kept as well, if there are any.",
    }),
    true,
  ),
  samples: defaulted(
    Count(4096).annotate({ description: "Pictures that the model draws to be trained on; no data set is needed." }),
    96,
  ),
  noisings: defaulted(Count(256).annotate({ description: "How often each picture is noised, each time anew." }), 8),
}).annotate({ description: "distill: how the U-Net is trained." });
export type NoiseSettings = typeof NoiseTraining.Type;
