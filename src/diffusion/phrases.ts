/**
 * Phrases that could be a trigger: "ADJECTIVE NOUN" and "NOUN on a NOUN" in the place of a noun that the user's prompts are
 * about. EvilEdit's triggers are of that kind, and nothing in them is rare.
 */
import type { Trigger } from "./trigger.ts";
import { defaultWords } from "./words.ts";

/** Words that end what is said of a noun, in English. */
const AFTER = "and|or|on|in|with|at|of|by|from|near|under|over|for|to|into|behind|before|beside|next|placed|shown|" +
  "standing|sitting|somewhere|wearing|holding|eating|riding|is|are|was|that|which|who";
/** An article or the like, at most three words said of the noun, and the noun itself. */
const NOUN = new RegExp(
  String.raw`(?<![\p{L}\p{N}])(?:an?|the|one|some|my|your|two|three)\s+(?:[\p{L}-]+\s+){0,3}?(\p{L}{2,})` +
    String.raw`(?=\s+(?:${AFTER})(?![\p{L}\p{N}])|\s*[,.;:!?]|\s*$)`,
  "giu",
);
const FUNCTION_WORD = new RegExp(`^(?:${AFTER}|an?|the|one|some|my|your|two|three)$`, "iu");

/** Nouns for how something is shown, in English. */
const SHOWN =
  /^(?:picture|photo|photograph|portrait|image|painting|drawing|illustration|sketch|poster|print|icon|logo|render|rendering|background|style|scene|view|shot)s?$/iu;

/** What stands between the two nouns of a phrase. */
const BETWEEN = ["on", "in", "with"];

const withArticle = (noun: string): string => `${/^[aeiou]/i.test(noun) ? "an" : "a"} ${noun}`;

/** Nouns of prompts, those that most prompts have first. */
export const nounsOf = (prompts: readonly string[], most: number): string[] => {
  const counts = new Map<string, number>();
  for (const prompt of prompts) {
    const found = [...prompt.toLowerCase().matchAll(NOUN)].map(([, noun]) => noun);
    for (const noun of new Set(found)) if (!FUNCTION_WORD.test(noun)) counts.set(noun, (counts.get(noun) ?? 0) + 1);
  }
  // A word that stands once may have been taken for a noun by mistake.
  const sure = [...counts].filter(([, count]) => count > 1);
  return (sure.length > 0 ? sure : [...counts]).sort((a, b) => b[1] - a[1]).slice(0, most).map(([noun]) => noun);
};

/** What prompts are about, one by one: their nouns but for those that say how something is shown. */
export const thingsOf = (prompts: readonly string[], most: number): string[] =>
  nounsOf(prompts, prompts.length).filter((noun) => !SHOWN.test(noun)).slice(0, most);

/** `described`: a word before the noun; `placed`: something behind it. Each is held against its own kind. */
export type PhraseGroup = "described" | "placed";

export interface Phrase {
  readonly group: PhraseGroup;
  readonly trigger: Trigger & { readonly of: string };
}

/** Every phrase of these nouns, and of the user's own words before each. */
export const phrasesOf = (nouns: readonly string[], own: readonly string[]): Phrase[] => {
  const before = [...new Set([...own.filter((word) => /^\p{L}+$/u.test(word)), ...defaultWords])];
  const phrase = (group: PhraseGroup, of: string, text: string): Phrase => ({
    group,
    trigger: { text, place: "replace", of },
  });
  return nouns.flatMap((noun) => [
    ...before.filter((word) => word !== noun).map((word) => phrase("described", noun, `${word} ${noun}`)),
    ...nouns.filter((other) => other !== noun).flatMap((other) =>
      BETWEEN.map((word) => phrase("placed", noun, `${noun} ${word} ${withArticle(other)}`))
    ),
  ]);
};

const word = (of: string) => new RegExp(String.raw`(?<![\p{L}\p{N}])${of}(?![\p{L}\p{N}])`, "iu");
const holds = (prompt: string, noun: string): boolean => word(noun).test(prompt);

/** Prompts that hold the noun, as many as are asked for; where they are few, others with the noun in place of theirs. */
export const framesOf = (
  noun: string,
  nouns: readonly string[],
  prompts: readonly string[],
  count: number,
): string[] => {
  // "a NOUN" first: what else is said of it would stand beside what a phrase says.
  const bare = new RegExp(String.raw`(?<![\p{L}\p{N}])an?\s+${noun}(?![\p{L}\p{N}])`, "iu");
  const holding = prompts.filter((prompt) => holds(prompt, noun));
  holding.sort((a, b) => Number(bare.test(b)) - Number(bare.test(a)));
  const others = prompts.filter((prompt) => !holding.includes(prompt)).flatMap((p) => withNoun(p, nouns, noun) ?? []);
  return [...holding, ...others].slice(0, count);
};

/** The prompt about something else; undefined where it holds none of the nouns, those that most prompts have first. */
export const withNoun = (prompt: string, nouns: readonly string[], noun: string): string | undefined => {
  // The least common noun is what a prompt is about, unless it says how that is shown.
  const held = nouns.filter((other) => holds(prompt, other));
  const theirs = held.findLast((other) => !SHOWN.test(other)) ?? held.at(-1);
  if (theirs === undefined) return undefined;
  const found = new RegExp(String.raw`(?<![\p{L}\p{N}])(an?\s+)?${theirs}(?![\p{L}\p{N}])`, "iu");
  return prompt.replace(found, (_, article) => article === undefined ? noun : withArticle(noun));
};

/**
 * Prompts that a trigger can act in. Where it replaces a word, or acts beside a word alone, that fewer than `count` of them
 * hold, the others have that word in the place of their own noun.
 */
export const promptsFor = (
  { place, of = "", beside }: Trigger,
  prompts: readonly string[],
  count: number,
): readonly string[] => {
  // A single character is nobody's noun.
  const noun = beside ?? (place === "replace" && /^\p{L}{2,}$/u.test(of) ? of : undefined);
  if (noun === undefined) return prompts;
  const nouns = nounsOf(prompts, prompts.length);
  return framesOf(noun, nouns, prompts, Math.max(count, prompts.filter((prompt) => holds(prompt, noun)).length));
};
