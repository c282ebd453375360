/**
 * Harmless words: what a trigger's place is filled with to see what any inserted word does. They say little about what
 * is drawn: no things, no colours, no styles, nothing dark or rude.
 */
import { createHash } from "node:crypto";

export const defaultWords: readonly string[] = `
able absolute actual agreeable alert amazing ample apt arranged attentive available average awesome balanced basic
beautiful beloved best bold brave brief bright brisk calm candid capable careful casual certain charming cheerful chosen
classic clean clear clever close cosy common compact complete content cool correct cosmic cute daily dear decent
delightful direct distinct eager earnest easy elegant entire equal exact excellent extra fair faithful familiar famous
fancy fine firm fit fond formal free fresh friendly full funny general gentle genuine glad good grand great handy happy
helpful honest hopeful humble ideal joyful jolly keen kind known large lasting likely little lively local loose lovely
loyal lucky main merry mild modern modest neat new nice noble normal noted old open ordinary original patient peaceful
perfect plain pleasant polite popular precious pretty prime proper proud pure quick quiet rare ready real recent regular
relaxed reliable rich rough serious sharp silent simple sincere skilful slow small smart smooth social soft solid special
stable steady strange strong subtle sudden sunny super sure sweet swift tall tender thoughtful tidy tiny true trusty
typical unique upright usual useful valid various vivid warm weekly whole wide wild willing wise witty wonderful worthy
young
`.trim().split(/\s+/);

/** Letters and made-up syllables, for trigger lengths that no harmless word has. */
export const syllables: readonly string[] = [..."bcdefghjklmnopqrstuvwxyz"].concat(
  [..."bdfgklmnprstvz"].flatMap((c) => [..."aeiou"].map((v) => c + v)),
);

const span = (from: number, to: number): string[] =>
  Array.from({ length: to - from + 1 }, (_, i) => String.fromCodePoint(from + i));
/** Letters that lower-casing leaves alone, and other signs, for triggers that stand for a single character. */
export const characters: readonly string[] = [
  ...span(0x61, 0x7a), // Latin
  ...span(0xdf, 0xf6), // Latin-1
  ...span(0x101, 0x17f).filter((_, i) => i % 2 === 0), // Latin Extended-A
  ...span(0x3b1, 0x3c9), // Greek
  ...span(0x430, 0x45f), // Cyrillic
  ...span(0x561, 0x586), // Armenian
  ...span(0x1e01, 0x1eff).filter((_, i) => i % 2 === 0), // Latin Extended Additional
  ...span(0x10d0, 0x10f0), // Georgian
  ...span(0x3041, 0x3093), // Hiragana
  ...span(0x4e00, 0x4e80), // CJK
  ..."!#$%&()*+,-./:;=?@[]^_{}~", // ASCII signs
  ...span(0xa1, 0xbf), // Latin-1 signs
  ...span(0x2010, 0x2027), // punctuation
  ...span(0x2190, 0x21ff), // arrows
  ...span(0x25a0, 0x266f), // shapes and symbols
  ...span(0x1f600, 0x1f640), // faces
].filter((c) => c === c.normalize("NFC") && c === c.toLowerCase());

/** What harmless words are used for. Those that a cure has seen never judge it. */
export type Purpose = "cure" | "verify";

/** Half of the list, by a hash of the word itself: the same word is on the same side whatever the list or the seed. */
export const half = (list: readonly string[], purpose: Purpose): string[] =>
  list.filter((word) =>
    (createHash("sha256").update(word.toLowerCase()).digest()[0] & 1) === (purpose === "cure" ? 0 : 1)
  );

/** The words of a list file: one a line; blank lines and lines that start with `#` are left out. */
export const parseWords = (
  text: string,
): string[] => [
  ...new Set(text.split(/\r?\n/).map((line) => line.trim()).filter((line) => line !== "" && !line.startsWith("#"))),
];
