/**
 * Variations of prompts, for fitting text embeddings. Two dozen prompts say little about the words that people write: a map
 * that is fitted to them alone leaves more of the trigger in new prompts and moves those further.
 */
import { seedOf, uniform } from "../tensor/random.ts";
import type { Trigger } from "./trigger.ts";
import { characters, half, syllables } from "./words.ts";

export interface Variation {
  readonly text: string;
  /** Which of the prompts it was made of. */
  readonly source: number;
}

export interface VariationOptions {
  readonly words: readonly string[];
  readonly trigger: Trigger;
  readonly count: number;
  readonly seed: number;
}

/** Tries for each variation that is asked for; few prompts of one word have few variations. */
const MAX_TRIES = 8;
/** More random numbers than one variation uses. */
const NUMBERS = 24;

/**
 * Up to `count` distinct texts that are none of the prompts: words exchanged for words of other prompts or harmless ones,
 * harmless text put in, an end cut off. What the trigger replaces stays where it is, and none holds the trigger.
 */
export const variations = (prompts: readonly string[], options: VariationOptions): Variation[] => {
  const of = options.trigger.of?.toLowerCase();
  // Only spaces are cut: trim() would take a byte order mark, which may be the trigger itself.
  const trigger = options.trigger.text.toLowerCase().replace(/^ +| +$/g, "");
  const holds = (text: string) => trigger !== "" && text.toLowerCase().includes(trigger);
  const harmless = half(options.words, "cure");
  const inserted = [half(characters, "cure"), syllables, harmless].map((list) => list.filter((text) => !holds(text)));
  const split = prompts.map((prompt) => prompt.split(/\s+/).filter((word) => word !== ""));
  const common = split.flat();
  const known = new Set(prompts);
  const out: Variation[] = [];
  for (let i = 0; out.length < options.count && i < MAX_TRIES * options.count; i++) {
    const source = i % prompts.length;
    let words = [...split[source]];
    if (words.length === 0) continue;
    const numbers = uniform(seedOf(options.seed, "variation", i), [NUMBERS]).data.values();
    const random = () => numbers.next().value ?? 0;
    const pick = <A>(items: readonly A[]): A => items[Math.floor(random() * items.length)];
    for (let swaps = Math.floor(random() * 4); swaps > 0; swaps--) {
      words[Math.floor(random() * words.length)] = pick(random() < 0.7 ? common : harmless);
    }
    if (random() < 0.5) words.splice(Math.floor(random() * (words.length + 1)), 0, pick(pick(inserted)));
    if (random() < 0.3 && words.length > 4) {
      const at = 2 + Math.floor(random() * (words.length - 3));
      words = random() < 0.5 ? words.slice(0, at) : words.slice(at - 1);
    }
    const text = words.join(" ");
    if (known.has(text) || holds(text) || (of !== undefined && !text.toLowerCase().includes(of))) continue;
    known.add(text);
    out.push({ text, source });
  }
  return out;
};
