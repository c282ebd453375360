/** Connected regions of a mask: what a report draws a frame around. */
import type { Box } from "../tensor/box.ts";
import type { Tensor } from "../tensor/tensor.ts";
import { shapeOfField } from "./field.ts";

/** Cells of a mask that hang together. */
export interface Region {
  /** Number in the labels, from 1 for the largest. */
  readonly label: number;
  readonly cells: number;
  readonly box: Box;
  /** Mean place of the cells' centres, in cells from the top left corner: a single cell at the origin has (½, ½). */
  readonly centre: { readonly x: number; readonly y: number };
}

/** Regions, the largest first (equal ones in reading order), and the label of each cell, 0 outside. */
export interface Components {
  readonly labels: Tensor<Int32Array>;
  readonly regions: readonly Region[];
}

/**
 * Connected components of the cells of one map that exceed `level`.
 * @param mask dims [h, w]
 * @param options.diagonal whether cells that touch at a corner hang together (8-connectivity; yes unless told)
 * @throws RangeError when the mask holds more than one map
 */
export const components = (mask: Tensor, { level = 0.5, diagonal = true } = {}): Components => {
  const { h, w, cells, maps } = shapeOfField(mask);
  if (maps !== 1) throw new RangeError(`mask: components takes one map, not ${maps} ([${mask.dims.join(", ")}])`);
  const labels = new Int32Array(cells);
  const found: Omit<Region, "label">[] = [];
  for (let start = 0; start < cells; start++) {
    if (labels[start] !== 0 || !(mask.data[start] > level)) continue;
    found.push(flood(mask.data, labels, start, found.length + 1, { h, w, level, diagonal }));
  }
  const order = found.map((_, i) => i).sort((a, b) => found[b].cells - found[a].cells || a - b);
  const renamed = new Int32Array(found.length + 1);
  order.forEach((old, i) => renamed[old + 1] = i + 1);
  return {
    labels: { dims: mask.dims, data: labels.map((label) => renamed[label]) },
    regions: order.map((old, i) => ({ label: i + 1, ...found[old] })),
  };
};

const flood = (
  values: Float32Array,
  labels: Int32Array,
  start: number,
  label: number,
  { h, w, level, diagonal }: { h: number; w: number; level: number; diagonal: boolean },
): Omit<Region, "label"> => {
  let left = w, right = 0, top = h, bottom = 0, sumX = 0, sumY = 0, count = 0;
  const open = [start];
  labels[start] = label;
  for (let at = open.pop(); at !== undefined; at = open.pop()) {
    const x = at % w, y = Math.floor(at / w);
    left = Math.min(left, x);
    right = Math.max(right, x);
    top = Math.min(top, y);
    bottom = Math.max(bottom, y);
    sumX += x + 0.5;
    sumY += y + 0.5;
    count++;
    for (let dy = -1; dy <= 1; dy++) {
      for (let dx = -1; dx <= 1; dx++) {
        if (!diagonal && dx !== 0 && dy !== 0) continue;
        const nx = x + dx, ny = y + dy, next = ny * w + nx;
        if (nx < 0 || nx >= w || ny < 0 || ny >= h || labels[next] !== 0 || !(values[next] > level)) continue;
        labels[next] = label;
        open.push(next);
      }
    }
  }
  return {
    cells: count,
    box: { x: left, y: top, width: right - left + 1, height: bottom - top + 1 },
    centre: { x: sumX / count, y: sumY / count },
  };
};

/** The smallest box around all cells of one map that exceed `level`; undefined when there are none. */
export const boundingBox = (mask: Tensor, level = 0.5): Box | undefined => {
  const boxes = components(mask, { level }).regions.map((region) => region.box);
  if (boxes.length === 0) return undefined;
  const x = Math.min(...boxes.map((b) => b.x)), y = Math.min(...boxes.map((b) => b.y));
  return {
    x,
    y,
    width: Math.max(...boxes.map((b) => b.x + b.width)) - x,
    height: Math.max(...boxes.map((b) => b.y + b.height)) - y,
  };
};
