/**
 * What can be taken out of a prompt to see what it does there: each word, with all of its occurrences, and in a word that
 * is spelled with look-alike letters those letters, which become plain ones.
 */
import { sample, seedOf } from "../tensor/random.ts";
import { foldLookalikes, hasLookalike, isLookalike } from "./lookalikes.ts";
import type { Token, Tokenizer } from "./tokenizer.ts";
import { characters } from "./words.ts";

/** A part of a prompt, and the prompt without it. */
export interface Removal {
  /** `word`: tokens that are taken out; `letters`: a word whose look-alike letters become plain ones. */
  readonly kind: "word" | "letters";
  /** What is taken out, or the word as it is spelled. */
  readonly text: string;
  /** Indices of its tokens among the prompt's content. */
  readonly tokens: readonly number[];
  /** Content ids of the prompt without it. */
  readonly rest: readonly number[];
  /** Of letters: content ids with harmless letters in the place of those that look alike. */
  readonly twins: readonly (readonly number[])[];
}

/** A prompt as the text encoder reads it, with everything that can be taken out of it. */
export interface ReadPrompt {
  readonly text: string;
  /** Its tokens, as many as fit. */
  readonly content: readonly Token[];
  /** Tokens that did not fit and are not read. */
  readonly cut: number;
  readonly removals: readonly Removal[];
}

/** A word that is spelled with look-alike letters, and the plain word that it is read as. */
export interface Disguise {
  readonly word: string;
  readonly plain: string;
}

/** Harmless spellings that a disguised word is held against. */
const TWINS = 6;

const ids = (tokens: readonly Token[]): number[] => tokens.map(({ id }) => id);
const ASCII = /^[\x20-\x7e]*$/;

/** Words of a prompt as index ranges of its tokens, those with the same tokens together. */
const wordsOf = (content: readonly Token[]): number[][] => {
  const words = [...Map.groupBy(content.keys(), (i) => content[i].word).values()];
  return [...Map.groupBy(words, (at) => at.map((i) => content[i].id).join()).values()].map((same) => same.flat());
};

/** The words of a text that are spelled with look-alikes and read as plain ones, with what they look like. */
const disguised = (text: string): Disguise[] => {
  const words = new Set(text.normalize("NFC").match(/[\p{L}\p{N}\p{M}]+/gu) ?? []);
  return [...words].filter(hasLookalike).map((word) => ({ word, plain: foldLookalikes(word) })).filter(({ plain }) =>
    // A word of another alphabet is no disguise: only some of its letters look like plain ones.
    ASCII.test(plain)
  );
};

const bytes = (text: string): number => new TextEncoder().encode(text).length;

/** The word with harmless letters of as many bytes where its spelling parts from the plain one. */
const spellings = ({ word, plain }: Disguise, seed: number): string[] => {
  const [from, to] = [[...word.normalize("NFC")], [...plain]];
  const changed = from.length === to.length ? (i: number) => from[i] !== to[i] : (i: number) => isLookalike(from[i]);
  return Array.from({ length: TWINS }, (_, k) =>
    from.map((c, i) => {
      if (!changed(i)) return c;
      const same = characters.filter((x) => /\p{L}/u.test(x) && bytes(x) === bytes(c) && x !== c && !isLookalike(x));
      return sample(seedOf(seed, "spelling", word, k, i), same, 1)[0] ?? c;
    }).join(""));
};

/** A run of tokens [begin, end) in which two sequences differ. */
const differs = (a: readonly number[], b: readonly number[]): readonly [number, number] => {
  let begin = 0;
  while (begin < Math.min(a.length, b.length) && a[begin] === b[begin]) begin++;
  let end = 0;
  while (end < Math.min(a.length, b.length) - begin && a.at(-1 - end) === b.at(-1 - end)) end++;
  return [begin, a.length - end];
};

/**
 * Reads a prompt, as much of it as fits, and everything that can be taken out of it.
 * @param disguises words that are known to be spelled with other letters; by default those that look like plain ones
 * @throws RangeError beyond MAX_TEXT
 */
export const readRemovals = (
  tokenizer: Tokenizer,
  text: string,
  disguises: readonly Disguise[] = disguised(text),
): ReadPrompt => {
  const room = tokenizer.maxLength - 2;
  const all = tokenizer.tokens(text);
  const content = all.slice(0, room);
  const own = ids(content);
  const words = wordsOf(content).map((tokens): Removal => {
    const gone = new Set(tokens);
    return {
      kind: "word",
      text: content.filter((t, i) => gone.has(i) && t.word === content[tokens[0]].word).map((t) => t.text).join(""),
      tokens,
      rest: own.filter((_, i) => !gone.has(i)),
      twins: [],
    };
  });
  const spelled = text.normalize("NFC");
  const idsOf = (other: string) => ids(tokenizer.tokens(other)).slice(0, room);
  const letters = disguises.flatMap((disguise): Removal[] => {
    const rest = idsOf(spelled.replaceAll(disguise.word, disguise.plain));
    const [begin, end] = differs(own, rest);
    if (begin >= end) return [];
    const twins = spellings(disguise, seedOf(0, text)).map((word) => idsOf(spelled.replaceAll(disguise.word, word)));
    const tokens = Array.from({ length: end - begin }, (_, i) => begin + i);
    return [{ kind: "letters", text: disguise.word, tokens, rest, twins }];
  });
  return { text, content, cut: all.length - content.length, removals: [...letters, ...words] };
};
