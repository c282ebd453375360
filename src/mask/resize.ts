/** Fields between grids: latent cells to pixels, and back. */
import type { Tensor } from "../tensor/tensor.ts";
import { shapeOfField } from "./field.ts";

/** `area` keeps cell edges sharp, `bilinear` interpolates between cell centres. */
export type ResizeMethod = "area" | "bilinear";

/** ∫ from −∞ to t of the box [0, 1]. */
const boxIntegral = (t: number): number => Math.min(1, Math.max(0, t));

/** ∫ from −∞ to t of the tent that is 1 at ½ and 0 at −½ and 1½. */
const tentIntegral = (t: number): number => {
  const s = Math.min(1, Math.max(-1, t - 0.5));
  return 0.5 + s - 0.5 * s * Math.abs(s);
};

/**
 * Weights [to, from] of one axis: the mean over each new cell of the interpolant that the old cells define. The tents
 * are mirrored at both ends, which continues the interpolant as a constant beyond the outermost centres. An axis that
 * keeps its size is left as it is: averaging the interpolant would blur it for nothing.
 */
const axisWeights = (from: number, to: number, method: ResizeMethod): Float64Array => {
  const sharp = method === "area" || from === to;
  const integral = sharp ? boxIntegral : tentIntegral;
  const weights = new Float64Array(to * from);
  const step = from / to;
  for (let i = 0; i < to; i++) {
    for (let j = 0; j < from; j++) {
      const places = sharp ? [j] : [j, -1 - j, 2 * from - 1 - j];
      for (const place of places) {
        weights[i * from + j] += (integral((i + 1) * step - place) - integral(i * step - place)) / step;
      }
    }
  }
  return weights;
};

/**
 * Resizes each map to [height, width]. Both methods average over each new cell's area, rather than taking a sample at
 * its centre, so that constants, the range and the mean are kept at every size, growing or shrinking.
 * @throws RangeError unless the new sides are whole numbers ≥ 1
 */
export const resize = (
  field: Tensor,
  [height, width]: readonly [number, number],
  method: ResizeMethod = "bilinear",
): Tensor => {
  if (!(Number.isInteger(height) && Number.isInteger(width) && height > 0 && width > 0)) {
    throw new RangeError(`mask: cannot resize to ${height} × ${width}; the sides must be whole numbers ≥ 1`);
  }
  const { h, w, cells, maps } = shapeOfField(field);
  const rows = axisWeights(h, height, method), columns = axisWeights(w, width, method);
  const data = new Float32Array(maps * height * width);
  const narrow = new Float64Array(h * width);
  for (let map = 0; map < maps; map++) {
    narrow.fill(0);
    for (let x = 0; x < width; x++) {
      for (let j = 0; j < w; j++) {
        const weight = columns[x * w + j];
        if (weight === 0) continue;
        for (let y = 0; y < h; y++) narrow[y * width + x] += weight * field.data[map * cells + y * w + j];
      }
    }
    for (let y = 0; y < height; y++) {
      for (let x = 0; x < width; x++) {
        let sum = 0;
        for (let j = 0; j < h; j++) {
          const weight = rows[y * h + j];
          if (weight !== 0) sum += weight * narrow[j * width + x];
        }
        data[(map * height + y) * width + x] = sum;
      }
    }
  }
  return { dims: [...field.dims.slice(0, -2), height, width], data };
};
