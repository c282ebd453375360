/** Comparisons of feature rows, as CLIP gives them for pictures and texts. */
import { sameDims, type Tensor } from "../tensor/tensor.ts";

/**
 * Cosine of each row of `a` with the same row of `b`, both [n, d]; a row of zeros has cosine 0 with everything.
 * @throws RangeError when the dims differ
 */
export const cosines = (a: Tensor, b: Tensor): number[] => {
  if (a.dims.length !== 2 || !sameDims(a.dims, b.dims)) {
    throw new RangeError(
      `cosines: takes features [n, d] twice, not [${a.dims.join(", ")}] and [${b.dims.join(", ")}]`,
    );
  }
  const [n, d] = a.dims;
  return Array.from({ length: n }, (_, i) => {
    let ab = 0, aa = 0, bb = 0;
    for (let j = i * d; j < (i + 1) * d; j++) {
      ab += a.data[j] * b.data[j];
      aa += a.data[j] * a.data[j];
      bb += b.data[j] * b.data[j];
    }
    return aa === 0 || bb === 0 ? 0 : ab / Math.sqrt(aa * bb);
  });
};

/**
 * CLIP score of each picture with its prompt: the cosine of their features (Hessel et al., "CLIPScore", EMNLP 2021,
 * without its factor 2.5 and its cut at 0), one number a pair.
 */
export const clipScores = (pictures: Tensor, texts: Tensor): number[] => cosines(pictures, texts);

/** 1 − cosine, row by row: how far the pictures of `a` are from those of `b`. 0 for the same direction, at most 2. */
export const featureDistances = (a: Tensor, b: Tensor): number[] => cosines(a, b).map((cosine) => 1 - cosine);
