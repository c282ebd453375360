/** What a cure has not seen, so that it may be judged by it. */
import type { TextPairs } from "./ports.ts";

/**
 * Lines that the cure had in no form: not as a prompt, not as one that lent its words, not as a variation. (Short prompts
 * of few words are soon met among the variations.)
 */
export const freshPrompts = (lines: readonly string[], { prompts, spare, variations, model }: TextPairs): string[] => {
  const seen = new Set([...prompts.map((p) => p.prompt), ...spare]);
  const varied = new Set(variations.map(({ readings: [clean] }) => clean.join()));
  return lines.filter((line) => !seen.has(line) && !varied.has(model.bundle.tokenizer.encode(line).ids.join()));
};
