/** `--lora FILE[:WEIGHT]` as the `--set` that says the same. */
import { resolve } from "node:path";
import process from "node:process";

/** Overrides for the parameter `lora`: none where no LoRA was given. Paths start from the current folder. */
export const loraOverrides = (given: readonly string[]): string[] => {
  if (given.length === 0) return [];
  const entries = given.map((text) => {
    const found = /^(.+):([+-]?(?:\d+\.?\d*|\.\d+))$/.exec(text);
    const file = resolve(process.cwd(), found?.[1] ?? text);
    return found === null ? file : { file, weight: Number(found[2]) };
  });
  return [`lora=${JSON.stringify(entries)}`];
};
