/**
 * Masks as soft sets. Every function takes masks of equal dims [...batch, h, w] with values in [0, 1] and gives one of
 * the same kind; the laws they keep are in src/testing/laws.ts.
 */
import type { Tensor } from "../tensor/tensor.ts";
import { mapCells, zipCells } from "./field.ts";

/**
 * The probabilistic or, 1 − (1 − a)(1 − b). Written a + b − ab: in floating point that is exactly commutative and has
 * the exact identity 0, also for numbers too small to be told from 0 beside 1.
 */
const or = (a: number, b: number): number => a + b - a * b;

/** Cells in any of the masks: 1 − Π(1 − mᵢ). */
export const union = (first: Tensor, ...rest: readonly Tensor[]): Tensor =>
  rest.reduce((m, next) => zipCells(m, next, or), first);

/** Cells in all of the masks: Π mᵢ. */
export const intersection = (first: Tensor, ...rest: readonly Tensor[]): Tensor =>
  rest.reduce((m, next) => zipCells(m, next, (a, b) => a * b), first);

/** Cells outside the mask: 1 − m. */
export const complement = (mask: Tensor): Tensor => mapCells(mask, (m) => 1 - m);

/** The mask at a part of its strength. @throws RangeError unless 0 ≤ factor ≤ 1: more would leave the range. */
export const scale = (mask: Tensor, factor: number): Tensor => {
  if (!(factor >= 0 && factor <= 1)) throw new RangeError(`mask: scale by ${factor} is not within 0 and 1`);
  return mapCells(mask, (m) => m * factor);
};

/**
 * A primary and a secondary mask in one, the secondary at half strength: M = 1 − (1 − m_p)(1 − ½ m_s). A cell in the
 * secondary mask alone gets ½, one in both or in the primary alone gets 1.
 */
export const combine = (primary: Tensor, secondary: Tensor): Tensor => union(primary, scale(secondary, 0.5));
