/** Reads a CLIP tokenizer from its folder: tokenizer.json (transformers 5), or vocab.json + merges.txt (older folders). */
import { Effect, Schema } from "effect";
import { BundleError } from "./errors.ts";
import { fileIn, type Folder, readJson, readText } from "./files.ts";
import { type AddedToken, makeTokenizer, type Tokenizer } from "./tokenizer.ts";

/** CLIP has 49,408 tokens; textual inversion adds a few. */
const MAX_VOCAB = 200_000;
const MAX_FILE = 16 << 20;

const Id = Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 10_000_000 }));
const Vocab = Schema.Record(Schema.String, Id);
const Flag = Schema.optionalKey(Schema.Boolean);
const flags = { single_word: Flag, lstrip: Flag, rstrip: Flag, normalized: Flag };
const TokenObject = Schema.Struct({ content: Schema.String, ...flags });
const SpecialToken = Schema.NullOr(Schema.Union([Schema.String, TokenObject]));

const Settings = Schema.Struct({
  tokenizer_class: Schema.optionalKey(Schema.NullOr(Schema.String)),
  model_max_length: Schema.optionalKey(Schema.NullOr(Schema.Number)),
  bos_token: Schema.optionalKey(SpecialToken),
  eos_token: Schema.optionalKey(SpecialToken),
  pad_token: Schema.optionalKey(SpecialToken),
  unk_token: Schema.optionalKey(SpecialToken),
  added_tokens_decoder: Schema.optionalKey(Schema.Record(Schema.String, TokenObject)),
});

const Typed = Schema.NullOr(Schema.Struct({
  type: Schema.String,
  normalizers: Schema.optionalKey(Schema.Array(Schema.Struct({ type: Schema.String }))),
  pretokenizers: Schema.optionalKey(Schema.Array(Schema.Struct({ type: Schema.String }))),
}));

const TokenizerJson = Schema.Struct({
  normalizer: Typed,
  pre_tokenizer: Typed,
  added_tokens: Schema.Array(Schema.Struct({ id: Id, content: Schema.String, ...flags })),
  model: Schema.Struct({
    type: Schema.optionalKey(Schema.String),
    unk_token: Schema.optionalKey(Schema.NullOr(Schema.String)),
    end_of_word_suffix: Schema.optionalKey(Schema.NullOr(Schema.String)),
    vocab: Vocab,
    merges: Schema.Array(Schema.Union([Schema.String, Schema.Tuple([Schema.String, Schema.String])])),
  }),
});

/** tokenizer_config.json and special_tokens_map.json, as far as they are read. */
export type TokenizerSettings = typeof Settings.Type;

/** What both layouts hold. */
export interface TokenizerParts {
  /** For errors. */
  readonly file: string;
  readonly vocab: ReadonlyMap<string, number>;
  readonly merges: ReadonlyArray<readonly [string, string]>;
  readonly added: readonly AddedToken[];
  readonly unk?: string | null | undefined;
}

const addedToken = (id: number, token: typeof TokenObject.Type, normalized: boolean): AddedToken => ({
  id,
  content: token.content,
  normalized: token.normalized ?? normalized,
  singleWord: token.single_word ?? false,
  lstrip: token.lstrip ?? false,
  rstrip: token.rstrip ?? false,
});

/** Splits "a b" at its only space. Symbols hold none. */
export const pairOf = (line: string): readonly [string, string] | undefined => {
  const parts = line.split(" ");
  return parts.length === 2 && parts[0] !== "" && parts[1] !== "" ? [parts[0], parts[1]] : undefined;
};

const notClip = (file: string, problem: string) =>
  new BundleError({
    file,
    problem,
    expected: "a CLIP tokenizer, as CLIPTokenizer of transformers writes it",
    hint: "Stable Diffusion 1.x and 2.x have one; other models' tokenizers are not read.",
  });

const fromTokenizerJson = Effect.fnUntraced(function* (folder: Folder, file: string) {
  const json = yield* readJson(folder, "tokenizer.json", TokenizerJson, MAX_FILE);
  if (json === undefined) return yield* new BundleError({ file, problem: "is gone" });
  const steps = [json.normalizer?.normalizers, json.pre_tokenizer?.pretokenizers].flatMap((l) => l ?? []).map((s) =>
    s.type
  );
  const { model } = json;
  if ((model.type ?? "BPE") !== "BPE" || model.end_of_word_suffix !== "</w>") {
    return yield* notClip(file, "holds no byte-pair encoding with </w>");
  }
  if (steps.join(" ") !== "NFC Replace Lowercase Split ByteLevel") {
    return yield* notClip(file, `prepares texts by ${steps.join(", ") || "other means"}`);
  }
  const merges = model.merges.flatMap((m) => typeof m === "string" ? [pairOf(m)] : [m]);
  const parts: TokenizerParts = {
    file,
    vocab: new Map(Object.entries(model.vocab)),
    merges: merges.filter((m) => m !== undefined),
    added: json.added_tokens.map((t) => addedToken(t.id, t, true)),
    unk: model.unk_token,
  };
  return parts;
});

const fromVocabAndMerges = Effect.fnUntraced(function* (folder: Folder) {
  const file = yield* fileIn(folder, "vocab.json");
  const mergesFile = yield* fileIn(folder, "merges.txt");
  const vocab = yield* readJson(folder, "vocab.json", Vocab, MAX_FILE);
  if (file === undefined || vocab === undefined || mergesFile === undefined) {
    return yield* new BundleError({
      file: folder.path,
      problem: "holds no tokenizer",
      expected: "tokenizer.json, or vocab.json and merges.txt",
    });
  }
  const lines = (yield* readText(mergesFile, MAX_FILE)).split("\n").map((line) => line.replace(/\r$/, ""));
  const pairs = lines.filter((line) => line !== "" && !line.startsWith("#version")).map(pairOf);
  const added = (yield* readJson(folder, "added_tokens.json", Vocab)) ?? {};
  const parts: TokenizerParts = {
    file,
    vocab: new Map(Object.entries(vocab)),
    merges: pairs.filter((m) => m !== undefined),
    added: Object.entries(added).map(([content, id]) => addedToken(id, { content }, true)),
  };
  return parts;
});

/**
 * Reads the tokenizer of a folder.
 * @param positions positions of the text encoder: the most tokens a text may have, also when the folder names more or nothing
 */
export const loadTokenizer = Effect.fnUntraced(function* (
  folder: Folder,
  positions: number,
): Effect.fn.Return<Tokenizer, BundleError> {
  const map = yield* readJson(folder, "special_tokens_map.json", Settings);
  const config = { ...map, ...yield* readJson(folder, "tokenizer_config.json", Settings) };
  const kind = config.tokenizer_class ?? "CLIPTokenizer";
  if (kind !== "CLIPTokenizer" && kind !== "CLIPTokenizerFast") return yield* notClip(folder.path, `holds a ${kind}`);
  const file = yield* fileIn(folder, "tokenizer.json");
  const parts = yield* (file === undefined ? fromVocabAndMerges(folder) : fromTokenizerJson(folder, file));
  return yield* assembleTokenizer(parts, config, positions);
});

/** A tokenizer from its vocabulary, its merges and what its configuration says of special tokens. */
export const assembleTokenizer = Effect.fnUntraced(function* (
  parts: TokenizerParts,
  config: TokenizerSettings,
  positions: number,
): Effect.fn.Return<Tokenizer, BundleError> {
  if (parts.vocab.size > MAX_VOCAB || parts.merges.length > MAX_VOCAB || parts.added.length > 10_000) {
    return yield* notClip(parts.file, `has ${parts.vocab.size} tokens and ${parts.merges.length} merges`);
  }
  const lost = parts.merges.find(([a, b]) => ![a, b, a + b].every((token) => parts.vocab.has(token)));
  if (lost !== undefined) {
    return yield* notClip(parts.file, `joins ${lost.join(" + ")}, but its vocabulary lacks one of them`);
  }

  const ids = new Map([...parts.vocab, ...parts.added.map((t) => [t.content, t.id] as const)]);
  const added = new Map(parts.added.map((t) => [t.content, t]));
  for (const [id, token] of Object.entries(config.added_tokens_decoder ?? {})) {
    if (!added.has(token.content)) added.set(token.content, addedToken(Number(id), token, true));
    if (!ids.has(token.content)) ids.set(token.content, Number(id));
  }
  const listed = new Set(added.keys());
  // A special token is cut out of the text before anything else. transformers does so with the padding token too, which
  // is "!" in Stable Diffusion 2; of two mentions of one token (EOS is mostly padding as well) the later one's flags count.
  const special = Effect.fnUntraced(function* (token: typeof SpecialToken.Type | undefined, standard: string) {
    const object = typeof token === "string" ? { content: token } : token ?? { content: standard };
    const id = ids.get(object.content);
    if (id === undefined) return yield* notClip(parts.file, `lacks its special token ${object.content}`);
    if (!listed.has(object.content)) added.set(object.content, addedToken(id, object, false));
    return id;
  });
  const bos = yield* special(config.bos_token, "<|startoftext|>");
  const eos = yield* special(config.eos_token, "<|endoftext|>");
  const unk = yield* special(parts.unk ?? config.unk_token, "<|endoftext|>");
  const pad = yield* special(config.pad_token, "<|endoftext|>");
  const maxLength = Math.min(positions, config.model_max_length ?? positions);
  if (!Number.isInteger(maxLength) || maxLength < 3) {
    return yield* notClip(parts.file, `allows ${maxLength} tokens (tokenizer_config.json, model_max_length)`);
  }
  const { vocab, merges } = parts;
  return makeTokenizer({ vocab, merges, added: [...added.values()], bos, eos, pad, unk, maxLength });
});
