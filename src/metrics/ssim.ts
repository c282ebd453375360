/** Structural similarity. */
import type { Tensor } from "../tensor/tensor.ts";
import { planes } from "./pictures.ts";

const RADIUS = 5, SIGMA = 1.5;

const WINDOW = (() => {
  const weights = Float64Array.from({ length: 2 * RADIUS + 1 }, (_, i) => Math.exp(-0.5 * ((i - RADIUS) / SIGMA) ** 2));
  const sum = weights.reduce((s, v) => s + v, 0);
  return weights.map((v) => v / sum);
})();

/** Weighted means of a plane [h, w] over every window that lies inside it: [h − 10, w − 10]. */
const windowMeans = (value: (i: number) => number, h: number, w: number): Float64Array => {
  const innerW = w - 2 * RADIUS, innerH = h - 2 * RADIUS;
  const across = new Float64Array(h * innerW), out = new Float64Array(innerH * innerW);
  for (let y = 0; y < h; y++) {
    for (let x = 0; x < innerW; x++) {
      let sum = 0;
      for (let k = 0; k < WINDOW.length; k++) sum += WINDOW[k] * value(y * w + x + k);
      across[y * innerW + x] = sum;
    }
  }
  for (let i = 0; i < out.length; i++) {
    let sum = 0;
    for (let k = 0; k < WINDOW.length; k++) sum += WINDOW[k] * across[i + k * innerW];
    out[i] = sum;
  }
  return out;
};

/**
 * Mean structural similarity (Wang, Bovik, Sheikh, Simoncelli: IEEE Trans. Image Processing 13(4), 2004): Gaussian
 * window 11 × 11 with σ 1.5, K₁ 0.01, K₂ 0.03, over all windows inside the picture, channels by themselves and averaged.
 * As scikit-image's with gaussian_weights=True, sigma=1.5, use_sample_covariance=False. One number a picture, 1 for
 * equal pictures.
 * @param a pictures [...batch, channels, h, w], h and w at least 11
 * @param b pictures of the same dims
 * @param range largest value less smallest possible value: 1 for pictures in [0, 1]
 */
export const ssim = (a: Tensor, b: Tensor, range = 1): number[] => {
  const { pictures, channels, h, w } = planes("ssim", a, b);
  if (h <= 2 * RADIUS || w <= 2 * RADIUS) {
    throw new RangeError(`ssim: pictures of ${h} × ${w} are smaller than its window of 11 × 11`);
  }
  const c1 = (0.01 * range) ** 2, c2 = (0.03 * range) ** 2;
  const plane = (at: number): number => {
    const x = a.data.subarray(at, at + h * w), y = b.data.subarray(at, at + h * w);
    const mx = windowMeans((i) => x[i], h, w), my = windowMeans((i) => y[i], h, w);
    const xx = windowMeans((i) => x[i] * x[i], h, w), yy = windowMeans((i) => y[i] * y[i], h, w);
    const xy = windowMeans((i) => x[i] * y[i], h, w);
    let sum = 0;
    for (let i = 0; i < mx.length; i++) {
      const mm = mx[i] * my[i], squares = mx[i] * mx[i] + my[i] * my[i];
      sum += (2 * mm + c1) * (2 * (xy[i] - mm) + c2) / ((squares + c1) * (xx[i] + yy[i] - squares + c2));
    }
    return sum / mx.length;
  };
  return Array.from({ length: pictures }, (_, picture) => {
    let sum = 0;
    for (let channel = 0; channel < channels; channel++) sum += plane((picture * channels + channel) * h * w);
    return sum / channels;
  });
};
