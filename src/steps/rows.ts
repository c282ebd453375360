/** Choosing rows of tensors. */
import { type Tensor, zeros } from "../tensor/tensor.ts";

/** Rows of the first axis, in the order asked for. */
export const pickRows = (t: Tensor, rows: readonly number[]): Tensor => {
  const width = t.data.length / t.dims[0];
  const out = zeros([rows.length, ...t.dims.slice(1)]);
  rows.forEach((p, i) => out.data.set(t.data.subarray(p * width, (p + 1) * width), i * width));
  return out;
};

/** [P, R, …] → [n, readings, …] */
export const pickReadings = (
  t: Tensor,
  chosen: readonly { readonly p: number; readonly readings: readonly number[] }[],
): Tensor => {
  const [, all, ...rest] = t.dims;
  const flat: Tensor = { dims: [t.dims[0] * all, ...rest], data: t.data };
  const picked = pickRows(flat, chosen.flatMap(({ p, readings }) => readings.map((r) => p * all + r)));
  return { dims: [chosen.length, chosen[0].readings.length, ...rest], data: picked.data };
};

/** The held-back prompts, each as often as it takes for the pictures that a check is to draw. */
export const repeated = (held: readonly number[], pictures: number): number[] =>
  Array.from({ length: Math.ceil(pictures / held.length) }, () => held).flat();
