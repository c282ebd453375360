/**
 * Twins: the prompt with harmless text in the trigger's place, token for token as long. Comparing with them, and not with
 * the clean prompt, shows what the trigger does beyond what any inserted text does.
 */
import { seedOf, shuffle } from "../tensor/random.ts";
import { fill, isCharacter, type Site, type Trigger } from "./trigger.ts";
import type { Tokenizer } from "./tokenizer.ts";
import { characters, half, type Purpose, syllables } from "./words.ts";

export interface TwinOptions {
  /** Harmless words to choose from. */
  readonly words: readonly string[];
  readonly purpose: Purpose;
  readonly seed: number;
}

/** Draws texts for a site until it has `count` that fit; fewer when too few exist. */
export type Drawer = (site: Site, prompt: string, count: number) => string[];

/** A text that stands where the trigger stood: what the trigger keeps of the original, and filler for the rest. */
interface Frame {
  readonly before: string;
  readonly after: string;
}

/** "beautiful dog" for "dog" keeps the dog; an inserted text keeps white space between itself and the prompt. */
const frameOf = (trigger: Trigger): Frame => {
  if (trigger.place === "prefix") return { before: "", after: /\s*$/u.exec(trigger.text)?.[0] || " " };
  if (trigger.place === "suffix") return { before: /^\s*/u.exec(trigger.text)?.[0] || " ", after: "" };
  const of = trigger.of ?? "";
  const at = trigger.text.toLowerCase().indexOf(of.toLowerCase());
  if (at < 0) return { before: "", after: "" };
  const [before, after] = [trigger.text.slice(0, at), trigger.text.slice(at + of.length)];
  return before.trim() !== ""
    ? { before: "", after: ` ${of}` }
    : after.trim() !== ""
    ? { before: `${of} `, after: "" }
    : { before: "", after: "" };
};

const sameClass = (a: string, b: string): boolean =>
  /\p{L}/u.test(a) === /\p{L}/u.test(b) && new TextEncoder().encode(a).length === new TextEncoder().encode(b).length;

/** Candidates for one prompt, in an order that the seed decides. It ends when there are no more. */
type Candidates = (seed: number) => Generator<string>;

/** Characters for characters: as many bytes each, letters for letters. What the trigger keeps of the original stays. */
const byCharacters = (trigger: Trigger, options: TwinOptions): Candidates => {
  const pool = half(characters, options.purpose).filter((c) => !trigger.text.includes(c) && c !== trigger.of);
  const choices = Array.from(trigger.text, (c) => c === trigger.of ? [c] : pool.filter((p) => sameClass(p, c)));
  return function* (seed) {
    const orders = choices.map((list, i) => shuffle(seedOf(seed, "character", i), list));
    const most = Math.min(MAX_TRIES, Math.max(...orders.map((list) => list.length)));
    if (orders.some((list) => list.length === 0)) return;
    for (let i = 0; i < most; i++) yield orders.map((list) => list[i % list.length]).join("");
  };
};

/** Words for words: together as many tokens as the trigger. Single ones come first, made-up ones last. */
const byWords = (trigger: Trigger, tokenizer: Tokenizer, options: TwinOptions): Candidates => {
  const frame = frameOf(trigger);
  const length = (text: string) => tokenizer.tokens(text).length;
  const need = length(trigger.text) - length(frame.before + frame.after);
  const own = new Set(trigger.text.toLowerCase().split(/\s+/));
  const sized = (list: readonly string[]): readonly Sized[] =>
    half(list, options.purpose).filter((w) => !own.has(w.toLowerCase())).map((text) => ({ text, tokens: length(text) }))
      .filter((w) => w.tokens > 0 && w.tokens <= need);
  const words = sized(options.words);
  const parts = sized(syllables);
  return function* (seed) {
    for (const [name, pool] of [["words", words], ["parts", [...words, ...parts]]] as const) {
      for (const word of shuffle(seedOf(seed, name), pool)) {
        if (word.tokens === need) yield frame.before + word.text + frame.after;
      }
      for (let i = 0; need > 1 && i < MAX_TRIES; i++) {
        const text = compose(shuffle(seedOf(seed, name, i), pool), need);
        // One word alone has been tried already: here only several together are news.
        if (text?.includes(" ")) yield frame.before + text + frame.after;
      }
    }
  };
};

interface Sized {
  readonly text: string;
  readonly tokens: number;
}

/** The first words of a list that together have as many tokens as are needed. */
const compose = (pool: readonly Sized[], need: number): string | undefined => {
  const chosen: string[] = [];
  let left = need;
  for (const { text, tokens } of pool) {
    if (tokens > left) continue;
    chosen.push(text);
    if ((left -= tokens) === 0) return chosen.join(" ");
  }
  return undefined;
};

/** Candidates that are tried before a prompt is given up. */
const MAX_TRIES = 400;

/** A drawer of twins for a trigger. What it draws depends on the seed and the prompt's text alone. */
export const twinDrawer = (trigger: Trigger, tokenizer: Tokenizer, options: TwinOptions): Drawer => {
  const byCharacter = trigger.place === "replace" && isCharacter(trigger.of ?? "");
  const candidates = byCharacter ? byCharacters(trigger, options) : byWords(trigger, tokenizer, options);
  const idsOf = (text: string) => tokenizer.tokens(text).map((t) => t.id);
  return (site, prompt, count) => {
    const triggered = idsOf(fill(site, trigger.text)).join();
    const clean = idsOf(prompt).join();
    const [head, tail] = [idsOf(site.head), idsOf(site.tail)];
    const length = triggered.split(",").length;
    const inPrompt = new Set(prompt.toLowerCase().match(/\p{L}+/gu) ?? []);
    const found = new Set<string>();
    if (count === 0) return [];
    for (const text of candidates(seedOf(options.seed, "twins", options.purpose, prompt))) {
      const fresh = text.replace(trigger.of ?? "", "").toLowerCase().match(/\p{L}{3,}/gu) ?? [];
      if (fresh.some((w) => inPrompt.has(w))) continue;
      const twin = fill(site, text);
      const ids = idsOf(twin);
      const fits = ids.length === length && head.every((id, i) => ids[i] === id) &&
        tail.every((id, i) => ids[length - tail.length + i] === id) && ids.join() !== triggered && ids.join() !== clean;
      if (fits && found.add(twin).size === count) break;
    }
    return [...found];
  };
};
