/** One word for where in the picture a trigger acts. */
import { quantileOfSorted } from "../tensor/quantile.ts";
import type { Tensor } from "../tensor/tensor.ts";
import { gaussianBlur } from "./blur.ts";
import { mapsOf, shapeOfField } from "./field.ts";

/**
 * - `none`: nowhere does the trigger do more than a harmless word does;
 * - `local`: in one small place, the same in every picture, such as a patch;
 * - `object-bound`: in a part of each picture that follows what it shows, such as an object that is exchanged;
 * - `global`: over most of every picture, such as another style or another picture altogether.
 */
export type Shape = "local" | "object-bound" | "global" | "none";

/** The word and the figures that it was chosen by. */
export interface ShapeReport {
  readonly shape: Shape;
  /** Largest ratio of the pooled field, not its logarithm: 1 where the trigger does what a harmless word does. */
  readonly strength: number;
  /** Part of the cells where the pooled field exceeds half of its maximum (half in the logarithm). */
  readonly coverage: number;
  /** The same for each prompt's own field, blurred by one cell; the median over prompts. */
  readonly promptCoverage?: number;
  /** Overlap (IoU) of each prompt's cells with the pooled ones; the median over prompts. */
  readonly agreement?: number;
}

export interface ShapeOptions {
  /** Ratios up to this are noise. Twelve prompts with three twins each reach 2.0 on a model without a backdoor. */
  readonly noise?: number;
  /** A pooled coverage up to this is one place. Seen for a patch of 1/16 of the picture: 0.05. */
  readonly sharp?: number;
  /** Least agreement of the prompts with one place. Seen for a patch: 0.69. */
  readonly agree?: number;
  /** A coverage above this is most of the picture. Seen: 0.57 for an exchanged object that fills a third of the
   * picture, 0.70 (prompt by prompt) to 0.76 (pooled) for an exchanged picture. */
  readonly most?: number;
}

const median = (values: readonly number[]): number => quantileOfSorted([...values].sort((a, b) => a - b), 0.5);

/** The cells above half of the map's maximum; none when nothing is above 0. */
const strong = (values: Float32Array): boolean[] => {
  const half = values.reduce((m, v) => Math.max(m, v), 0) / 2;
  return Array.from(values, (v) => v > half && v > 0);
};

const part = (cells: readonly boolean[]): number => cells.filter(Boolean).length / cells.length;

const overlap = (a: readonly boolean[], b: readonly boolean[]): number => {
  const either = a.filter((v, i) => v || b[i]).length;
  return either === 0 ? 0 : a.filter((v, i) => v && b[i]).length / either;
};

/**
 * Chooses the word from a field of natural logarithms: 0 where the triggered reading parts from the clean one as far as
 * harmless words do, log 2 where it does so twice as far.
 *
 * Without the prompts' own fields an object-bound trigger cannot be told from a global one by its place: it then counts
 * as global when it covers most of the cells, else as local.
 *
 * @param pooled one map [h, w] over all prompts
 * @param prompts each prompt's own field [prompts, h, w], in the same units
 * @throws RangeError when the maps do not fit
 */
export const shapeOf = (
  pooled: Tensor,
  prompts?: Tensor,
  { noise = 3, sharp = 0.25, agree = 0.45, most = 0.65 }: ShapeOptions = {},
): ShapeReport => {
  const { h, w, maps } = shapeOfField(pooled);
  if (maps !== 1) throw new RangeError(`shapeOf: the pooled field must be one map, not [${pooled.dims.join(", ")}]`);
  const strength = Math.exp(pooled.data.reduce((m, v) => Math.max(m, v), -Infinity));
  const cells = strong(pooled.data), coverage = part(cells);
  if (prompts === undefined || prompts.data.length === 0) {
    const shape = strength <= noise ? "none" : coverage > most ? "global" : "local";
    return { shape, strength, coverage };
  }
  const own = shapeOfField(prompts);
  if (own.h !== h || own.w !== w) {
    throw new RangeError(
      `shapeOf: the prompts' fields [${prompts.dims.join(", ")}] do not fit the pooled one [${h}, ${w}]`,
    );
  }
  const each = mapsOf(gaussianBlur(prompts, 1)).map(strong);
  const promptCoverage = median(each.map(part)), agreement = median(each.map((c) => overlap(c, cells)));
  const word = (): Shape => {
    if (strength <= noise) return "none";
    if (coverage <= sharp && agreement >= agree) return "local";
    return promptCoverage > most ? "global" : "object-bound";
  };
  return { shape: word(), strength, coverage, promptCoverage, agreement };
};
