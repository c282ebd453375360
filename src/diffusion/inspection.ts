/**
 * What `sau inspect` finds, as data: the shape of `sau inspect --json` and of `inspection.json`. Fields may be added;
 * none is renamed or given another meaning without a new `format`.
 */
import { Schema } from "effect";

export const FORMAT = "sau.inspection/1";

const Count = Schema.Int;
const Dims = Schema.Array(Count);

/** `warn`: look at it before using the model. `info`: worth knowing. */
export const Severity = Schema.Literals(["warn", "info"]);
export type Severity = typeof Severity.Type;

/** Something odd. */
export const Finding = Schema.Struct({
  /** What kind of oddity; stays the same from version to version. */
  code: Schema.String,
  severity: Severity,
  /** Files, tensors or keys, the first of them; `count` says how many there are in all. */
  where: Schema.Array(Schema.String),
  count: Count,
  /** What is there. */
  what: Schema.String,
  /** Why it matters. */
  why: Schema.String,
  /** What to do. */
  todo: Schema.String,
});
export type Finding = typeof Finding.Type;

/** One tensor. Figures are of its finite values; null where its element type is not read. */
export const TensorFacts = Schema.Struct({
  /** As in the file. */
  key: Schema.String,
  /** File, as in `files`. */
  file: Schema.String,
  dtype: Schema.String,
  dims: Dims,
  parameters: Count,
  /** Kind of tensor: conv, linear, embedding, norm, bias, lora or other. */
  kind: Schema.String,
  /** Layer that it belongs to, and what it is there: `down_blocks.0.resnets.1` and `conv1`. */
  layer: Schema.String,
  role: Schema.String,
  sha256: Schema.String,
  /** Root of the mean square; the Frobenius norm is rms · √parameters. */
  rms: Schema.NullOr(Schema.Finite),
  mean: Schema.NullOr(Schema.Finite),
  min: Schema.NullOr(Schema.Finite),
  max: Schema.NullOr(Schema.Finite),
  zeros: Count,
  nan: Count,
  infinite: Count,
});
export type TensorFacts = typeof TensorFacts.Type;

const Tally = Schema.Struct({ tensors: Count, parameters: Count, bytes: Count });
export type Tally = typeof Tally.Type;

/** A line of a description: `context width`, `768`. */
export const Fact = Schema.Struct({ name: Schema.String, value: Schema.String });
export type Fact = typeof Fact.Type;

/** A network, or in a lone file what belongs to one. */
export const PartFacts = Schema.Struct({
  /** `unet`, `text_encoder`, `vae`, … or `lora`, `embedding`, `tensors`. */
  name: Schema.String,
  /** Class by config.json, else what the tensors look like. */
  class: Schema.String,
  facts: Schema.Array(Fact),
  parameters: Count,
  bytes: Count,
  dtypes: Schema.Record(Schema.String, Tally),
  kinds: Schema.Record(Schema.String, Tally),
  /** Weights files that it is read from, as in `files`. */
  files: Schema.Array(Schema.String),
  /**
   * SHA-256 over the lines `key dtype dims sha256` of its tensors in order of their keys: the same for the same weights,
   * however they are spread over files.
   */
  sha256: Schema.String,
  tensors: Schema.Array(TensorFacts),
});
export type PartFacts = typeof PartFacts.Type;

export const FileFacts = Schema.Struct({
  /** Path in the folder. */
  path: Schema.String,
  bytes: Count,
  /** Null for what is not opened: pickle, code, links that leave the folder, other weights. */
  sha256: Schema.NullOr(Schema.String),
  /** weights, config, tokenizer, text, code, pickle, link, other weights, or other. */
  use: Schema.String,
  /** `__metadata__` of a safetensors file. Long values are cut. */
  metadata: Schema.optionalKey(Schema.Record(Schema.String, Schema.String)),
});
export type FileFacts = typeof FileFacts.Type;

export const TokenizerFacts = Schema.Struct({
  /** Tokens in all, added ones included. */
  tokens: Count,
  merges: Count,
  maxLength: Count,
  /** Added tokens besides those that every CLIP tokenizer has. */
  added: Schema.Array(Schema.Struct({ id: Count, content: Schema.String })),
});
export type TokenizerFacts = typeof TokenizerFacts.Type;

const described = {
  /** As it was given. */
  path: Schema.String,
  /** `model`: a folder with model_index.json; `parts`: folders of single parts; `file`: one .safetensors file. */
  is: Schema.Literals(["model", "parts", "file"]),
  /** In a few words. */
  title: Schema.String,
  facts: Schema.Array(Fact),
  parameters: Count,
  bytes: Count,
  parts: Schema.Array(PartFacts),
  tokenizer: Schema.NullOr(TokenizerFacts),
  files: Schema.Array(FileFacts),
  /** Warnings first. */
  findings: Schema.Array(Finding),
};

/** One checkpoint. */
export const Description = Schema.Struct(described);
export type Description = typeof Description.Type;

/** A tensor that both models have. */
export const TensorChange = Schema.Struct({
  /** As in the first model's file. */
  key: Schema.String,
  dims: Dims,
  kind: Schema.String,
  layer: Schema.String,
  role: Schema.String,
  /** same: equal values. rounding: no more than rounding to the coarser element type does. moved: more than that. */
  state: Schema.Literals(["same", "rounding", "moved"]),
  /** ‖Δ‖ / ‖W‖ (Frobenius), Δ = second − first; null when W is 0. */
  relative: Schema.NullOr(Schema.Finite),
  /** ‖Δ‖. */
  norm: Schema.Finite,
  /** Share of elements whose values differ. */
  changed: Schema.Finite,
  /** Rows (first axis) in which anything differs. */
  rows: Count,
  /** For matrices, convolutions as [out, in · kernel]; null for vectors and what was too large. */
  rank: Schema.NullOr(Schema.Struct({
    /** Singular values of Δ that hold 99 % of ‖Δ‖² beyond rounding; null: more than `sought`. */
    of99: Schema.NullOr(Count),
    /** The same for 99.99 %. */
    of9999: Schema.NullOr(Count),
    /** The smaller side of the matrix: the largest rank there could be. */
    full: Count,
    /** The largest rank that was looked for. */
    sought: Count,
    /** ‖Δ‖₂ / ‖Δ‖: 1 for a change of rank 1; null where more than `sought` directions are needed by far. */
    leading: Schema.NullOr(Schema.Finite),
  })),
});
export type TensorChange = typeof TensorChange.Type;

/** All tensors of a block, a role or a part together. */
export const Summary = Schema.Struct({
  name: Schema.String,
  tensors: Count,
  moved: Count,
  /** √(Σ‖Δ‖² / Σ‖W‖²). */
  relative: Schema.Finite,
});
export type Summary = typeof Summary.Type;

export const PartChange = Schema.Struct({
  name: Schema.String,
  total: Summary,
  /** Resolutions of a U-Net, layers of a text encoder, … */
  blocks: Schema.Array(Summary),
  /** Kinds of tensors: `attn2.to_k`, `conv1`, … */
  roles: Schema.Array(Summary),
  tensors: Schema.Array(TensorChange),
  /** Keys that only one of the two has, or that differ in shape. */
  onlyFirst: Schema.Array(Schema.String),
  onlySecond: Schema.Array(Schema.String),
  reshaped: Schema.Array(Schema.String),
  /** Of an embedding of which few rows moved: those rows. `text` is the token where a tokenizer names it. */
  rows: Schema.Array(Schema.Struct({
    key: Schema.String,
    row: Count,
    text: Schema.NullOr(Schema.String),
    relative: Schema.NullOr(Schema.Finite),
  })),
  /** What the changes look like: in a few words, and in a few sentences. */
  headline: Schema.String,
  reading: Schema.String,
});
export type PartChange = typeof PartChange.Type;

/** What the second model has moved, as seen from the first. */
export const Comparison = Schema.Struct({
  /** A line for each part: its name and its headline. */
  headline: Schema.String,
  parts: Schema.Array(PartChange),
  /** Parts that only one of the two holds. */
  onlyFirst: Schema.Array(Schema.String),
  onlySecond: Schema.Array(Schema.String),
  /** Config values and tokenizer contents that differ; null where one has none. */
  settings: Schema.Array(Schema.Struct({
    where: Schema.String,
    first: Schema.NullOr(Schema.String),
    second: Schema.NullOr(Schema.String),
  })),
});
export type Comparison = typeof Comparison.Type;

/** The whole result. */
export const Inspection = Schema.Struct({
  format: Schema.Literal(FORMAT),
  /** Of sau. */
  version: Schema.String,
  ...described,
  /** With two models: the second one, and what it moved. */
  other: Schema.NullOr(Description),
  comparison: Schema.NullOr(Comparison),
});
export type Inspection = typeof Inspection.Type;
