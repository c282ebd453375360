/**
 * The laws of the mask algebra, to be called on your own mask functions from any test runner:
 *
 *     it("my mask keeps the laws", () => checkMaskLaws((field, threshold) => myMask(field, { threshold }), { reach: 2 }));
 *
 * Each check throws at the first broken law, with its name and the smallest counterexample that fast-check found.
 */
import fc from "fast-check";
import type { Tensor } from "../tensor/tensor.ts";
import {
  fieldArbitrary,
  fieldsArbitrary,
  maskArbitrary,
  masksArbitrary,
  shiftedObjectArbitrary,
  valueArbitrary,
  type ValueOptions,
} from "./arbitraries.ts";
import { check, law, type LawOptions } from "./law.ts";
import { type FieldToMask, maskFunction } from "./mask_step.ts";
import type { SettingsSchema } from "../steps/step.ts";
import { assertSame, assertWithin, flipX, flipY, means, reorder, shift } from "./fields.ts";

export { LawBroken } from "./law.ts";
export type { LawOptions } from "./law.ts";

export interface MaskLawOptions<Settings = unknown> extends LawOptions {
  /** Of a step: its settings for a threshold (`{ threshold: { value } }` unless told). */
  readonly settings?: (threshold: number) => Settings;
  /** How far, in cells, a mask value depends on its neighbours: 0 for a threshold, the radius for a blur. */
  readonly reach?: number;
  /** The values that the fields of the examples take (−4 to 4 unless told). */
  readonly values?: ValueOptions;
}

/**
 * Laws of a function from a field [...batch, h, w] to a mask of the same dims, given a threshold: values in [0, 1];
 * nothing grows when the threshold rises; flips, shifts (away from the border) and reordering of the batch carry over
 * from field to mask. A step from a field to a mask may stand for the function.
 */
export const checkMaskLaws = <S extends SettingsSchema>(
  mask: FieldToMask<S> | ((field: Tensor, threshold: number) => Tensor),
  options: MaskLawOptions<S["Encoded"]> = {},
): void => {
  const { settings = (value: number) => ({ threshold: { value } }) } = options;
  if (typeof mask === "function") checkMaskFunction("the mask function", mask, options);
  else checkMaskFunction(`the step ${mask.name}`, maskFunction(mask, settings), options);
};

const checkMaskFunction = (
  subject: string,
  mask: (field: Tensor, threshold: number) => Tensor,
  options: MaskLawOptions<unknown>,
): void => {
  const { reach = 0, values = {}, tolerance = 1e-5 } = options;
  const threshold = valueArbitrary(values);
  const any = fc.tuple(fieldArbitrary({ ...values, batch: [2] }), threshold);
  const same = (actual: Tensor, expected: Tensor, what: string) => assertSame(actual, expected, tolerance, what);
  check(subject, [
    law("a mask has the dims of its field and values from 0 to 1", any, ([field, t]) => {
      const m = mask(field, t);
      same(m, { dims: field.dims, data: m.data }, "dims");
      assertWithin(m, () => 0, () => 1, 0, "range");
    }),
    law("a higher threshold raises no cell", fc.tuple(any, threshold), ([[field, a], b]) => {
      const lower = mask(field, Math.min(a, b));
      assertWithin(
        mask(field, Math.max(a, b)),
        () => 0,
        (i) => lower.data[i],
        tolerance,
        "above the lower threshold's",
      );
    }),
    law("flipping the field flips the mask", any, ([field, t]) => {
      same(mask(flipX(field), t), flipX(mask(field, t)), "left to right");
      same(mask(flipY(field), t), flipY(mask(field, t)), "top to bottom");
    }),
    law(
      "moving what the field shows moves the mask",
      fc.tuple(shiftedObjectArbitrary(reach, values), threshold),
      ([{ field, dx, dy }, t]) => same(mask(shift(field, dx, dy), t), shift(mask(field, t), dx, dy), "shifted"),
    ),
    law(
      "reordering the batch reorders the masks",
      fc.tuple(fieldArbitrary({ ...values, batch: [3] }), threshold, fc.constantFrom([1, 2, 0], [2, 1, 0], [0, 2, 1])),
      ([field, t, order]) => same(mask(reorder(field, order), t), reorder(mask(field, t), order), "reordered"),
    ),
  ], options);
};

/** Laws of a union of masks: in range, no less than either, commutative, associative, with identity 0. */
export const checkUnionLaws = (union: (a: Tensor, b: Tensor) => Tensor, options: LawOptions = {}): void => {
  const { tolerance = 1e-5 } = options;
  check("the union", [
    law("a union is no less than either mask and no more than 1", masksArbitrary(2), ([a, b]) => {
      assertWithin(union(a, b), (i) => Math.max(a.data[i], b.data[i]), () => 1, tolerance, "union");
      assertWithin(union(a, b), () => 0, () => 1, 0, "range");
    }),
    law(
      "a union is commutative",
      masksArbitrary(2),
      ([a, b]) => assertSame(union(a, b), union(b, a), tolerance, "b ∪ a"),
    ),
    law(
      "a union is associative",
      masksArbitrary(3),
      ([a, b, c]) => assertSame(union(union(a, b), c), union(a, union(b, c)), tolerance, "a ∪ (b ∪ c)"),
    ),
    law("the empty mask is a union's identity", maskArbitrary(), (a) => {
      const none = { dims: a.dims, data: new Float32Array(a.data.length) };
      assertSame(union(a, none), a, 0, "a ∪ 0");
      assertSame(union(none, a), a, 0, "0 ∪ a");
    }),
  ], options);
};

/**
 * Laws of a primary and a secondary mask made into one: values in [0, 1]; no less than the primary; the primary alone
 * when the secondary is empty; nothing falls when either rises.
 */
export const checkCombineLaws = (
  combine: (primary: Tensor, secondary: Tensor) => Tensor,
  options: LawOptions = {},
): void => {
  const { tolerance = 1e-5 } = options;
  check("the combination", [
    law("a combination stays between the primary mask and 1", masksArbitrary(2), ([p, s]) => {
      assertWithin(combine(p, s), (i) => p.data[i], () => 1, tolerance, "combination");
      assertWithin(combine(p, s), () => 0, () => 1, 0, "range");
    }),
    law(
      "without a secondary mask the primary is left as it is",
      maskArbitrary(),
      (p) =>
        assertSame(combine(p, { dims: p.dims, data: new Float32Array(p.data.length) }), p, tolerance, "combine(p, 0)"),
    ),
    law("a combination rises with both masks", masksArbitrary(3), ([p, s, more]) => {
      const least = combine(p, s);
      const raised = (m: Tensor) => ({ dims: m.dims, data: m.data.map((v, i) => Math.max(v, more.data[i])) });
      assertWithin(combine(raised(p), s), (i) => least.data[i], () => 1, tolerance, "with a higher primary");
      assertWithin(combine(p, raised(s)), (i) => least.data[i], () => 1, tolerance, "with a higher secondary");
    }),
  ], options);
};

/**
 * Laws of blending poisoned and clean latents [channels, h, w] by a mask [h, w]: poisoned where the mask is 0, clean
 * where it is 1, and never outside the two.
 */
export const checkBlendLaws = (
  blend: (poisoned: Tensor, clean: Tensor, mask: Tensor) => Tensor,
  options: LawOptions = {},
): void => {
  const { tolerance = 1e-5 } = options;
  const latents = fieldsArbitrary(2, { batch: [2] });
  const even = (like: Tensor, value: number): Tensor => {
    const dims = like.dims.slice(-2);
    return { dims, data: new Float32Array(dims[0] * dims[1]).fill(value) };
  };
  // The mask is made from a third field of the same cells: its first channel, brought into [0, 1].
  const withMask = fieldsArbitrary(3, { batch: [2], min: 0, max: 1 }).map(([p, c, m]) => [p, c, {
    dims: m.dims.slice(-2),
    data: m.data.slice(0, m.data.length / 2),
  }]);
  check("the blend", [
    law(
      "a mask of 0 leaves the latents alone",
      latents,
      ([p, c]) => assertSame(blend(p, c, even(p, 0)), p, 0, "M = 0"),
    ),
    law("a mask of 1 gives the clean latents", latents, ([p, c]) => assertSame(blend(p, c, even(p, 1)), c, 0, "M = 1")),
    law("a blend lies between the two", withMask, ([p, c, m]) =>
      assertWithin(
        blend(p, c, m),
        (i) => Math.min(p.data[i], c.data[i]),
        (i) => Math.max(p.data[i], c.data[i]),
        tolerance,
        "blend",
      )),
  ], options);
};

/**
 * Laws of a resize: constants, the range and the mean of each map are kept; the same size changes nothing; flips carry
 * over.
 */
export const checkResizeLaws = (
  resize: (field: Tensor, size: readonly [number, number]) => Tensor,
  options: LawOptions = {},
): void => {
  const { tolerance = 1e-5 } = options;
  const side = fc.integer({ min: 1, max: 20 });
  const any = fc.tuple(fieldArbitrary({ batch: [2] }), fc.tuple(side, side));
  check("the resize", [
    law(
      "a resize keeps constants",
      fc.tuple(valueArbitrary(), side, side, fc.tuple(side, side)),
      ([value, h, w, to]) => {
        const even = ([rows, columns]: readonly [number, number]): Tensor => ({
          dims: [rows, columns],
          data: new Float32Array(rows * columns).fill(value),
        });
        assertSame(resize(even([h, w]), to), even(to), tolerance, "constant");
      },
    ),
    law("a resize keeps the mean", any, ([field, to]) => {
      const before = means(field), after = means(resize(field, to));
      before.forEach((mean, i) => {
        if (!(Math.abs(after[i] - mean) <= tolerance)) throw new Error(`map ${i}: mean ${after[i]}, expected ${mean}`);
      });
    }),
    law("a resize stays within the range", any, ([field, to]) => {
      const cells = field.data.length / 2;
      const ends = [0, 1].map((map) => field.data.subarray(map * cells, (map + 1) * cells))
        .map((values) => ({ low: Math.min(...values), high: Math.max(...values) }));
      const of = (i: number) => ends[Math.floor(i / (to[0] * to[1]))];
      assertWithin(resize(field, to), (i) => of(i).low, (i) => of(i).high, tolerance, "resized");
    }),
    law("a resize to the same size changes nothing", fieldArbitrary({ batch: [2] }), (field) => {
      const [h, w] = field.dims.slice(-2);
      assertSame(resize(field, [h, w]), field, tolerance, "same size");
    }),
    law("flipping before is flipping after", any, ([field, to]) => {
      assertSame(resize(flipX(field), to), flipX(resize(field, to)), tolerance, "left to right");
      assertSame(resize(flipY(field), to), flipY(resize(field, to)), tolerance, "top to bottom");
    }),
  ], options);
};

/** Laws of a soft edge: values in [0, 1], and of two cells the higher never comes out lower. */
export const checkEdgeLaws = (edge: (field: Tensor) => Tensor, options: LawOptions = {}): void => {
  check("the edge", [
    law(
      "an edge gives values from 0 to 1",
      fieldArbitrary(),
      (field) => assertWithin(edge(field), () => 0, () => 1, 0, "range"),
    ),
    law("an edge keeps the order of the cells", fieldArbitrary(), (field) => {
      const order = [...field.data.keys()].sort((a, b) => field.data[a] - field.data[b]);
      const out = edge(field).data;
      for (let i = 1; i < order.length; i++) {
        if (!(out[order[i]] >= out[order[i - 1]])) {
          throw new Error(`order: ${field.data[order[i]]} comes out below ${field.data[order[i - 1]]}`);
        }
      }
    }),
  ], options);
};
