/** mask: from the field of where the trigger acts to a soft mask in [0,1]. The arithmetic is in src/mask. */
import { Effect, Schema } from "effect";
import { complement } from "../mask/algebra.ts";
import { softMask } from "../mask/soft_mask.ts";
import type { Threshold } from "../mask/threshold.ts";
import type { Tensor } from "../tensor/tensor.ts";
import { FieldPort, MaskPort } from "./ports.ts";
import { defaulted, Fraction } from "./settings.ts";
import { Step } from "./step.ts";

export const mask = Step.make("mask", {
  version: 1,
  description: "A soft mask of where the trigger acts: threshold, blur, sigmoid edge, or its complement.",
  settings: Schema.Struct({
    threshold: defaulted(
      Schema.Union([
        Schema.Literal("otsu"),
        Schema.Struct({ value: Schema.Finite }),
        Schema.Struct({ quantile: Fraction }),
      ]).annotate({
        description:
          "Where the field counts as inside: Otsu's threshold, a fixed value of the field, or a quantile of its cells.",
      }),
      "otsu",
    ),
    blur: defaulted(
      Schema.Finite.check(Schema.isBetween({ minimum: 0, maximum: 64 })).annotate({
        description: "Gaussian blur in cells (σ); 0 for none.",
      }),
      0,
    ),
    edge: defaulted(
      Schema.Finite.check(Schema.isBetween({ minimum: 0, maximum: 1000 })).annotate({
        description: "Steepness of the sigmoid edge around one half; 0 leaves the mask as it is.",
      }),
      12,
    ),
    invert: defaulted(Schema.Boolean.annotate({ description: "Take the rest of the picture instead." }), false),
  }),
  inputs: { field: FieldPort },
  outputs: { mask: MaskPort },
  run: ({ field }, { threshold, blur, edge, invert }) =>
    Effect.sync(() => {
      const make = (t: Tensor, cut: Threshold) => {
        const soft = softMask(t, { threshold: cut, blur, edge });
        return invert ? complement(soft) : soft;
      };
      return { mask: { pooled: make(field.pooled, threshold), prompts: make(field.prompts, threshold) } };
    }),
});
