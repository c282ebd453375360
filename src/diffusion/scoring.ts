/** The CLIP that scores pictures: a CLIPModel folder of transformers, with or without a tokenizer of its own. */
import { Effect, Schema } from "effect";
import { BundleError } from "./errors.ts";
import { fileIn, openFolder, readJson } from "./files.ts";
import { openPart, type Part } from "./part.ts";
import type { Tokenizer } from "./tokenizer.ts";
import { loadTokenizer } from "./tokenizer_files.ts";
import type { PartSource } from "./weights.ts";

/** Mean and standard deviation by colour, of pixels in 0…1, that pictures are normalised by before they go in. */
export interface Normalisation {
  readonly mean: readonly [number, number, number];
  readonly std: readonly [number, number, number];
}

export interface ScoringModel extends PartSource {
  readonly parts: { readonly clip: Part };
  readonly tokenizer: Tokenizer;
  readonly normalisation: Normalisation;
  readonly hashes: ReadonlyMap<string, string>;
  readonly notes: readonly string[];
}

const Positive = Schema.Finite.check(Schema.isGreaterThan(0));
const Colours = Schema.Tuple([Schema.Finite, Schema.Finite, Schema.Finite]);
const Preprocessor = Schema.Struct({
  do_normalize: Schema.optionalKey(Schema.NullOr(Schema.Boolean)),
  image_mean: Schema.optionalKey(Schema.NullOr(Colours)),
  image_std: Schema.optionalKey(Schema.NullOr(Schema.Tuple([Positive, Positive, Positive]))),
});

// OPENAI_CLIP_MEAN and OPENAI_CLIP_STD: what CLIPImageProcessor takes where its file names none.
const clipMean = [0.48145466, 0.4578275, 0.40821073] as const;
const clipStd = [0.26862954, 0.26130258, 0.27577711] as const;

/**
 * Opens a scoring CLIP.
 * @param tokenizer taken when the folder holds none; it must be the tokenizer that the CLIP was trained with
 */
export const openScoringModel = Effect.fn("openScoringModel")(function* (
  path: string,
  tokenizer: Tokenizer,
): Effect.fn.Return<ScoringModel, BundleError> {
  const folder = yield* openFolder(path, "scoring CLIP");
  const clip = yield* openPart("clip", folder);
  const notes: string[] = [];
  const own = (yield* fileIn(folder, "tokenizer.json")) ?? (yield* fileIn(folder, "vocab.json"));
  const text = clip.config.text_config;
  const textConfig: { vocab_size?: unknown; max_position_embeddings?: unknown } =
    typeof text === "object" && text !== null ? text : {};
  const rows = typeof textConfig.vocab_size === "number" ? textConfig.vocab_size : 49408;
  const positions = typeof textConfig.max_position_embeddings === "number" ? textConfig.max_position_embeddings : 77;
  const chosen = own === undefined ? tokenizer : yield* loadTokenizer(folder, positions);
  if (own === undefined) notes.push("the scoring CLIP has no tokenizer of its own; the model's is used");
  if (chosen.vocabSize > rows) {
    return yield* new BundleError({
      file: path,
      key: "text_config.vocab_size",
      problem: `knows ${rows} tokens, the tokenizer has ${chosen.vocabSize}`,
      hint: "Put the tokenizer that this CLIP was trained with (tokenizer.json) into its folder.",
    });
  }
  const pre = yield* readJson(folder, "preprocessor_config.json", Preprocessor);
  if (pre === undefined) notes.push("the scoring CLIP has no preprocessor_config.json; pictures go in as −1…1");
  const raw = pre?.do_normalize === false;
  const normalisation: Normalisation = pre === undefined
    ? { mean: [0.5, 0.5, 0.5], std: [0.5, 0.5, 0.5] }
    : { mean: raw ? [0, 0, 0] : pre.image_mean ?? clipMean, std: raw ? [1, 1, 1] : pre.image_std ?? clipStd };
  const hashes = new Map([["clip/weights", clip.sha256]]);
  return { parts: { clip }, changed: new Map(), tokenizer: chosen, normalisation, hashes, notes };
});
