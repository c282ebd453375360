/** Token ids to the text embeddings that condition the U-Net. */
import { Effect } from "effect";
import { Graph } from "../graph/mod.ts";
import {
  clipText,
  clipTextProjected,
  clipTextStates,
  endPosition,
  parseClipTextConfig,
  parseProjectedTextConfig,
} from "../models/clip_text.ts";
import { concat0, slice0, type Tensor } from "../tensor/tensor.ts";
import type { Bundle } from "./bundle.ts";
import { type Embeddings, withPooled, zeroEmbeddings } from "./embeddings.ts";
import { float32, inBatches, openSession } from "./networks.ts";
import { idsOf } from "./tokenizer_pair.ts";

const BATCH = 16;

/** One row of ids after another. */
const idRows = (texts: readonly (readonly number[])[], length: number): Int32Array => {
  const ids = new Int32Array(texts.length * length);
  texts.forEach((text, i) => ids.set(text, i * length));
  return ids;
};

/** Texts `begin` to `begin + BATCH`; past the end the last one repeats. */
const batchOf = <A>(texts: readonly A[], begin: number): A[] =>
  Array.from({ length: BATCH }, (_, i) => texts[Math.min(begin + i, texts.length - 1)]);

/** The first text encoder: ids [n][L] → states [n, L, D]. */
const openFirst = Effect.fnUntraced(function* (bundle: Bundle, penultimate: boolean) {
  const config = parseClipTextConfig(bundle.parts.text_encoder.config);
  const length = bundle.tokenizer.maxLength;
  const g = new Graph();
  const ids = g.input("ids", "int32", [BATCH, length]);
  const read = g.weights("text_encoder");
  const states = penultimate
    ? clipTextStates(config)(read, { ids }).penultimate
    : clipText(config)(read, { ids }).hidden;
  g.output("hidden", states);
  const session = yield* openSession("text encoder", g, bundle, "text_encoder");

  return Effect.fnUntraced(function* (texts: readonly (readonly number[])[]) {
    const encodeBatch = Effect.fnUntraced(function* (begin: number, real: number) {
      const data = idRows(batchOf(texts, begin), length);
      const { hidden } = yield* session.run({ ids: { dims: [BATCH, length], data } });
      return slice0(yield* float32(hidden), 0, real);
    });
    return concat0(yield* inBatches(session, texts.length, BATCH, encodeBatch));
  });
});

/** SDXL's second text encoder: ids [n][L] → states [n, L, D] and pooled texts [n, Q]. */
const openSecond = Effect.fnUntraced(function* (bundle: Bundle, json: unknown) {
  const config = parseProjectedTextConfig(json);
  const length = bundle.tokenizer.maxLength;
  const dims = [BATCH, length];
  const g = new Graph();
  const { penultimate, pooled } = clipTextProjected(config)(g.weights("text_encoder_2"), {
    ids: g.input("ids", "int32", dims),
    end: g.input("end", "float32", dims),
  });
  g.output("hidden", penultimate);
  g.output("pooled", pooled);
  const session = yield* openSession("second text encoder", g, bundle, "text_encoder_2");

  return Effect.fnUntraced(function* (texts: readonly (readonly number[])[]) {
    const encodeBatch = Effect.fnUntraced(function* (begin: number, real: number) {
      const some = batchOf(texts, begin);
      const out = yield* session.run({
        ids: { dims, data: idRows(some, length) },
        end: endRows(config, some, length),
      });
      return {
        hidden: slice0(yield* float32(out.hidden), 0, real),
        pooled: slice0(yield* float32(out.pooled), 0, real),
      };
    });
    const batches = yield* inBatches(session, texts.length, BATCH, encodeBatch);
    return { hidden: concat0(batches.map((b) => b.hidden)), pooled: concat0(batches.map((b) => b.pooled)) };
  });
});

/** One-hot rows [n, L] at the end of each text, where it is pooled. */
export const endRows = (
  config: { readonly eos_token_id: number },
  texts: readonly (readonly number[])[],
  length: number,
): Tensor => {
  const data = new Float32Array(texts.length * length);
  texts.forEach((ids, i) => data[i * length + endPosition(config, ids)] = 1);
  return { dims: [texts.length, length], data };
};

/** States of two encoders side by side: [n, L, A] and [n, L, B] → [n, L, A + B]. */
export const besides = (a: Tensor, b: Tensor): Tensor => {
  const [n, length, left] = a.dims, right = b.dims[2], width = left + right;
  const data = new Float32Array(n * length * width);
  for (let row = 0; row < n * length; row++) {
    data.set(a.data.subarray(row * left, (row + 1) * left), row * width);
    data.set(b.data.subarray(row * right, (row + 1) * right), row * width + left);
  }
  return { dims: [n, length, width], data };
};

/**
 * Opens the bundle's text encoder, or both; the result maps rows of ids (as the bundle's tokenizer gives them) to
 * embeddings [n, L, D], pooled as well where there are two.
 */
export const openTextEncoder = Effect.fnUntraced(function* (bundle: Bundle) {
  const { text_encoder_2: projected } = bundle.parts;
  const length = bundle.tokenizer.maxLength;
  const first = yield* openFirst(bundle, projected !== undefined);
  const second = projected === undefined ? undefined : yield* openSecond(bundle, projected.config);
  return Effect.fnUntraced(function* (texts: readonly (readonly number[])[]) {
    if (second === undefined) return withPooled(yield* first(texts), undefined);
    const states = yield* first(texts.map((ids) => idsOf(ids, 0, length)));
    const { hidden, pooled } = yield* second(texts.map((ids) => idsOf(ids, 1, length)));
    return withPooled(besides(states, hidden), pooled);
  });
});

/** Texts [n] as the bundle reads them, [n, L, D], by an encoder that is opened for them alone. */
export const encodeOnce = (bundle: Bundle, texts: readonly string[]) =>
  Effect.scoped(Effect.flatMap(
    openTextEncoder(bundle),
    (encodeTexts) => encodeTexts(texts.map((text) => bundle.tokenizer.encode(text).ids)),
  ));

/**
 * What guidance steers away from: the empty prompt's embeddings [1, L, D], or zeros of their shape where the model asks
 * for them (SDXL's `force_zeros_for_empty_prompt`, which is true unless model_index.json says otherwise).
 */
export const unconditional = ({ parts, index }: Bundle, empty: Embeddings): Embeddings =>
  parts.text_encoder_2 !== undefined && index.force_zeros_for_empty_prompt !== false ? zeroEmbeddings(empty) : empty;
