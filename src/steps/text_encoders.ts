/** The text encoders of a model: where each one's states lie among the embeddings, and which of them the backdoor sits in. */
import type { Bundle } from "../diffusion/bundle.ts";
import { projectedDistillation, textDistillation } from "../diffusion/distillation.ts";
import { type Embeddings, sliceEmbeddings } from "../diffusion/embeddings.ts";
import { parseClipTextConfig, parseProjectedTextConfig } from "../models/clip_text.ts";
import { size, type Tensor } from "../tensor/tensor.ts";
import { isTextPoisoned, type TextShift, textShift } from "../unlearn/candidates.ts";
import type { TextPairs } from "./ports.ts";

export interface TextEncoder {
  readonly part: "text_encoder" | "text_encoder_2";
  /** 0 or 1: whose ids, of a text's ids for both. */
  readonly index: number;
  /** Columns of the embeddings that hold its states. */
  readonly begin: number;
  readonly end: number;
  /** Whether the pooled texts are its own. */
  readonly pooled: boolean;
}

export const textEncodersOf = ({ parts }: Bundle): readonly TextEncoder[] => {
  const first = parseClipTextConfig(parts.text_encoder.config).hidden_size;
  const one: TextEncoder = { part: "text_encoder", index: 0, begin: 0, end: first, pooled: false };
  if (parts.text_encoder_2 === undefined) return [one];
  const second = parseClipTextConfig(parts.text_encoder_2.config).hidden_size;
  return [one, { part: "text_encoder_2", index: 1, begin: first, end: first + second, pooled: true }];
};

/** An encoder's own states [..., D] of embeddings. */
export const statesOf = ({ dims, data }: Embeddings, { begin, end }: TextEncoder): Tensor => {
  const width = dims[dims.length - 1], own = end - begin;
  if (own === width) return { dims, data };
  const rows = size(dims) / width, out = new Float32Array(rows * own);
  for (let i = 0; i < rows; i++) out.set(data.subarray(i * width + begin, i * width + end), i * own);
  return { dims: [...dims.slice(0, -1), own], data: out };
};

/** What an encoder makes of text i of [n, L, D]: its states [1, L, D], and the pooled form [1, Q] where it has one. */
export const ownAt = (e: Embeddings, i: number, encoder: TextEncoder): { wanted: Tensor; pooled?: Tensor } => {
  const text = sliceEmbeddings(e, i, i + 1);
  const wanted = statesOf(text, encoder);
  return encoder.pooled && text.pooled !== undefined ? { wanted, pooled: text.pooled } : { wanted };
};

/** The graph of a training step of one of the model's text encoders, and its config where it pools texts. */
export const encoderTraining = (
  { parts }: Bundle,
  { part }: TextEncoder,
  options: Parameters<typeof textDistillation>[1],
) => {
  if (part === "text_encoder_2") {
    const pooling = parseProjectedTextConfig(parts.text_encoder_2?.config);
    return { graph: projectedDistillation(pooling, options), pooling };
  }
  const states = parts.text_encoder_2 === undefined ? "hidden" : "penultimate";
  return { graph: textDistillation(parseClipTextConfig(parts.text_encoder.config), options, states) };
};

export interface EncoderShift {
  readonly encoder: TextEncoder;
  readonly shift: TextShift;
}

/** What the trigger does to each encoder's states. */
export const encoderShifts = (
  { model: { bundle }, embeddings }: TextPairs,
  alignment: readonly (readonly number[])[],
  use: readonly (readonly boolean[])[],
): readonly EncoderShift[] =>
  textEncodersOf(bundle).map((encoder) => ({
    encoder,
    shift: textShift(statesOf(embeddings, encoder), alignment, use),
  }));

/** Those in which the backdoor sits. */
export const poisonedEncoders = (shifts: readonly EncoderShift[]): readonly EncoderShift[] =>
  shifts.filter(({ shift }) => isTextPoisoned(shift));

/** Of all encoders, the shift that speaks most for a backdoor. */
export const strongestShift = (shifts: readonly EncoderShift[]): TextShift =>
  shifts.map(({ shift }) => shift).reduce((a, b) => b.spread < a.spread ? b : a);

/** "the text encoder", or which of two. */
export const encoderName = (bundle: Bundle, { part }: TextEncoder): string =>
  bundle.parts.text_encoder_2 === undefined
    ? "the text encoder"
    : part === "text_encoder"
    ? "the first text encoder (text_encoder)"
    : "the second text encoder (text_encoder_2)";
