/** Token ids to the text embeddings that condition the U-Net. */
import { Effect } from "effect";
import { Graph } from "../graph/mod.ts";
import { clipText, parseClipTextConfig } from "../models/clip_text.ts";
import { concat0, slice0 } from "../tensor/tensor.ts";
import type { Bundle } from "./bundle.ts";
import { float32, inBatches, openSession } from "./networks.ts";

const BATCH = 16;

/** Opens the bundle's text encoder; the result maps rows of ids (each of one length) to embeddings [n, L, D]. */
export const openTextEncoder = Effect.fnUntraced(function* (bundle: Bundle) {
  const config = parseClipTextConfig(bundle.parts.text_encoder.config);
  const length = bundle.tokenizer.maxLength;
  const g = new Graph();
  g.output(
    "hidden",
    clipText(config)(g.weights("text_encoder"), { ids: g.input("ids", "int32", [BATCH, length]) }).hidden,
  );
  const session = yield* openSession("text encoder", g, bundle, "text_encoder");

  return Effect.fnUntraced(function* (texts: readonly (readonly number[])[]) {
    const encodeBatch = Effect.fnUntraced(function* (begin: number, real: number) {
      const ids = new Int32Array(BATCH * length);
      for (let i = 0; i < BATCH; i++) ids.set(texts[Math.min(begin + i, texts.length - 1)], i * length);
      const { hidden } = yield* session.run({ ids: { dims: [BATCH, length], data: ids } });
      return slice0(yield* float32(hidden), 0, real);
    });
    return concat0(yield* inBatches(session, texts.length, BATCH, encodeBatch));
  });
});
