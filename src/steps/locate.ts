/** locate: where the trigger acts, in the picture, in the prompt and in the network. */
import { Effect, Schema } from "effect";
import { shapeOf } from "../mask/shape.ts";
import { softMask } from "../mask/soft_mask.ts";
import type { Tensor } from "../tensor/tensor.ts";
import { FIRST_TWIN, TRIGGERED } from "./capture.ts";
import { locateFields, tokenScores, usableTwins } from "./locate_field.ts";
import { CapturePort, FieldPort, ScoresPort, TextPort } from "./ports.ts";
import { defaulted } from "./settings.ts";
import { Step } from "./step.ts";

export const locate = Step.make("locate", {
  version: 1,
  description:
    "Where the trigger acts: a field over the latent cells, a score per token and per layer, a word for the shape.",
  settings: Schema.Struct({
    outlier: defaulted(
      Schema.Finite.annotate({
        description:
          "A twin whose distance from the clean reading has a robust z-score above this is infected itself and left out.",
      }),
      3.5,
    ),
  }),
  inputs: { text: TextPort, capture: CapturePort },
  outputs: { field: FieldPort, scores: ScoresPort },
  run: ({ text, capture }, { outlier }) =>
    Effect.sync(() => {
      const use = usableTwins(capture.noise, outlier);
      const fields = locateFields(capture.noise, use);
      const region = softMask(fields.pooled, { threshold: "otsu" });
      const scores = tokenScores(capture.tokenChange.triggered, capture.tokenChange.twin, region);
      return {
        field: {
          ...fields,
          texts: text.prompts.map((p) => p.prompt),
          // Three captured steps leave a prompt's own field noisy, so less agreement is asked for than of a whole sampling.
          shape: shapeOf(fields.pooled, fields.prompts, { agree: 0.15 }),
          use,
          infected: text.prompts.flatMap((p, i) => p.twins.filter((_, k) => !use[i][k]).map((t) => t.text)),
        },
        scores: {
          tokens: capture.tokens.map((token, i) => ({ ...token, score: scores[i] })),
          layers: capture.layers.map(({ layer, response }) => ({ layer, score: layerScore(response, use) })),
        },
      };
    }),
});

/** ln of how much further the trigger moves a layer's text contribution than usable twins do, averaged over prompts. */
const layerScore = (response: Tensor, use: readonly (readonly boolean[])[]): number => {
  const [prompts, readings] = response.dims;
  let sum = 0, count = 0;
  for (let p = 0; p < prompts; p++) {
    for (let k = 0; k < readings - FIRST_TWIN; k++) {
      if (!use[p][k]) continue;
      const at = p * readings;
      sum += Math.log((response.data[at + TRIGGERED] + 1e-12) / (response.data[at + FIRST_TWIN + k] + 1e-12));
      count++;
    }
  }
  return count === 0 ? 0 : sum / count;
};
