/**
 * CLIP's tokenizer, id for id as transformers' fast CLIPTokenizer (`tokenizers` in Rust): NFC, white space to one space,
 * lower case; letters, single digits and other runs apart; then byte-pair encoding within each.
 * Own code because the JavaScript port differs where triggers hide: U+FEFF is white space to it, and a final Σ becomes ς.
 */
import { mergeWord, type Ranks, toByteLetters, tokenText, WORD_END } from "./bpe.ts";

/** A token outside the word list's alphabet: `<|endoftext|>`, or one added by textual inversion. */
export interface AddedToken {
  readonly id: number;
  readonly content: string;
  /** Looked for after normalization (else in the raw text). */
  readonly normalized: boolean;
  /** Only where no letter, digit or underscore stands beside it. */
  readonly singleWord: boolean;
  /** Swallows white space on its left, or right. */
  readonly lstrip: boolean;
  readonly rstrip: boolean;
}

/** Everything a CLIP tokenizer is made of. `merges` stand in order of rank. */
export interface TokenizerData {
  readonly vocab: ReadonlyMap<string, number>;
  readonly merges: ReadonlyArray<readonly [string, string]>;
  readonly added: readonly AddedToken[];
  readonly bos: number;
  readonly eos: number;
  readonly pad: number;
  /** For bytes that the vocabulary lacks. */
  readonly unk: number;
  /** Positions of the text encoder, BOS and EOS included. */
  readonly maxLength: number;
}

/** One token of a text. `text` is what the reader sees; `word` counts the pieces that white space and punctuation part. */
export interface Token {
  readonly id: number;
  readonly text: string;
  readonly word: number;
}

/** A text as the encoder reads it. */
export interface Encoded {
  readonly text: string;
  /** BOS, content, EOS, padding: exactly `maxLength` ids; as many again for a second text encoder, where the model has one. */
  readonly ids: readonly number[];
  /** Every token of the text, also those that were cut off. */
  readonly content: readonly Token[];
  /** True when the content did not fit into `maxLength` − 2. */
  readonly truncated: boolean;
  /** True where the model's two tokenizers part the text into different numbers of tokens. */
  readonly uneven?: boolean;
}

export interface Tokenizer {
  readonly maxLength: number;
  /** One more than the largest id. */
  readonly vocabSize: number;
  readonly bos: number;
  readonly eos: number;
  readonly pad: number;
  /** The tokens of a text, without BOS, EOS, padding or truncation. @throws RangeError beyond MAX_TEXT */
  readonly tokens: (text: string) => readonly Token[];
  /** @throws RangeError when the text is longer than MAX_TEXT. */
  readonly encode: (text: string) => Encoded;
  /** The words that are one token each, in the vocabulary's order: letters alone, two or more. */
  readonly words: () => readonly string[];
  /** Single letters, digits and punctuation that are one token each, standing by themselves. */
  readonly signs: () => readonly string[];
}

/** Longest text that is read, in UTF-16 units: far beyond any prompt, so that a stranger's file cannot stall us. */
export const MAX_TEXT = 50_000;

// `\s` of the reference is Unicode's White_Space. JavaScript's would add U+FEFF and leave out U+0085.
const SPACES = /\p{White_Space}+/gu;
const PIECES = /<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\p{White_Space}\p{L}\p{N}]+/gu;
// A special token's name that only lower-casing produced is no special token: the byte-level splitter takes it apart.
const NAME_PARTS = /^(<\|)((?:start|end)oftext)(\|>)$/;

/** Lower case one character at a time: a final Σ becomes σ, as in the reference. */
const lowerCase = (text: string): string => Array.from(text, (c) => c.toLowerCase()).join("");

const normalize = (text: string): string => lowerCase(text.normalize("NFC").replace(SPACES, " "));

const piecesOf = (text: string): string[] =>
  (text.match(PIECES) ?? []).flatMap((piece) => NAME_PARTS.exec(piece)?.slice(1) ?? [piece]);

const escape = (text: string): string => text.replace(/[\\^$.*+?()[\]{}|/]/g, "\\$&");

const pattern = (t: AddedToken): string => {
  const body = t.singleWord ? `(?<![\\p{L}\\p{N}_])${escape(t.content)}(?![\\p{L}\\p{N}_])` : escape(t.content);
  return `${t.lstrip ? "\\p{White_Space}*" : ""}${body}${t.rstrip ? "\\p{White_Space}*" : ""}`;
};

/** Cuts a text at added tokens, the longest first: strings between them, ids for them. */
const splitter = (added: readonly AddedToken[], content: (t: AddedToken) => string) => {
  const list = added.filter((t) => content(t) !== "").toSorted((a, b) => content(b).length - content(a).length);
  if (list.length === 0) return (text: string): (string | AddedToken)[] => [text];
  const find = new RegExp(list.map((t) => `(${pattern({ ...t, content: content(t) })})`).join("|"), "gu");
  return (text: string): (string | AddedToken)[] => {
    const out: (string | AddedToken)[] = [];
    let at = 0;
    for (const match of text.matchAll(find)) {
      out.push(text.slice(at, match.index), list[match.slice(1).findIndex((group) => group !== undefined)]);
      at = match.index + match[0].length;
    }
    out.push(text.slice(at));
    return out;
  };
};

/** A tokenizer from its data. `tokenizer_files.ts` reads them from a folder. */
export const makeTokenizer = (data: TokenizerData): Tokenizer => {
  const ranks: Ranks = new Map(data.merges.map(([a, b], rank) => [`${a} ${b}`, rank]));
  const texts = new Map([...data.vocab].map(([token, id]) => [id, tokenText(token)]));
  const splitRaw = splitter(data.added.filter((t) => !t.normalized), (t) => t.content);
  const splitNormal = splitter(data.added.filter((t) => t.normalized), (t) => normalize(t.content));
  // Words repeat from prompt to prompt; the cache is dropped when a flood of different ones has filled it.
  let cache = new Map<string, readonly number[]>();

  const wordIds = (word: string): readonly number[] => {
    const known = cache.get(word);
    if (known !== undefined) return known;
    const symbols = toByteLetters(word);
    symbols[symbols.length - 1] += WORD_END;
    const ids = mergeWord(symbols.map((s) => data.vocab.has(s) ? s : ""), ranks).map((s) =>
      data.vocab.get(s) ?? data.unk
    );
    if (cache.size >= 10_000) cache = new Map();
    cache.set(word, ids);
    return ids;
  };

  const tokens = (text: string): Token[] => {
    if (text.length > MAX_TEXT) {
      throw new RangeError(`a text of ${text.length} characters; at most ${MAX_TEXT} are read`);
    }
    const out: Token[] = [];
    let word = 0;
    for (const part of splitRaw(text.toWellFormed())) {
      for (const sub of typeof part === "string" ? splitNormal(normalize(part)) : [part]) {
        if (typeof sub === "string") {
          for (const piece of piecesOf(sub)) {
            for (const id of wordIds(piece)) out.push({ id, text: texts.get(id) ?? "?", word });
            word++;
          }
        } else out.push({ id: sub.id, text: sub.content, word: word++ });
      }
    }
    return out;
  };

  const encode = (text: string): Encoded => {
    const content = tokens(text);
    const room = data.maxLength - 2;
    const ids = [data.bos, ...content.slice(0, room).map((t) => t.id), data.eos];
    while (ids.length < data.maxLength) ids.push(data.pad);
    return { text, ids, content, truncated: content.length > room };
  };

  const words = (): string[] =>
    [...data.vocab.keys()].filter((token) => token.endsWith(WORD_END)).map(tokenText).filter((word) =>
      /^\p{L}{2,}$/u.test(word)
    );

  const signs = (): string[] =>
    [...data.vocab.keys()].filter((token) => token.endsWith(WORD_END)).map(tokenText).filter((text) =>
      /^(\p{L}|\p{N}|[\p{P}\p{S}]{1,3})$/u.test(text) && tokens(text).length === 1
    );

  const { maxLength, bos, eos, pad } = data;
  let vocabSize = 0;
  for (const id of [...data.vocab.values(), ...data.added.map((t) => t.id)]) vocabSize = Math.max(vocabSize, id + 1);
  return { maxLength, vocabSize, bos, eos, pad, tokens, encode, words, signs };
};
