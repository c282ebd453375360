/** How far apart two lists of pictures, or of latents, are inside a region. */
import type { Tensor } from "../tensor/tensor.ts";

/**
 * Mean absolute difference of a and b [n, C, h, w] over channels and cells, each cell weighted by the region: one number
 * a row, in the values' own units.
 * @param region weights [h, w] in [0,1], not all 0.
 */
export const regionDistance = (a: Tensor, b: Tensor, region: Tensor): number[] => {
  const [n, channels] = a.dims;
  const cells = region.data.length;
  const weight = channels * region.data.reduce((x, y) => x + y, 0);
  return Array.from({ length: n }, (_, j) => {
    let total = 0;
    for (let i = 0; i < channels * cells; i++) {
      const at = j * channels * cells + i;
      total += Math.abs(a.data[at] - b.data[at]) * region.data[i % cells];
    }
    return total / weight;
  });
};
