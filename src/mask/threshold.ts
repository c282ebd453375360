/** Where to cut a field into inside and outside. */
import type { Tensor } from "../tensor/tensor.ts";
import { quantileOfSorted } from "../tensor/quantile.ts";
import { mapsOf } from "./field.ts";

/** A number to be exceeded, a quantile in [0, 1] of the map's own values, or Otsu's choice from them. */
export type Threshold = { readonly value: number } | { readonly quantile: number } | "otsu";

/**
 * Otsu's threshold: the cut that makes the variance between the two classes greatest (N. Otsu, IEEE Trans. SMC 9(1),
 * 1979). Every cut between two different values is tried, without a histogram, as a latent has few cells; the result
 * lies midway between the two values. All values equal: that value, so that nothing exceeds it.
 */
export const otsu = (values: ArrayLike<number>): number => {
  const sorted = Float64Array.from(values).sort();
  const n = sorted.length;
  const total = sorted.reduce((sum, v) => sum + v, 0);
  let best = -1, threshold = sorted[0], below = 0;
  for (let i = 1; i < n; i++) {
    below += sorted[i - 1];
    if (sorted[i] === sorted[i - 1]) continue;
    const gap = (total - below) / (n - i) - below / i;
    const between = i * (n - i) * gap * gap;
    if (between > best) {
      best = between;
      threshold = (sorted[i - 1] + sorted[i]) / 2;
    }
  }
  return threshold;
};

/** The number that a map's cells must exceed. @throws RangeError on a quantile outside [0, 1] or NaN in the field. */
const cut = (values: Float32Array, threshold: Threshold): number => {
  if (values.some(Number.isNaN)) throw new RangeError("mask: the field holds NaN; no threshold can be chosen");
  if (threshold === "otsu") return otsu(values);
  if ("value" in threshold) return threshold.value;
  return quantileOfSorted(Float64Array.from(values).sort(), threshold.quantile);
};

/** The threshold of each map of the field, in the order of the batch. */
export const thresholds = (field: Tensor, threshold: Threshold): number[] =>
  mapsOf(field).map((values) => cut(values, threshold));

/** The mask of the cells that exceed the threshold of their map: 1 there, 0 elsewhere. */
export const aboveThreshold = (field: Tensor, threshold: Threshold): Tensor => {
  const out: Tensor = { dims: field.dims, data: new Float32Array(field.data.length) };
  const cuts = thresholds(field, threshold);
  const values = mapsOf(field);
  mapsOf(out).forEach((cells, map) => {
    for (let i = 0; i < cells.length; i++) cells[i] = values[map][i] > cuts[map] ? 1 : 0;
  });
  return out;
};
