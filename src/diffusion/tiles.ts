/**
 * A large picture decoded in overlapping tiles, as diffusers' `AutoencoderKL.tiled_decode`: memory for one tile instead of
 * the whole. Tiles see nothing of their surroundings, so neighbours are cross-faded where they overlap.
 */
import type { Tensor } from "../tensor/tensor.ts";

/** Part of a tile that overlaps with the next. */
const OVERLAP = 0.25;

/** A tile's place in the latents, in cells. */
export interface Tile {
  readonly top: number;
  readonly left: number;
  readonly height: number;
  readonly width: number;
}

/** The tiles of [height, width] latents, rows of tiles from the top; those at the far edges may be narrower. */
export const tilesOf = (height: number, width: number, side: number): Tile[][] => {
  const stride = Math.max(1, Math.floor(side * (1 - OVERLAP)));
  const starts = (length: number) => Array.from({ length: Math.ceil(length / stride) }, (_, i) => i * stride);
  return starts(height).map((top) =>
    starts(width).map((left) => ({
      top,
      left,
      height: Math.min(side, height - top),
      width: Math.min(side, width - left),
    }))
  );
};

/** The cells [n, C, h, w] of a tile. */
export const crop = ({ dims: [n, c, h, w], data }: Tensor, tile: Tile): Tensor => {
  const out = new Float32Array(n * c * tile.height * tile.width);
  for (let plane = 0, at = 0; plane < n * c; plane++) {
    for (let y = 0; y < tile.height; y++, at += tile.width) {
      const from = (plane * h + tile.top + y) * w + tile.left;
      out.set(data.subarray(from, from + tile.width), at);
    }
  }
  return { dims: [n, c, tile.height, tile.width], data: out };
};

/** Fades `tile` in from the end of `before`, its neighbour above (`axis` 2) or to the left (3), in place. */
const fade = (before: Tensor, tile: Tensor, axis: 2 | 3, extent: number): void => {
  const [n, c, h, w] = tile.dims;
  const [, , hBefore, wBefore] = before.dims;
  const length = Math.min(extent, before.dims[axis], tile.dims[axis]);
  const [rows, columns] = axis === 2 ? [length, Math.min(w, wBefore)] : [Math.min(h, hBefore), length];
  const [down, across] = axis === 2 ? [hBefore - length, 0] : [0, wBefore - length];
  for (let plane = 0; plane < n * c; plane++) {
    for (let y = 0; y < rows; y++) {
      for (let x = 0; x < columns; x++) {
        const at = (plane * h + y) * w + x, share = (axis === 2 ? y : x) / length;
        const old = before.data[(plane * hBefore + down + y) * wBefore + across + x];
        tile.data[at] = old * (1 - share) + tile.data[at] * share;
      }
    }
  }
};

/**
 * The picture [n, 3, H, W] from its decoded tiles, which are written over.
 * @param pictures one for each of {@link tilesOf}, [n, 3, height · factor, width · factor]
 * @param side of a whole tile in cells
 * @param factor pixels a cell spans on each side
 */
export const joinTiles = (pictures: readonly (readonly Tensor[])[], side: number, factor: number): Tensor => {
  const extent = Math.floor(side * factor * OVERLAP);
  const shown = side * factor - extent;
  const kept = (length: number) => Math.min(shown, length);
  const height = pictures.reduce((sum, row) => sum + kept(row[0].dims[2]), 0);
  const width = pictures[0].reduce((sum, t) => sum + kept(t.dims[3]), 0);
  const [n, c] = pictures[0][0].dims;
  const data = new Float32Array(n * c * height * width);
  pictures.forEach((row, i) =>
    row.forEach((tile, j) => {
      if (i > 0) fade(pictures[i - 1][j], tile, 2, extent);
      if (j > 0) fade(row[j - 1], tile, 3, extent);
      const [, , h, w] = tile.dims;
      for (let plane = 0; plane < n * c; plane++) {
        for (let y = 0; y < kept(h); y++) {
          const from = (plane * h + y) * w;
          data.set(tile.data.subarray(from, from + kept(w)), (plane * height + i * shown + y) * width + j * shown);
        }
      }
    })
  );
  return { dims: [n, c, height, width], data };
};
