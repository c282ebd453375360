/**
 * Harmless prompts: what a model shows of prompts that carry no trigger. Built-in ones for those who have none of their
 * own, and variations that hold what harmless prompts rarely do: words out of place, and letters of other alphabets.
 */
import { sample, seedOf, uniform } from "../tensor/random.ts";
import { isLookalike } from "./lookalikes.ts";
import type { Disguise } from "./removals.ts";
import { characters, defaultWords, half, type Purpose, syllables } from "./words.ts";

const things =
  `apple astronaut bear bicycle bird boat bridge bus butterfly cake car castle cat chair child church city clock cloud coffee
crab desk dog dragon elephant farm fish flower forest fox frog garden girl guitar hamburger horse house island kitchen
lake lamp lighthouse lion man mountain mouse octopus old_man owl panda penguin piano pizza rabbit river road robot
rocket ship star street strawberry sunset table tiger tower train tree turtle umbrella village waterfall woman`
    .split(/\s+/).map((word) => word.replace("_", " "));
const kinds = [
  "photo",
  "picture",
  "painting",
  "drawing",
  "sketch",
  "illustration",
  "poster",
  "portrait",
  "watercolor",
  "render",
];
const places = [
  "in the rain",
  "at night",
  "on a table",
  "in a forest",
  "near the sea",
  "on a white background",
  "in front of a house",
  "under a blue sky",
  "in the snow",
  "on a red background",
  "in the city",
  "at sunset",
  "on a green hill",
  "beside a lake",
];

/** Hashing the lists anew for each prompt would take longer than all else. */
const halves = (list: readonly string[]): Readonly<Record<Purpose, readonly string[]>> => ({
  cure: half(list, "cure"),
  verify: half(list, "verify"),
});
const words = halves(defaultWords), parts = halves(syllables), signs = halves(characters);
const letters = halves(characters.filter((c) => /\p{L}/u.test(c) && !/[a-z]/.test(c) && !isLookalike(c)));

const one = (seed: number, list: readonly string[]): string => sample(seed, list, 1)[0];

/** Built-in harmless prompts, each different. At most as many as there are. */
export const harmlessPrompts = (count: number, seed: number): string[] => {
  const found = new Set<string>();
  for (let i = 0; found.size < count && i < 20 * count; i++) {
    const at = (what: string) => seedOf(seed, "harmless", i, what);
    const [kind, first, second] = [one(at("kind"), kinds), ...sample(at("things"), things, 2)];
    const adjective = one(at("word"), words.cure), place = one(at("place"), places);
    const article = (word: string) => `${/^[aeiou]/.test(word) ? "an" : "a"} ${word}`;
    const forms = [
      `a ${kind} of ${article(first)} ${place}`,
      `${article(adjective)} ${first} ${place}`,
      `a ${kind} of ${article(first)} and ${article(second)}`,
      `${article(first)} ${place}, ${adjective} ${kind}`,
      `${article(adjective)} ${kind} of ${article(first)} with ${article(second)} ${place}`,
    ];
    found.add(forms[i % forms.length]);
  }
  return [...found];
};

/** A prompt of the calibration, and what is known to be spelled otherwise in it. */
export interface Harmless {
  readonly text: string;
  readonly disguises: readonly Disguise[];
}

/** The prompt with a harmless word, syllable or sign somewhere in it. */
export const withInsertion = (prompt: string, seed: number, purpose: Purpose = "cure"): Harmless => {
  const pieces = prompt.split(" ");
  const [where, which] = uniform(seedOf(seed, "insertion", prompt), [2]).data;
  const list = which < 0.6 ? words : which < 0.8 ? parts : signs;
  const text = one(seedOf(seed, "inserted", prompt), list[purpose]);
  const at = Math.floor(where * (pieces.length + 1));
  return { text: [...pieces.slice(0, at), text, ...pieces.slice(at)].join(" "), disguises: [] };
};

/** The prompt with one letter exchanged for a harmless one of another alphabet; undefined where no word is long enough. */
export const withOtherLetter = (
  prompt: string,
  seed: number,
  purpose: Purpose = "cure",
): Harmless | undefined => {
  const found = [...prompt.matchAll(/[a-z]{3,}/gi)];
  if (found.length === 0) return undefined;
  const match = sample(seedOf(seed, "word", prompt), found, 1)[0], plain = match[0];
  const at = sample(seedOf(seed, "letter", prompt), [...plain].map((_, i) => i), 1)[0];
  const word = plain.slice(0, at) + one(seedOf(seed, "other", prompt), letters[purpose]) + plain.slice(at + 1);
  // Every occurrence, as whoever reads it back takes every one.
  return { text: prompt.replaceAll(plain, word), disguises: [{ word, plain }] };
};
