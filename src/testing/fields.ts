/** What the laws do to fields: flips, shifts, reordering, and comparison cell by cell. */
import { sameDims, size, type Tensor } from "../tensor/tensor.ts";

const rearranged = (field: Tensor, from: (x: number, y: number, w: number, h: number) => [number, number]): Tensor => {
  const [h, w] = field.dims.slice(-2);
  const data = field.data.map((_, i) => {
    const map = Math.floor(i / (h * w)), y = Math.floor(i / w) % h, x = i % w;
    const [fromX, fromY] = from(x, y, w, h);
    return field.data[(map * h + fromY) * w + fromX];
  });
  return { dims: field.dims, data };
};

/** Left and right exchanged. */
export const flipX = (field: Tensor): Tensor => rearranged(field, (x, y, w) => [w - 1 - x, y]);

/** Top and bottom exchanged. */
export const flipY = (field: Tensor): Tensor => rearranged(field, (x, y, _w, h) => [x, h - 1 - y]);

/** Moved right by dx and down by dy; what leaves at one side comes in at the other. */
export const shift = (field: Tensor, dx: number, dy: number): Tensor =>
  rearranged(field, (x, y, w, h) => [(((x - dx) % w) + w) % w, (((y - dy) % h) + h) % h]);

/** The maps of the first dimension in a new order. */
export const reorder = (field: Tensor, order: readonly number[]): Tensor => {
  const n = size(field.dims.slice(1));
  const data = new Float32Array(field.data.length);
  order.forEach((from, to) => data.set(field.data.subarray(from * n, (from + 1) * n), to * n));
  return { dims: field.dims, data };
};

/** Fails with the place and both values where two fields differ by more than the tolerance. */
export const assertSame = (actual: Tensor, expected: Tensor, tolerance: number, what: string): void => {
  if (!sameDims(actual.dims, expected.dims)) {
    throw new Error(`${what}: dims [${actual.dims.join(", ")}], expected [${expected.dims.join(", ")}]`);
  }
  for (let i = 0; i < actual.data.length; i++) {
    if (!(Math.abs(actual.data[i] - expected.data[i]) <= tolerance)) {
      throw new Error(`${what}: cell ${i} is ${actual.data[i]}, expected ${expected.data[i]}`);
    }
  }
};

/** Fails where a value lies outside [low, high], by more than the tolerance, or is NaN. */
export const assertWithin = (
  actual: Tensor,
  low: (i: number) => number,
  high: (i: number) => number,
  tolerance: number,
  what: string,
): void => {
  actual.data.forEach((value, i) => {
    if (!(value >= low(i) - tolerance && value <= high(i) + tolerance)) {
      throw new Error(`${what}: cell ${i} is ${value}, expected ${low(i)} to ${high(i)}`);
    }
  });
};

/** The mean over each map of a field. */
export const means = (field: Tensor): number[] => {
  const cells = size(field.dims.slice(-2));
  return Array.from({ length: field.data.length / cells }, (_, map) => {
    let sum = 0;
    for (let i = 0; i < cells; i++) sum += field.data[map * cells + i];
    return sum / cells;
  });
};
