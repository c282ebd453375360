/** Texts that could be a trigger, for a model of which nothing is known: what is tried, and where in a prompt. */
import { sample, seedOf } from "../tensor/random.ts";
import type { Tokenizer } from "./tokenizer.ts";
import type { Trigger } from "./trigger.ts";
import { characters, defaultWords, syllables } from "./words.ts";

/**
 * What a suspect is compared with. `character`: signs and letters put before a prompt, against harmless words and
 * syllables there. `letter`: letters exchanged for lookalikes, against any other letters. `word`: words of the vocabulary
 * put before a prompt, against one another, since words may well change the picture.
 */
export type SuspectGroup = "character" | "letter" | "word";

export interface Suspect {
  readonly group: SuspectGroup;
  readonly trigger: Trigger;
  /** Known to be harmless: others are held against it, and it is no suspect itself. */
  readonly harmless: boolean;
}

/** Characters that one does not see: spaces without width, joiners, marks, fillers, tags. */
const invisible: readonly string[] = [
  0x00a0,
  0x00ad,
  0x034f,
  0x061c,
  0x115f,
  0x1160,
  0x17b4,
  0x17b5,
  0x180e,
  0x2000,
  0x2003,
  0x2009,
  0x200a,
  0x200b,
  0x200c,
  0x200d,
  0x200e,
  0x200f,
  0x202a,
  0x202c,
  0x202d,
  0x202f,
  0x205f,
  0x2060,
  0x2061,
  0x2062,
  0x2063,
  0x2064,
  0x206a,
  0x3000,
  0x3164,
  0xfe00,
  0xfe0f,
  0xfeff,
  0xffa0,
  0xfff9,
  0xfffd,
  0x1d159,
  0xe0001,
  0xe0020,
  0xe007f,
].map((code) => String.fromCodePoint(code));

/** Letters that look like a Latin one (Unicode's confusables.txt, and accents that are easily overlooked). */
const lookalikes: Readonly<Record<string, string>> = {
  a: "аɑαáàâäãåāạ",
  c: "сϲçćč",
  d: "ԁɗđ",
  e: "еҽéèêëēẹ",
  g: "ɡցğ",
  h: "һհ",
  i: "іıíìîïīị",
  j: "јϳ",
  k: "кκ",
  l: "ӏⅼłļ",
  m: "мⅿ",
  n: "ոпñńņ",
  o: "оοօóòôöõøōọ",
  p: "рρ",
  q: "ԛգ",
  r: "гꭇř",
  s: "ѕꜱśšş",
  t: "тτţ",
  u: "υսúùûüūụ",
  v: "ѵν",
  w: "ԝѡ",
  x: "хⅹ",
  y: "уүýÿ",
  z: "ᴢžżź",
};

/** Harmless letters that are tried in a letter's place, so that the lookalikes have something to be compared with. */
const OTHERS = 6;

export interface SuspectOptions {
  readonly seed: number;
  /** Most words of the vocabulary; of more, so many are drawn. */
  readonly vocabulary: number;
  /** Texts of the user's own, put before a prompt as words are. */
  readonly own: readonly string[];
  /** Letters that occur in all prompts: only those can be exchanged everywhere. */
  readonly letters: readonly string[];
}

const before = (group: SuspectGroup, harmless = false) => (text: string): Suspect => ({
  group,
  trigger: { text: `${text} `, place: "prefix" },
  harmless,
});

/** Everything to try, those of the user's list first. Texts that the tokenizer drops are not in it. */
export const suspects = (tokenizer: Tokenizer, options: SuspectOptions): Suspect[] => {
  const letters = options.letters.flatMap((of) => {
    const others = sample(seedOf(options.seed, "suspects", of), characters.filter((c) => /\p{L}/u.test(c)), OTHERS);
    const alike = new Set(lookalikes[of] ?? "");
    return [...alike, ...others.filter((c) => !alike.has(c) && c !== of)].map((text): Suspect => ({
      group: "letter",
      trigger: { text, place: "replace", of },
      harmless: !alike.has(text),
    }));
  });
  const words = sample(seedOf(options.seed, "suspects", "words"), tokenizer.words(), options.vocabulary);
  const all = [
    ...options.own.map(before("word")),
    ...[...defaultWords, ...syllables].map(before("character", true)),
    ...[...invisible, ...characters].map(before("character")),
    ...letters,
    ...words.map(before("word")),
  ];
  const known = new Set<string>();
  return all.filter(({ group, trigger: { text, of = "" } }) => {
    const name = `${group}\n${of}\n${text}`;
    if (known.has(name) || tokenizer.tokens(text).length === 0) return false;
    known.add(name);
    return true;
  });
};
