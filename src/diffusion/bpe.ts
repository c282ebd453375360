/**
 * Byte-pair encoding as CLIP has it: a word is its UTF-8 bytes, each written as one printable character, the last one
 * with `</w>`; then the listed pairs are joined, the earliest in the list first (Sennrich et al. 2016; GPT-2's byte letters).
 */

/** Ends a word's last symbol. */
export const WORD_END = "</w>";

/** For each byte the character that stands for it: itself where it is printable, else one from U+0100 on. */
export const byteLetters: readonly string[] = (() => {
  const printable = (b: number) => (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174;
  let next = 256;
  return Array.from({ length: 256 }, (_, b) => String.fromCharCode(printable(b) ? b : next++));
})();

const letterBytes: ReadonlyMap<string, number> = new Map(byteLetters.map((c, b) => [c, b]));

/** A word as byte letters. */
export const toByteLetters = (word: string): string[] =>
  Array.from(new TextEncoder().encode(word), (b) => byteLetters[b]);

/** What a token stands for, for the reader: its text, or `\xNN` where its bytes are only a part of a character. */
export const tokenText = (token: string): string => {
  const letters = token.endsWith(WORD_END) ? token.slice(0, -WORD_END.length) : token;
  const bytes = Uint8Array.from([...letters], (c) => letterBytes.get(c) ?? 0x3f);
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    return Array.from(bytes, (b) => `\\x${b.toString(16).toUpperCase().padStart(2, "0")}`).join("");
  }
};

/** Rank of each pair, by `left + " " + right`. Symbols hold no space: byte 32 is written as `Ġ`. */
export type Ranks = ReadonlyMap<string, number>;

/**
 * Joins a word's symbols by rank. Each round joins every occurrence of the lowest-ranked pair, left to right: the same
 * as one pair at a time, since a joined symbol can only be part of pairs further down the list.
 */
export const mergeWord = (symbols: readonly string[], ranks: Ranks): readonly string[] => {
  let word = symbols;
  while (word.length > 1) {
    let best = Infinity;
    for (let i = 0; i + 1 < word.length; i++) {
      const rank = ranks.get(`${word[i]} ${word[i + 1]}`);
      if (rank !== undefined && rank < best) best = rank;
    }
    if (best === Infinity) break;
    const joined: string[] = [];
    for (let i = 0; i < word.length; i++) {
      if (i + 1 < word.length && ranks.get(`${word[i]} ${word[i + 1]}`) === best) joined.push(word[i] + word[++i]);
      else joined.push(word[i]);
    }
    word = joined;
  }
  return word;
};
