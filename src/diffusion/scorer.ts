/** The scoring CLIP: pictures and texts to features in one space. Any CLIPModel folder of transformers will do. */
import { Effect } from "effect";
import { Graph } from "../graph/mod.ts";
import { clipImageFeatures, clipTextFeatures, parseClipConfig } from "../models/clip.ts";
import { resize } from "../mask/resize.ts";
import { concat0, slice0, type Tensor } from "../tensor/tensor.ts";
import { float32, inBatches, openSession, rows } from "./networks.ts";
import type { ScoringModel } from "./scoring.ts";

const BATCH = 16;

/** Rows [n, D] scaled to length 1, so that a product of two is their cosine. */
export const unitRows = (t: Tensor): Tensor => {
  const width = t.dims[1];
  const data = t.data.slice();
  for (let i = 0; i < t.dims[0]; i++) {
    const row = data.subarray(i * width, (i + 1) * width);
    const norm = Math.sqrt(row.reduce((sum, x) => sum + x * x, 0)) || 1;
    row.forEach((x, j) => row[j] = x / norm);
  }
  return { dims: t.dims, data };
};

/** Opens sessions of a scoring CLIP. Features are rows of length 1. */
export const openScorer = Effect.fnUntraced(function* (model: ScoringModel) {
  const { tokenizer, normalisation: { mean, std } } = model;
  const config = parseClipConfig(model.parts.clip.config);
  const side = config.vision.image_size;
  const length = Math.min(tokenizer.maxLength, config.text.max_position_embeddings);

  const pictures = new Graph();
  const pixels = pictures.input("pixels", "float32", [BATCH, 3, side, side]);
  pictures.output("features", clipImageFeatures(config)(pictures.weights("clip"), { pixels }));
  const pictureSession = yield* openSession("CLIP vision", pictures, model, "clip");

  const texts = new Graph();
  const inputs = {
    ids: texts.input("ids", "int32", [BATCH, length]),
    end: texts.input("end", "float32", [BATCH, length]),
  };
  texts.output("features", clipTextFeatures(config)(texts.weights("clip"), inputs));
  const textSession = yield* openSession("CLIP text", texts, model, "clip");

  const normalise = (t: Tensor): Tensor => {
    const plane = side * side;
    return {
      dims: t.dims,
      data: t.data.map((x, i) => (x - mean[Math.floor(i / plane) % 3]) / std[Math.floor(i / plane) % 3]),
    };
  };

  return {
    /** Pictures [n, 3, H, W] in 0…1, resized to the model's side → [n, D]. */
    pictures: Effect.fnUntraced(function* (all: Tensor) {
      const sized = all.dims[2] === side && all.dims[3] === side ? all : resize(all, [side, side]);
      const ready = normalise(sized);
      const scoreBatch = Effect.fnUntraced(function* (begin: number, real: number) {
        const { features } = yield* pictureSession.run({ pixels: rows(ready, begin, BATCH) });
        return slice0(yield* float32(features), 0, real);
      });
      return unitRows(concat0(yield* inBatches(pictureSession, ready.dims[0], BATCH, scoreBatch)));
    }),

    /** Texts → [n, D]. */
    texts: Effect.fnUntraced(function* (all: readonly string[]) {
      const scoreBatch = Effect.fnUntraced(function* (begin: number, real: number) {
        const ids = new Int32Array(BATCH * length);
        const end = new Float32Array(BATCH * length);
        for (let i = 0; i < BATCH; i++) {
          // A model's own tokenizer may bring ids for a second encoder.
          const row = tokenizer.encode(all[Math.min(begin + i, all.length - 1)]).ids.slice(0, length);
          ids.set(row, i * length);
          // The text ends at its first end token; those after it are padding.
          end[i * length + row.indexOf(tokenizer.eos)] = 1;
        }
        const dims = [BATCH, length];
        const { features } = yield* textSession.run({ ids: { dims, data: ids }, end: { dims, data: end } });
        return slice0(yield* float32(features), 0, real);
      });
      return unitRows(concat0(yield* inBatches(textSession, all.length, BATCH, scoreBatch)));
    }),
  };
});
