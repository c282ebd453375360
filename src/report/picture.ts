/** Tensors as pictures inside the page: PNG in a data URI, so that nothing is loaded from anywhere. */
import { encode } from "fast-png";
import { Buffer } from "node:buffer";
import { size, type Tensor } from "../tensor/tensor.ts";
import { colour } from "./colormap.ts";

/** Longest side of a picture in the report. A page of large pictures would not open. */
export const LARGEST = 256;

const dataUri = (width: number, height: number, data: Uint8Array): string =>
  `data:image/png;base64,${Buffer.from(encode({ width, height, data, channels: 3, depth: 8 })).toString("base64")}`;

const byte = (x: number): number => Math.round(255 * Math.min(1, Math.max(0, x || 0)));

const check = (t: Tensor, dims: number, what: string): void => {
  if (t.dims.length !== dims || t.data.length !== size(t.dims) || t.data.length === 0) {
    throw new RangeError(`a ${what} was expected, not [${t.dims.join(", ")}]`);
  }
};

/** A picture's bytes, row by row, red, green and blue. */
interface Pixels {
  readonly width: number;
  readonly height: number;
  readonly data: Uint8Array;
}

/** A picture [3, H, W] in 0…1, made smaller by whole factors (mean of blocks) when it is larger than the report wants. */
const pixelsOf = (picture: Tensor): Pixels => {
  check(picture, 3, "picture [3, height, width]");
  const [, h, w] = picture.dims;
  const block = Math.ceil(Math.max(h, w) / LARGEST);
  const [height, width] = [Math.floor(h / block), Math.floor(w / block)];
  const data = new Uint8Array(3 * height * width);
  for (let c = 0; c < 3; c++) {
    for (let y = 0; y < height; y++) {
      for (let x = 0; x < width; x++) {
        let sum = 0;
        for (let i = 0; i < block * block; i++) {
          sum += picture.data[(c * h + y * block + Math.floor(i / block)) * w + x * block + i % block];
        }
        data[3 * (y * width + x) + c] = byte(sum / (block * block));
      }
    }
  }
  return { width, height, data };
};

export const pictureUri = (picture: Tensor): string => {
  const { width, height, data } = pixelsOf(picture);
  return dataUri(width, height, data);
};

/** White between the pictures of a mosaic, in pixels. */
const GAP = 2;

/** Rows of pictures [3, H, W], all of one size, as one PNG. */
export const mosaicPng = (rows: ReadonlyArray<readonly Tensor[]>): Uint8Array => {
  const tiles = rows.map((row) => row.map(pixelsOf));
  const { width: w, height: h } = tiles[0][0];
  const columns = Math.max(...tiles.map((row) => row.length));
  const width = columns * (w + GAP) - GAP, height = tiles.length * (h + GAP) - GAP;
  const data = new Uint8Array(3 * width * height).fill(255);
  tiles.forEach((row, r) =>
    row.forEach((tile, c) => {
      for (let y = 0; y < h; y++) {
        data.set(tile.data.subarray(3 * y * w, 3 * (y + 1) * w), 3 * ((r * (h + GAP) + y) * width + c * (w + GAP)));
      }
    })
  );
  return encode({ width, height, data, channels: 3, depth: 8 });
};

/** A map [h, w] in the report's colours, one pixel a cell, from `low` (dark) to `high` (light). */
export const heatUri = (map: Tensor, low: number, high: number): string => {
  check(map, 2, "map [height, width]");
  const data = new Uint8Array(3 * map.data.length);
  map.data.forEach((value, i) => data.set(colour((value - low) / (high - low)), 3 * i));
  return dataUri(map.dims[1], map.dims[0], data);
};

/** The colour scale itself, dark to light from left to right. */
export const scaleUri: string = heatUri(
  { dims: [1, 128], data: Float32Array.from({ length: 128 }, (_, i) => i) },
  0,
  127,
);
