/**
 * Characters that hide: letters that look like a Latin one, and characters that one does not see. scan tries them, screen
 * takes them out of prompts.
 */

/** Characters that one does not see: spaces without width, joiners, marks, fillers, tags. */
export const invisible: readonly string[] = [
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
export const lookalikes: Readonly<Record<string, string>> = {
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

const latin = new Map(Object.entries(lookalikes).flatMap(([plain, alike]) => Array.from(alike, (c) => [c, plain])));

/** The Latin letter that a character looks like, or undefined where there is none: `о` (Cyrillic) is read as `o`. */
const plainOf = (character: string): string | undefined => {
  const lower = character.toLowerCase();
  const known = latin.get(lower);
  if (known !== undefined) return known;
  if (/^[\x20-\x7e]$/.test(lower)) return undefined;
  // Full-width and mathematical letters, and letters under marks: what is left when form and mark are taken away.
  const bare = lower.normalize("NFKD").replace(/\p{M}+/gu, "");
  return /^[a-z]{1,3}$/.test(bare) ? bare : undefined;
};

/** Whether a character looks like a plain Latin letter and is none. */
export const isLookalike = (character: string): boolean => plainOf(character) !== undefined;

/** Whether a text holds a character that looks like a plain letter and is none. */
export const hasLookalike = (text: string): boolean => Array.from(text.normalize("NFC")).some(isLookalike);

/** The text as a person reads it: every character that looks like a plain letter as that letter. */
export const foldLookalikes = (text: string): string =>
  Array.from(text.normalize("NFC"), (c) => plainOf(c) ?? c).join("");
