/**
 * Variations of prompts, for fitting text embeddings. Two dozen prompts say little about the words that people write: a map
 * that is fitted to them alone leaves more of the trigger in new prompts and moves those further.
 */
import { seedOf, uniform } from "../tensor/random.ts";
import type { Trigger } from "./trigger.ts";
import { characters, half, syllables } from "./words.ts";

export interface Variation {
  readonly text: string;
  /** Which of the prompts it was made of: one, or the two that it joins. */
  readonly sources: readonly number[];
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
/** Share of the variations that are two prompts joined at a word of both. */
const JOINED = 0.5;

/**
 * Up to `count` distinct texts that are none of the prompts, and none holds the trigger. Half of them read as people write:
 * the beginning of one prompt and the end of another that has the same word there, some with harmless text put in. The
 * others are further away: words exchanged for words of other prompts or harmless ones, harmless text put in, an end cut
 * off. (Fitted to the latter alone, a cure of EvilEdit on mini-SD moved clean pictures to a cosine of 0.84.)
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
  const places = new Map<string, { readonly prompt: number; readonly at: number }[]>();
  split.forEach((words, prompt) =>
    words.forEach((word, at) => places.set(word, [...places.get(word) ?? [], { prompt, at }]))
  );
  const known = new Set(prompts);
  const out: Variation[] = [];
  for (let i = 0; out.length < options.count && i < MAX_TRIES * options.count; i++) {
    const source = i % prompts.length;
    if (split[source].length === 0) continue;
    const numbers = uniform(seedOf(options.seed, "variation", i), [NUMBERS]).data.values();
    const random = () => numbers.next().value ?? 0;
    const pick = <A>(items: readonly A[]): A => items[Math.floor(random() * items.length)];
    const put = (words: readonly string[]) =>
      words.toSpliced(Math.floor(random() * (words.length + 1)), 0, pick(pick(inserted)));
    const join = () => {
      const at = Math.floor(random() * split[source].length);
      const other = pick(places.get(split[source][at]) ?? []);
      const words = [...split[source].slice(0, at), ...split[other.prompt].slice(other.at)];
      return { words: random() < 0.3 ? put(words) : words, sources: [...new Set([source, other.prompt])] };
    };
    const exchange = () => {
      let words = [...split[source]];
      for (let swaps = Math.floor(random() * 4); swaps > 0; swaps--) {
        words[Math.floor(random() * words.length)] = pick(random() < 0.7 ? common : harmless);
      }
      if (random() < 0.5) words = put(words);
      if (random() < 0.3 && words.length > 4) {
        const at = 2 + Math.floor(random() * (words.length - 3));
        words = random() < 0.5 ? words.slice(0, at) : words.slice(at - 1);
      }
      return { words, sources: [source] };
    };
    const { words, sources } = random() < JOINED ? join() : exchange();
    const text = words.join(" ");
    if (known.has(text) || holds(text) || (of !== undefined && !text.toLowerCase().includes(of))) continue;
    known.add(text);
    out.push({ text, sources });
  }
  return out;
};
