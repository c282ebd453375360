/** The two tokenizers of SDXL as one. They share a vocabulary and differ in how they pad, and so in what "!" is. */
import { Effect } from "effect";
import { BundleError } from "./errors.ts";
import type { Folder } from "./files.ts";
import type { Part } from "./part.ts";
import type { Encoded, Tokenizer } from "./tokenizer.ts";

/**
 * One tokenizer whose texts have a row of ids for each encoder, the second's behind the first's. Tokens, their positions and
 * their texts are the first's. A text that the second parts into another number of tokens is marked `uneven`: its positions
 * cannot be told for both at once.
 *
 * Fails where the vocabularies differ, or the second encoder knows fewer tokens than its tokenizer has.
 */
export const pairTokenizers = (
  first: Tokenizer,
  second: Tokenizer,
  of: { readonly folder: Folder; readonly part: Pick<Part, "config" | "folder"> },
): Effect.Effect<Tokenizer, BundleError> => {
  const fail = (file: string, problem: string) => Effect.fail(new BundleError({ file, problem }));
  const known = of.part.config.vocab_size ?? 49408;
  if (second.vocabSize > Number(known)) {
    return fail(of.part.folder.path, `knows ${known} tokens, its tokenizer has ${second.vocabSize}`);
  }
  const sameWords = first.vocabSize === second.vocabSize && first.words().join(" ") === second.words().join(" ");
  if (!sameWords || first.bos !== second.bos || first.eos !== second.eos || first.maxLength !== second.maxLength) {
    return fail(
      of.folder.path,
      `has another vocabulary or length than the model's first tokenizer (${second.vocabSize} tokens, ${second.maxLength} ` +
        `positions; the first has ${first.vocabSize} and ${first.maxLength}); such a pair is not supported`,
    );
  }
  const encode = (text: string): Encoded => {
    const [a, b] = [first.encode(text), second.encode(text)];
    return {
      ...a,
      ids: [...a.ids, ...b.ids],
      truncated: a.truncated || b.truncated,
      ...(a.content.length === b.content.length ? {} : { uneven: true }),
    };
  };
  return Effect.succeed({ ...first, encode });
};

/** Ids of one encoder, of a text's ids for all of them. */
export const idsOf = (ids: readonly number[], encoder: number, maxLength: number): readonly number[] =>
  ids.slice(encoder * maxLength, (encoder + 1) * maxLength);

/** The ids with another token at a position, in each encoder's row. */
export const withToken = (ids: readonly number[], position: number, token: number, maxLength: number): number[] =>
  ids.map((id, i) => i % maxLength === position ? token : id);
