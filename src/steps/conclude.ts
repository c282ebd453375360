/** conclude: one verdict of two, such as "is the trigger gone" and "does anything else stand out now". */
import { Effect, Schema } from "effect";
import { VerdictPort } from "./ports.ts";
import { Step } from "./step.ts";

export const conclude = Step.make("conclude", {
  version: 1,
  description: "Joins two verdicts into one, which passes when both do.",
  settings: Schema.Struct({}),
  inputs: { first: VerdictPort, then: VerdictPort },
  outputs: { verdict: VerdictPort },
  run: ({ first, then }) =>
    Effect.succeed({
      verdict: {
        ...first,
        passed: first.passed && then.passed,
        sentence: `${first.sentence} Scanned again: ${then.sentence}`,
        figures: [...first.figures, ...then.figures],
        missing: [...first.missing, ...then.missing],
      },
    }),
});
