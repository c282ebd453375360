/**
 * What stands between a prompt and the text encoder: a tokenizer that reads two different texts alike, or knows tokens
 * that others do not, is a backdoor without a changed weight.
 */
import { Effect, Predicate, Schema } from "effect";
import { BundleError, visible } from "./errors.ts";
import { byteLetters, WORD_END } from "./bpe.ts";
import { fileIn, type Folder, readJson, readText } from "./files.ts";
import { counted, finding } from "./inspect_finding.ts";
import type { Finding, TokenizerFacts } from "./inspection.ts";
import type { Tokenizer } from "./tokenizer.ts";
import { loadTokenizer } from "./tokenizer_files.ts";

const MAX_FILE = 16 << 20;
/** Differences that are told in words. */
const TOLD = 6;

/** A tokenizer as its files have it, before anybody makes sense of it. */
export interface RawTokenizer {
  /** Token to id. */
  readonly vocab: ReadonlyMap<string, number>;
  /** "left right", in order of rank. */
  readonly merges: readonly string[];
  /** Tokens that are cut out of the text before the rest is read. */
  readonly added: ReadonlyMap<string, number>;
  /** What is done to a text first, as JSON; undefined in the layout of vocab.json, which leaves it to the program. */
  readonly normalizer: string | undefined;
  readonly splitter: string | undefined;
}

const Ids = Schema.Record(Schema.String, Schema.Int);
const TokenizerJson = Schema.Struct({
  normalizer: Schema.optionalKey(Schema.Unknown),
  pre_tokenizer: Schema.optionalKey(Schema.Unknown),
  added_tokens: Schema.optionalKey(Schema.Array(Schema.Struct({ id: Schema.Int, content: Schema.String }))),
  model: Schema.Struct({
    vocab: Ids,
    merges: Schema.Array(Schema.Union([Schema.String, Schema.Array(Schema.String)])),
  }),
});
const Decoder = Schema.Struct({
  added_tokens_decoder: Schema.optionalKey(Schema.Record(Schema.String, Schema.Struct({ content: Schema.String }))),
});

/** JSON with keys in order, so that equal values are equal texts. */
const canonical = (value: unknown): string =>
  JSON.stringify(
    value,
    (_, v: unknown) =>
      Predicate.isObject(v) && !Array.isArray(v)
        ? Object.fromEntries(Object.entries(v).sort(([a], [b]) => a < b ? -1 : a > b ? 1 : 0))
        : v,
  ) ?? "null";

/** Reads a tokenizer's files without judging them; undefined when there are none. */
export const readRawTokenizer = Effect.fnUntraced(function* (
  folder: Folder,
): Effect.fn.Return<RawTokenizer | undefined, BundleError> {
  const settings = yield* readJson(folder, "tokenizer_config.json", Decoder);
  const listed = Object.entries(settings?.added_tokens_decoder ?? {}).map(([id, { content }]) =>
    [content, Number(id)] as const
  );
  const json = yield* readJson(folder, "tokenizer.json", TokenizerJson, MAX_FILE);
  if (json !== undefined) {
    return {
      vocab: new Map(Object.entries(json.model.vocab)),
      merges: json.model.merges.map((m) => typeof m === "string" ? m : m.join(" ")),
      added: new Map([...listed, ...(json.added_tokens ?? []).map((t) => [t.content, t.id] as const)]),
      normalizer: canonical(json.normalizer),
      splitter: canonical(json.pre_tokenizer),
    };
  }
  const vocab = yield* readJson(folder, "vocab.json", Ids, MAX_FILE);
  if (vocab === undefined) return undefined;
  const merges = yield* fileIn(folder, "merges.txt");
  const lines = merges === undefined ? [] : (yield* readText(merges, MAX_FILE)).split(/\r?\n/);
  const added = yield* readJson(folder, "added_tokens.json", Ids);
  return {
    vocab: new Map(Object.entries(vocab)),
    merges: lines.filter((line) => line !== "" && !line.startsWith("#version")),
    added: new Map([...listed, ...Object.entries(added ?? {})]),
    normalizer: undefined,
    splitter: undefined,
  };
});

/** Tokens that every CLIP tokenizer of Stable Diffusion has beside its words; "!" pads in Stable Diffusion 2. */
const USUAL = new Set(["<|startoftext|>", "<|endoftext|>", "!"]);

/** What CLIP does to a text before it is split: NFC, white space to one space, lower case. */
const NORMALIZER = canonical({
  type: "Sequence",
  normalizers: [
    { type: "NFC" },
    { type: "Replace", pattern: { Regex: "\\s+" }, content: " " },
    { type: "Lowercase" },
  ],
});
const WORDS = "'s|'t|'re|'ve|'m|'ll|'d|[\\p{L}]+|[\\p{N}]|[^\\s\\p{L}\\p{N}]+";
/** How CLIP splits it; newer versions name the two special tokens first. */
const SPLITTERS = ["<\\|startoftext\\|>|<\\|endoftext\\|>|", ""].flatMap((special) =>
  [{ add_prefix_space: false, trim_offsets: true, use_regex: true }, { add_prefix_space: false, trim_offsets: true }]
    .map((flags) =>
      canonical({
        type: "Sequence",
        pretokenizers: [
          { type: "Split", pattern: { Regex: special + WORDS }, behavior: "Removed", invert: true },
          { type: "ByteLevel", ...flags },
        ],
      })
    )
);

/** Tokens that no byte, no merge and no special token accounts for. */
const unreachable = ({ vocab, merges, added }: RawTokenizer): string[] => {
  const made = new Set([...byteLetters, ...byteLetters.map((c) => c + WORD_END), ...added.keys(), ...USUAL]);
  for (const merge of merges) made.add(merge.replace(" ", ""));
  return [...vocab.keys()].filter((token) => !made.has(token));
};

/** What is odd about the files by themselves. */
const oddRaw = (raw: RawTokenizer, where: string): Finding[] => {
  const out: Finding[] = [];
  const added = [...raw.added].filter(([content]) => !USUAL.has(content));
  if (added.length > 0) {
    out.push(finding("added-tokens", "warn", added.map(([content, id]) => `${visible(content)} = ${id}`), {
      what: `${counted(added.length, "added token")} in ${where}`,
      why:
        "An added token gives a text an embedding of its own, whatever the text says: textual inversion, or a trigger.",
      todo: "Try prompts with and without them: sau scan MODEL --words FILE, a token a line.",
    }));
  }
  const ids = [...Map.groupBy(raw.vocab, ([, id]) => id).values()].filter((g) => g.length > 1);
  if (ids.length > 0) {
    out.push(finding("shared-ids", "warn", ids.map((g) => g.map(([token]) => visible(token)).slice(0, 4).join(" = ")), {
      what: `${counted(ids.length, "id")} that several tokens share in ${where}`,
      why: "Different texts are read as the same one: a look-alike letter can stand for another word.",
      todo: "Replace the tokenizer by the one of the model that it is said to come from.",
    }));
  }
  const bytes = [...byteLetters, ...byteLetters.map((c) => c + WORD_END)].filter((c) => !raw.vocab.has(c));
  if (bytes.length > 0) {
    out.push(finding("missing-bytes", "warn", bytes.map(visible), {
      what: `${counted(bytes.length, "byte")} without a token in ${where}`,
      why: "Characters made of them are all read as the same unknown token.",
      todo: "Replace the tokenizer by the one of the model that it is said to come from.",
    }));
  }
  if (raw.normalizer !== undefined && raw.normalizer !== NORMALIZER) {
    out.push(finding("normalizer", "warn", [where], {
      what: `texts are prepared otherwise than CLIP does it: ${raw.normalizer.slice(0, 300)}`,
      why: "A rule here can turn any text into any other before a token is looked up.",
      todo: "Replace the tokenizer by the one of the model that it is said to come from.",
    }));
  }
  if (raw.splitter !== undefined && !SPLITTERS.includes(raw.splitter)) {
    out.push(finding("splitter", "warn", [where], {
      what: `texts are split otherwise than CLIP does it: ${raw.splitter.slice(0, 300)}`,
      why: "Other pieces make other tokens: the text encoder reads what it was not trained on.",
      todo: "Replace the tokenizer by the one of the model that it is said to come from.",
    }));
  }
  const strange = unreachable(raw);
  if (strange.length > 0) {
    out.push(finding("unreachable-tokens", "info", strange.map(visible), {
      what: `${counted(strange.length, "token")} of ${where} that no merge makes`,
      why: "No text is read as them, unless another program reads the vocabulary in its own way.",
      todo: "Nothing, unless the tokenizer should be a stock one.",
    }));
  }
  return out;
};

/** Code points that are tried: letters, digits and signs of most scripts, and what hides or looks alike. */
const PROBED: ReadonlyArray<readonly [number, number]> = [[0x21, 0x3100], [0xfb00, 0xfffe], [0x1d400, 0x1d800]];

/** CLIP's own preparation of a text: what agrees after it is meant to be read alike. */
const normalForm = (c: string): string => c.normalize("NFC").replace(/\p{White_Space}+/gu, " ").toLowerCase();

/** Pairs of characters that are read as the same tokens though nothing says that they should be. */
const alike = (tokenizer: Tokenizer): string[] => {
  const seen = new Map<string, string>();
  const found: string[] = [];
  for (const [from, to] of PROBED) {
    for (let code = from; code < to; code++) {
      if (code >= 0xd800 && code < 0xe000) continue;
      const c = String.fromCodePoint(code);
      if (normalForm(c) !== c || /\p{White_Space}/u.test(c)) continue;
      const ids = tokenizer.tokens(c).map((t) => t.id).join(" ");
      const other = seen.get(ids);
      if (other === undefined) seen.set(ids, c);
      else found.push(`${named(other)} = ${named(c)}`);
    }
  }
  return found;
};

const named = (c: string): string =>
  `${visible(c)} U+${(c.codePointAt(0) ?? 0).toString(16).toUpperCase().padStart(4, "0")}`;

const oddReading = (tokenizer: Tokenizer, where: string): Finding[] => {
  const pairs = alike(tokenizer);
  return pairs.length === 0 ? [] : [finding("characters-alike", "warn", pairs, {
    what: `${counted(pairs.length, "pair")} of different characters that ${where} reads as the same tokens`,
    why: "A reader sees one text, the model another; or the model cannot see a difference that a reader sees.",
    todo: "Replace the tokenizer by the one of the model that it is said to come from.",
  })];
};

/** One way in which two tokenizers differ. */
export interface TokenizerDifference {
  readonly where: string;
  readonly first: string | null;
  readonly second: string | null;
}

const some = (list: readonly string[]): string =>
  list.slice(0, TOLD).join(", ") + (list.length > TOLD ? `, … (${list.length.toLocaleString("en")} in all)` : "");

/** How a tokenizer differs from another, for instance from CLIP's own. Empty when texts are read alike. */
export const tokenizerDifferences = (a: RawTokenizer, b: RawTokenizer): TokenizerDifference[] => {
  const out: TokenizerDifference[] = [];
  const say = (where: string, first: readonly string[], second: readonly string[]) => {
    if (first.length + second.length > 0) {
      out.push({
        where,
        first: first.length === 0 ? null : some(first),
        second: second.length === 0 ? null : some(second),
      });
    }
  };
  const tokens = (t: RawTokenizer) => new Map([...t.vocab, ...t.added]);
  const [ours, theirs] = [tokens(a), tokens(b)];
  const only = (x: ReadonlyMap<string, number>, y: ReadonlyMap<string, number>) =>
    [...x.keys()].filter((token) => !y.has(token)).map(visible);
  say("tokens that only one has", only(ours, theirs), only(theirs, ours));
  const moved = [...ours].filter(([token, id]) => theirs.has(token) && theirs.get(token) !== id);
  say(
    "tokens with another id",
    moved.map(([token, id]) => `${visible(token)} = ${id}`),
    moved.map(([token]) => `${visible(token)} = ${theirs.get(token)}`),
  );
  const listed = (x: RawTokenizer, y: RawTokenizer) =>
    [...x.added.keys()].filter((token) => !y.added.has(token) && !USUAL.has(token)).map(visible);
  say("added tokens", listed(a, b), listed(b, a));
  const at = Array.from({ length: Math.max(a.merges.length, b.merges.length) }, (_, i) => i).find((i) =>
    a.merges[i] !== b.merges[i]
  );
  if (at !== undefined) {
    say(`merges, from rank ${at} on`, [`${visible(a.merges[at] ?? "none")}`], [`${visible(b.merges[at] ?? "none")}`]);
  }
  for (const key of ["normalizer", "splitter"] as const) {
    // The layout of vocab.json says nothing about it: the program does what CLIP does.
    const [first, second] = [a[key], b[key]];
    if (first !== undefined && second !== undefined && first !== second) {
      say(key, [first.slice(0, 300)], [second.slice(0, 300)]);
    }
  }
  return out;
};

export interface LookedAt {
  readonly raw: RawTokenizer | undefined;
  readonly facts: TokenizerFacts | null;
  readonly findings: readonly Finding[];
}

/**
 * Looks at one tokenizer folder; what cannot be read is a finding.
 * @param stock the tokenizer that the model should have, where that is known
 */
export const lookAtTokenizer = Effect.fnUntraced(function* (
  folder: Folder,
  where: string,
  positions: number | undefined,
  stock?: RawTokenizer,
): Effect.fn.Return<LookedAt> {
  const findings: Finding[] = [];
  const unreadable = (error: BundleError) => {
    findings.push(finding("tokenizer-unreadable", "warn", [where], {
      what: error.message,
      why: "Nobody can tell what the text encoder is given.",
      todo: "Take the tokenizer of the model that it is said to come from.",
    }));
    return Effect.succeed(undefined);
  };
  const unbuilt = (defect: unknown) =>
    unreadable(new BundleError({ file: folder.path, problem: `holds a tokenizer that cannot be built: ${defect}` }));
  const raw = yield* readRawTokenizer(folder).pipe(Effect.catch(unreadable), Effect.catchDefect(unbuilt));
  if (raw === undefined) return { raw, facts: null, findings };
  findings.push(...oddRaw(raw, where));
  if (stock !== undefined) {
    const apart = tokenizerDifferences(stock, raw);
    if (apart.length > 0) {
      findings.push(
        finding("not-stock", "warn", apart.map((d) => `${d.where}: ${d.first ?? "none"} → ${d.second ?? "none"}`), {
          what: `${where} is not CLIP's own tokenizer: ${counted(apart.length, "difference")}`,
          why: "Stable Diffusion 1.x and 2.x all use CLIP's; a changed one reads texts otherwise.",
          todo: "Replace it by CLIP's own, or ask what the change is for.",
        }),
      );
    }
  }
  const tokenizer = yield* loadTokenizer(folder, positions ?? 77).pipe(
    Effect.catch(unreadable),
    Effect.catchDefect(unbuilt),
  );
  if (tokenizer !== undefined) findings.push(...oddReading(tokenizer, where));
  let tokens = tokenizer?.vocabSize ?? 0;
  for (const id of [...raw.vocab.values(), ...raw.added.values()]) tokens = Math.max(tokens, id + 1);
  const facts: TokenizerFacts = {
    tokens,
    merges: raw.merges.length,
    maxLength: tokenizer?.maxLength ?? positions ?? 77,
    added: [...raw.added].filter(([content]) => !USUAL.has(content)).slice(0, 200).map(([content, id]) => ({
      id,
      content,
    })),
  };
  return { raw, facts, findings };
});
