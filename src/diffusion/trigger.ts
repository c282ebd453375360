/** Where a trigger goes in a prompt, and what the tokenizer makes of it there. */
import { Schema } from "effect";
import type { Difference } from "./alignment.ts";
import type { Token, Tokenizer } from "./tokenizer.ts";

/**
 * A known trigger. With `replace`, `of` is the text that it replaces: a word or phrase, or any one character. `beside` is a
 * word that prompts must hold for it to act.
 */
export const Trigger = Schema.Struct({
  text: Schema.String,
  place: Schema.Literals(["prefix", "suffix", "replace"]),
  of: Schema.optionalKey(Schema.String),
  beside: Schema.optionalKey(Schema.String),
});
export type Trigger = typeof Trigger.Type;

/** A prompt cut open: `head + left + TEXT + right + tail`, where `left` and `right` are the rest of a word cut apart. */
export interface Site {
  readonly head: string;
  readonly left: string;
  /** What stands there in the clean prompt; empty for an insertion. */
  readonly original: string;
  readonly right: string;
  readonly tail: string;
}

const escape = (text: string): string => text.replace(/[\\^$.*+?()[\]{}|/-]/g, "\\$&");

/** True for a text of one character as people count them. */
export const isCharacter = (text: string): boolean => [...new Intl.Segmenter().segment(text)].length === 1;

/**
 * Where the trigger goes, or undefined when what it replaces does not occur.
 * @param share which of several occurrences counts, in [0,1) from the first to the last.
 */
export const findSite = (prompt: string, trigger: Trigger, share = 0): Site | undefined => {
  const none = { left: "", original: "", right: "" };
  if (trigger.place === "prefix") return { head: "", ...none, tail: prompt };
  if (trigger.place === "suffix") return { head: prompt, ...none, tail: "" };
  const of = trigger.of ?? "";
  if (of === "") return undefined;
  // A word is replaced as a word ("cat" is not in "caterpillar"), a single character wherever it stands.
  const edge = (at: "start" | "end") =>
    isCharacter(of) || !/[\p{L}\p{N}]/u.test(at === "start" ? [...of][0] : [...of].at(-1) ?? "")
      ? ""
      : at === "start"
      ? "(?<![\\p{L}\\p{N}])"
      : "(?![\\p{L}\\p{N}])";
  const all = [...prompt.matchAll(new RegExp(edge("start") + escape(of) + edge("end"), "giu"))];
  if (all.length === 0) return undefined;
  const match = all[Math.floor(share * all.length)];
  const [before, after] = [prompt.slice(0, match.index), prompt.slice(match.index + match[0].length)];
  const left = /\p{L}*$/u.exec(before)?.[0] ?? "";
  const right = /^\p{L}*/u.exec(after)?.[0] ?? "";
  return {
    head: before.slice(0, before.length - left.length),
    left,
    original: match[0],
    right,
    tail: after.slice(right.length),
  };
};

/** The prompt with a text at the site. */
export const fill = (site: Site, text: string): string => site.head + site.left + text + site.right + site.tail;

const ids = (tokens: readonly Token[]): number[] => tokens.map((t) => t.id);
const same = (a: readonly number[], b: readonly number[]): boolean =>
  a.length === b.length && a.every((x, i) => x === b[i]);

/** What became of a text at a site: a clean cut, or the reason why there is none. */
export type Cut =
  | { readonly kind: "cut"; readonly difference: Difference }
  | { readonly kind: "merged" | "dropped" | "unchanged" };

/**
 * Compares the tokens of the prompt with `text` and with `original` at the site. They are cut cleanly when the tokens are
 * those of head, word and tail one after the other, in both.
 */
export const cut = (tokenizer: Tokenizer, site: Site, original: string, text: string): Cut => {
  const of = (part: string) => ids(tokenizer.tokens(part));
  const [head, tail] = [of(site.head), of(site.tail)];
  const word = (t: string) => site.left + t + site.right;
  const [from, to] = [of(word(original)), of(word(text))];
  const whole = (t: string, middle: readonly number[]) => same(of(fill(site, t)), [...head, ...middle, ...tail]);
  if (!whole(text, to) || !whole(original, from)) return { kind: "merged" };
  if (same(from, to)) return { kind: site.original === "" ? "dropped" : "unchanged" };
  let before = 0;
  while (before < Math.min(from.length, to.length) && from[before] === to[before]) before++;
  let after = 0;
  while (after < Math.min(from.length, to.length) - before && from.at(-1 - after) === to.at(-1 - after)) after++;
  if (to.length === before + after) return { kind: "dropped" };
  return {
    kind: "cut",
    difference: {
      before: head.length + before,
      from: from.length - before - after,
      to: to.length - before - after,
      after: after + tail.length,
    },
  };
};
