/** Gaussian blur that keeps constants, the mean and the range, right up to the border. */
import type { Tensor } from "../tensor/tensor.ts";
import { shapeOfField } from "./field.ts";

/** Weights of the offsets −radius … radius, summing to 1. */
export const gaussianKernel = (sigma: number, radius: number): Float64Array => {
  const weights = Float64Array.from({ length: 2 * radius + 1 }, (_, i) => Math.exp(-0.5 * ((i - radius) / sigma) ** 2));
  const sum = weights.reduce((s, w) => s + w, 0);
  return weights.map((w) => w / sum);
};

/** The cell that stands in for one outside: … c b a | a b c … z | z y x …, as often as needed. */
const reflect = (at: number, n: number): number => {
  const turn = ((at % (2 * n)) + 2 * n) % (2 * n);
  return turn < n ? turn : 2 * n - 1 - turn;
};

/**
 * Blurs each map by a Gaussian of `sigma` cells, cut off at `radius` cells (3σ unless given; the precursor's is σ 2,
 * radius 2). The border reflects, cell edges included, so that no weight is lost or counted twice: the mean stays.
 * Sigma 0 changes nothing.
 */
export const gaussianBlur = (field: Tensor, sigma: number, radius: number = Math.ceil(3 * sigma)): Tensor => {
  if (!(sigma >= 0 && Number.isInteger(radius) && radius >= 0)) {
    throw new RangeError(
      `mask: a blur takes sigma ≥ 0 and a whole radius ≥ 0 in cells, not sigma ${sigma}, radius ${radius}`,
    );
  }
  if (sigma === 0 || radius === 0) return field;
  const { h, w, cells, maps } = shapeOfField(field);
  const kernel = gaussianKernel(sigma, radius);
  const across = new Float64Array(cells);
  const data = new Float32Array(field.data.length);
  for (let map = 0; map < maps; map++) {
    const at = map * cells;
    for (let y = 0; y < h; y++) {
      for (let x = 0; x < w; x++) {
        let sum = 0;
        for (let k = -radius; k <= radius; k++) sum += kernel[k + radius] * field.data[at + y * w + reflect(x + k, w)];
        across[y * w + x] = sum;
      }
    }
    for (let y = 0; y < h; y++) {
      for (let x = 0; x < w; x++) {
        let sum = 0;
        for (let k = -radius; k <= radius; k++) sum += kernel[k + radius] * across[reflect(y + k, h) * w + x];
        data[at + y * w + x] = sum;
      }
    }
  }
  return { dims: field.dims, data };
};
