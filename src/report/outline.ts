/** The outline of a region as an SVG path, along the edges of its cells. */
import type { Tensor } from "../tensor/tensor.ts";

/**
 * Closed loops around the cells of one map [h, w] that exceed `level`, in cells from the top left corner. Inner edges of
 * holes are loops too. Empty when nothing or everything is inside: a frame around the whole picture says nothing.
 */
export const outline = (mask: Tensor, level = 0.5): string => {
  const [h, w] = mask.dims;
  const inside = (x: number, y: number) => x >= 0 && x < w && y >= 0 && y < h && mask.data[y * w + x] > level;
  const cells = mask.data.reduce((n, v) => n + (v > level ? 1 : 0), 0);
  if (cells === 0 || cells === mask.data.length) return "";

  // Unit edges by where they begin, each with the region on its right. A corner where two regions touch begins two.
  const edges = new Map<number, number[]>();
  const add = (x: number, y: number, toX: number, toY: number) => {
    const key = y * (w + 1) + x;
    edges.set(key, [...(edges.get(key) ?? []), toY * (w + 1) + toX]);
  };
  for (let y = 0; y < h; y++) {
    for (let x = 0; x < w; x++) {
      if (!inside(x, y)) continue;
      if (!inside(x, y - 1)) add(x, y, x + 1, y);
      if (!inside(x + 1, y)) add(x + 1, y, x + 1, y + 1);
      if (!inside(x, y + 1)) add(x + 1, y + 1, x, y + 1);
      if (!inside(x - 1, y)) add(x, y + 1, x, y);
    }
  }
  const loops: string[] = [];
  for (const start of edges.keys()) {
    while ((edges.get(start)?.length ?? 0) > 0) loops.push(follow(edges, start, w + 1));
  }
  return loops.join("");
};

/** Takes one loop out of the edges; corners in a straight line are left out. */
const follow = (edges: Map<number, number[]>, start: number, columns: number): string => {
  const corners: number[] = [];
  let at = start, direction = 0;
  do {
    const next = edges.get(at)?.pop();
    if (next === undefined) break;
    if (next - at !== direction) corners.push(at);
    direction = next - at;
    at = next;
  } while (at !== start);
  return `M${corners.map((c) => `${c % columns} ${Math.floor(c / columns)}`).join("L")}Z`;
};
