/** Overlap of regions: intersection over union. */
import type { Box } from "../tensor/box.ts";
import { sameDims, type Tensor } from "../tensor/tensor.ts";

/**
 * IoU of the cells where two masks exceed `level`; 1 when both are empty, as nothing was found where nothing is.
 * @throws RangeError when the dims differ
 */
export const maskIou = (a: Tensor, b: Tensor, level = 0.5): number => {
  if (!sameDims(a.dims, b.dims)) {
    throw new RangeError(`maskIou: [${a.dims.join(", ")}] and [${b.dims.join(", ")}] do not cover the same cells`);
  }
  let both = 0, either = 0;
  for (let i = 0; i < a.data.length; i++) {
    const inA = a.data[i] > level, inB = b.data[i] > level;
    if (inA && inB) both++;
    if (inA || inB) either++;
  }
  return either === 0 ? 1 : both / either;
};

/** IoU of two boxes by area; 0 when they do not meet. */
export const boxIou = (a: Box, b: Box): number => {
  const overlap = (from: number, length: number, other: number, otherLength: number) =>
    Math.max(0, Math.min(from + length, other + otherLength) - Math.max(from, other));
  const both = overlap(a.x, a.width, b.x, b.width) * overlap(a.y, a.height, b.y, b.height);
  return both === 0 ? 0 : both / (a.width * a.height + b.width * b.height - both);
};
