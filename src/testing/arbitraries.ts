/**
 * fast-check arbitraries for tensors, fields and masks. They shrink towards few cells and round numbers, so that a
 * counterexample can be read.
 */
import fc from "fast-check";
import { size, type Tensor } from "../tensor/tensor.ts";

export interface ValueOptions {
  /** Smallest value (−4 unless told). */
  readonly min?: number;
  /** Largest value (4 unless told). */
  readonly max?: number;
}

export interface FieldOptions extends ValueOptions {
  /** Exact height in cells. Unless both sides are told, a map has up to 144 cells. */
  readonly h?: number;
  readonly w?: number;
  /** Dims before the height; none unless told. */
  readonly batch?: readonly number[];
}

/**
 * One float32 value: half the time a step of a sixteenth of the range, so that ties and the ends come up, half the time
 * any number of the range.
 */
export const valueArbitrary = ({ min = -4, max = 4 }: ValueOptions = {}): fc.Arbitrary<number> => {
  const low = Math.fround(min), high = Math.fround(max);
  return fc.oneof(
    { withCrossShrink: true },
    fc.nat(16).map((i) => Math.fround(low + (high - low) * i / 16)),
    fc.float({ min: low, max: high, noNaN: true }),
  );
};

/** A tensor of the given dims. */
export const tensorArbitrary = (dims: readonly number[], options: ValueOptions = {}): fc.Arbitrary<Tensor> => {
  const n = size(dims);
  return fc.array(valueArbitrary(options), { minLength: n, maxLength: n })
    .map((values) => ({ dims, data: Float32Array.from(values) }));
};

/** Most cells of a map whose size is left open. */
const MOST_CELLS = 144;

/**
 * A field [...batch, h, w]. When the size is left open it comes from a list of cells and a width, as lists shrink well:
 * cells that do not matter drop out, wherever they stand, until those are left that break a law.
 */
export const fieldArbitrary = ({ h, w, batch = [], ...values }: FieldOptions = {}): fc.Arbitrary<Tensor> => {
  if (h !== undefined && w !== undefined) return tensorArbitrary([...batch, h, w], values);
  const maps = size(batch), fixed = h ?? w;
  const side = fixed === undefined ? fc.integer({ min: 1, max: 12 }) : fc.constant(fixed);
  const cell = fc.array(valueArbitrary(values), { minLength: maps, maxLength: maps });
  const cells = fc.array(cell, { minLength: fixed ?? 1, maxLength: Math.max(MOST_CELLS, fixed ?? 1), size: "max" });
  return fc.tuple(side, cells).map(([given, list]) => {
    const one = Math.min(given, list.length), other = Math.floor(list.length / one);
    const [rows, columns] = h === undefined ? [other, one] : [one, other];
    const n = rows * columns;
    return {
      dims: [...batch, rows, columns],
      data: Float32Array.from({ length: maps * n }, (_, i) => list[i % n][Math.floor(i / n)]),
    };
  });
};

/** A mask [...batch, h, w]: values from 0 to 1, both included. */
export const maskArbitrary = (options: Omit<FieldOptions, keyof ValueOptions> = {}): fc.Arbitrary<Tensor> =>
  fieldArbitrary({ ...options, min: 0, max: 1 });

/** Several fields of the same dims. */
export const fieldsArbitrary = (count: number, options: FieldOptions = {}): fc.Arbitrary<Tensor[]> => {
  const batch = options.batch ?? [];
  return fieldArbitrary({ ...options, batch: [count, ...batch] }).map(({ dims, data }) => {
    const n = data.length / count;
    return Array.from({ length: count }, (_, i) => ({ dims: dims.slice(1), data: data.slice(i * n, (i + 1) * n) }));
  });
};

/** Several masks of the same dims. */
export const masksArbitrary = (count: number, options: Omit<FieldOptions, keyof ValueOptions> = {}) =>
  fieldsArbitrary(count, { ...options, min: 0, max: 1 });

/** A field that is `background` but for an object in its middle, and a shift that keeps the object off the border. */
export interface ShiftedObject {
  readonly field: Tensor;
  readonly dx: number;
  readonly dy: number;
}

/**
 * Fields for translation laws: an object of up to 3 × 3 cells on an even background of dims [h, w], with a shift by up
 * to 2 cells that leaves at least `margin` cells between the object and every border, before and after.
 */
export const shiftedObjectArbitrary = (margin: number, values: ValueOptions = {}): fc.Arbitrary<ShiftedObject> => {
  const most = 2, side = 2 * (margin + most) + 3;
  const shift = fc.integer({ min: -most, max: most });
  return fc.tuple(tensorArbitrary([3, 3], values), valueArbitrary(values), shift, shift).map(
    ([object, background, dx, dy]) => {
      const data = new Float32Array(side * side).fill(background);
      for (let y = 0; y < 3; y++) {
        data.set(object.data.subarray(3 * y, 3 * y + 3), (margin + most + y) * side + margin + most);
      }
      return { field: { dims: [side, side], data }, dx, dy };
    },
  );
};
