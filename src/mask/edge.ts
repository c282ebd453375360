/** From a field to soft values in [0, 1], keeping the order of the cells. */
import type { Tensor } from "../tensor/tensor.ts";
import { mapCells, mapsOf } from "./field.ts";

/**
 * A soft step, 1 / (1 + exp(−steepness · (value − centre))): ½ at the centre, falling off over about 4 / steepness to
 * either side. The precursor's is centre 0.5, steepness 12, on values in [0, 1].
 * @throws RangeError unless the steepness is a positive number
 */
export const sigmoidEdge = (field: Tensor, { centre = 0.5, steepness = 12 } = {}): Tensor => {
  if (!(steepness > 0)) throw new RangeError(`mask: an edge's steepness must be greater than 0, not ${steepness}`);
  return mapCells(field, (value) => 1 / (1 + Math.exp(-steepness * (value - centre))));
};

/** Each map stretched to reach from 0 to 1: (value − min) / (max − min). A constant map becomes 0 everywhere. */
export const stretch = (field: Tensor): Tensor => {
  const out: Tensor = { dims: field.dims, data: field.data.slice() };
  for (const cells of mapsOf(out)) {
    let min = Infinity, max = -Infinity;
    for (const value of cells) {
      if (value < min) min = value;
      if (value > max) max = value;
    }
    const range = max - min;
    for (let i = 0; i < cells.length; i++) cells[i] = range > 0 ? (cells[i] - min) / range : 0;
  }
  return out;
};
