/**
 * The random numbers of pictures: what each begins with, and what some schedulers add on the way. They belong to the
 * picture and the step alone, so neither the order nor the size of batches changes a picture.
 */
import { normal, seedOf } from "../tensor/random.ts";
import { concat0, type Tensor } from "../tensor/tensor.ts";

export interface PictureNoise {
  /** Standard normal, [n, C, h, w]. */
  readonly start: Tensor;
  /** Seed of what is added on the way. */
  readonly seed: number;
  /** How many different pictures there are: row r of `start` is picture r modulo this, and is given that one's noise. */
  readonly pictures: number;
}

/**
 * Noise of so many pictures, [pictures · copies, …dims]: all of them, then all again, so that each can be drawn for
 * several texts. More pictures of the same seed begin with the fewer ones.
 */
export const pictureNoise = (
  seed: number,
  pictures: number,
  dims: readonly number[],
  copies = 1,
): PictureNoise => {
  const start = normal(seed, [pictures, ...dims]);
  return { start: concat0(Array.from({ length: copies }, () => start)), seed, pictures };
};

/** What is added in step `step` to rows `begin` to `begin + count`, [count, C, h, w]; past the end the last row repeats. */
export const freshNoise = (
  { start, seed, pictures }: PictureNoise,
  step: number,
  begin: number,
  count: number,
): Tensor => {
  const [n, ...dims] = start.dims;
  return concat0(
    Array.from({ length: count }, (_, i) => {
      const picture = Math.min(begin + i, n - 1) % pictures;
      return normal(seedOf(seed, "fresh", picture, step), [1, ...dims]);
    }),
  );
};
