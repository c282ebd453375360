/**
 * The tokenizer of CLIP, which every Stable Diffusion 1.x and 2.x has: for checkpoints that hold none, and to compare
 * others with. Its merges lie beside this file (clip_bpe/README.md); the vocabulary follows from them.
 */
import { Effect } from "effect";
import { gunzipSync } from "fflate";
import { readFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { byteLetters, WORD_END } from "./bpe.ts";
import type { BundleError } from "./errors.ts";
import { system } from "./files.ts";
import type { Tokenizer } from "./tokenizer.ts";
import { assembleTokenizer, pairOf, type TokenizerSettings } from "./tokenizer_files.ts";

/** What fills a text up: Stable Diffusion 1.x ends it again and again, 2.x (OpenCLIP) takes token 0. */
export type Padding = "<|endoftext|>" | "!";

/** Words of the tokenizer: tokens by id, merges by rank. */
export interface Vocabulary {
  readonly vocab: ReadonlyMap<string, number>;
  readonly merges: ReadonlyArray<readonly [string, string]>;
}

const BOS = "<|startoftext|>";
const EOS = "<|endoftext|>";
const file = fileURLToPath(new URL("./clip_bpe/merges.txt.gz", import.meta.url));

let vocabulary: Vocabulary | undefined;

/** CLIP's 49,408 tokens and 48,894 merges. Read once. */
export const stockVocabulary: Effect.Effect<Vocabulary, BundleError> = Effect.gen(function* () {
  if (vocabulary !== undefined) return vocabulary;
  const packed = yield* system(file, "cannot be read", () => readFile(file));
  const lines = new TextDecoder().decode(gunzipSync(packed)).split("\n").slice(1);
  const merges = lines.map(pairOf).filter((pair) => pair !== undefined);
  // Bytes that print stand first: the others' letters have higher codes.
  const letters = byteLetters.toSorted();
  const tokens = [...letters, ...letters.map((c) => c + WORD_END), ...merges.map(([a, b]) => a + b), BOS, EOS];
  vocabulary = { vocab: new Map(tokens.map((token, id) => [token, id])), merges };
  return vocabulary;
});

/** tokenizer_config.json as Stable Diffusion's folders have it. */
export const stockSettings = (padding: Padding): TokenizerSettings => {
  const special = (content: string) => ({
    content,
    lstrip: false,
    normalized: true,
    rstrip: false,
    single_word: false,
  });
  return {
    tokenizer_class: "CLIPTokenizer",
    model_max_length: 77,
    bos_token: special(BOS),
    eos_token: special(EOS),
    unk_token: special(EOS),
    pad_token: padding,
  };
};

/**
 * CLIP's tokenizer, token for token as in the folders of Stable Diffusion 1.x (`<|endoftext|>` as padding) and 2.x (`!`).
 * @param positions positions of the text encoder; at most 77 are used
 */
export const stockTokenizer = Effect.fnUntraced(function* (
  padding: Padding,
  positions = 77,
): Effect.fn.Return<Tokenizer, BundleError> {
  const { vocab, merges } = yield* stockVocabulary;
  return yield* assembleTokenizer({ file, vocab, merges, added: [] }, stockSettings(padding), positions);
});
