/**
 * What the mask algebra works on. A field is a float32 tensor of dims [...batch, h, w]: one number for each latent cell
 * of each map of the batch. A mask is a field of numbers in [0, 1]. Everything here works on each map by itself, so
 * that reordering the batch reorders the result.
 */
import { sameDims, size, type Tensor } from "../tensor/tensor.ts";

/** Height, width, cells of one map and number of maps. @throws RangeError when there are fewer than two dimensions. */
export const shapeOfField = (field: Tensor): { h: number; w: number; cells: number; maps: number } => {
  if (field.dims.length < 2) {
    throw new RangeError(`mask: a field has dims [...batch, height, width], not [${field.dims.join(", ")}]`);
  }
  const [h, w] = field.dims.slice(-2);
  return { h, w, cells: h * w, maps: size(field.dims.slice(0, -2)) };
};

/** The maps of a field one after the other, as views of their cells. */
export const mapsOf = (field: Tensor): Float32Array[] => {
  const { cells, maps } = shapeOfField(field);
  return Array.from({ length: maps }, (_, i) => field.data.subarray(i * cells, (i + 1) * cells));
};

/** A new field of the same dims, cell by cell. */
export const mapCells = (field: Tensor, f: (value: number) => number): Tensor => ({
  dims: field.dims,
  data: field.data.map(f),
});

/** A new field from two of the same dims, cell by cell. @throws RangeError when the dims differ. */
export const zipCells = (a: Tensor, b: Tensor, f: (a: number, b: number) => number): Tensor => {
  if (!sameDims(a.dims, b.dims)) {
    throw new RangeError(`mask: [${a.dims.join(", ")}] and [${b.dims.join(", ")}] do not cover the same cells`);
  }
  return { dims: a.dims, data: a.data.map((value, i) => f(value, b.data[i])) };
};
