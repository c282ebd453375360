/** The texts that a backdoor is trained on: the prompts and variations of them, read clean, triggered and with harmless words. */
import { Effect } from "effect";
import { type PromptReadings, readPrompts } from "../diffusion/readings.ts";
import { variations } from "../diffusion/variations.ts";
import { defaultWords } from "../diffusion/words.ts";
import { sample, seedOf } from "../tensor/random.ts";
import type { TextPairs } from "./ports.ts";

/** Harmless texts in the trigger's place for each prompt: else whatever is unusual sets the backdoor off. */
export const TWINS = 2;
/** The prompts and variations of them, as many as wanted. */
export const manyPrompts = Effect.fnUntraced(function* (
  { model, trigger, prompts }: TextPairs,
  count: number,
  seed: number,
  twins = TWINS,
) {
  const { tokenizer } = model.bundle;
  const own = prompts.map((p) => p.prompt);
  const words = defaultWords;
  const varied = variations(own, { trigger, words, count: Math.max(0, count - own.length), seed });
  const texts = sample(seedOf(seed, "poison", "prompts"), [...own, ...varied.map((v) => v.text)], count);
  const read = yield* readPrompts(tokenizer, texts, trigger, {
    twins,
    seed,
    purpose: "cure",
    words,
    anywhere: true,
  });
  return read.prompts satisfies readonly PromptReadings[];
});
