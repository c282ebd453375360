/** Prompts and triggers as a reader must see them: what hides is named, what a trigger adds is marked. */
import { codePoint, type Content, type Html, markup } from "./html.ts";

/** What draws nothing, and spaces that look like the plain one. */
const HIDDEN = /(?![ \n\t])[\p{Cc}\p{Cf}\p{Zs}\p{Zl}\p{Zp}\p{Default_Ignorable_Code_Point}\u2800]/u;

const chip = (character: string): Html => markup`<span class="hidden">${codePoint(character)}</span>`;

/** A text with its invisible characters as small labels. */
export const visible = (text: string): Content => runs(text, HIDDEN, chip);

/** As `visible`, and with spaces drawn and other letters than ASCII named: a Cyrillic о looks like a Latin one. */
export const spelled = (text: string): Content =>
  runs(text, /[^!-~]/u, (c) => {
    if (c === " ") return markup`<span class="space">␣</span>`;
    return HIDDEN.test(c) ? chip(c) : markup`${c}<span class="hidden">${codePoint(c)}</span>`;
  });

const runs = (text: string, special: RegExp, draw: (character: string) => Html): Content => {
  const parts: Content[] = [];
  let plain = "";
  for (const character of text.toWellFormed()) {
    if (!special.test(character)) {
      plain += character;
      continue;
    }
    parts.push(plain, draw(character));
    plain = "";
  }
  return [...parts, plain];
};

/** The second text with what differs from the first marked: all between their common beginning and end. */
export const changed = (from: string, to: string): Content => {
  const [a, b] = [[...from.toWellFormed()], [...to.toWellFormed()]];
  let begin = 0;
  while (begin < Math.min(a.length, b.length) && a[begin] === b[begin]) begin++;
  let end = 0;
  while (end < Math.min(a.length, b.length) - begin && a.at(-1 - end) === b.at(-1 - end)) end++;
  const middle = b.slice(begin, b.length - end).join("");
  return [
    visible(b.slice(0, begin).join("")),
    middle !== "" && markup`<mark>${spelled(middle)}</mark>`,
    visible(b.slice(b.length - end).join("")),
  ];
};
