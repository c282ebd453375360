/** Peak signal-to-noise ratio. */
import type { Tensor } from "../tensor/tensor.ts";
import { planes } from "./pictures.ts";

/**
 * 10 · log₁₀(range² / mean squared error) in decibels, one number a picture; Infinity for equal pictures.
 * @param a pictures [...batch, channels, h, w]
 * @param b pictures of the same dims
 * @param range largest value less smallest possible value: 1 for pictures in [0, 1]
 */
export const psnr = (a: Tensor, b: Tensor, range = 1): number[] => {
  const { pictures, channels, h, w } = planes("psnr", a, b);
  const n = channels * h * w;
  return Array.from({ length: pictures }, (_, picture) => {
    let sum = 0;
    for (let i = picture * n; i < (picture + 1) * n; i++) sum += (a.data[i] - b.data[i]) ** 2;
    return 10 * Math.log10(range * range * n / sum);
  });
};
