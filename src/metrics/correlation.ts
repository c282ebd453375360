/** Pearson correlation, and with it the presence of a known patch in a picture. */
import type { Tensor } from "../tensor/tensor.ts";
import { planes } from "./pictures.ts";

/** Pearson's r of two lists of equal length; 0 when either is constant, which has nothing in common with a pattern. */
export const pearson = (x: ArrayLike<number>, y: ArrayLike<number>): number => {
  const n = x.length;
  if (n !== y.length || n === 0) throw new RangeError(`pearson: ${n} values against ${y.length}`);
  let mx = 0, my = 0;
  for (let i = 0; i < n; i++) {
    mx += x[i] / n;
    my += y[i] / n;
  }
  let xy = 0, xx = 0, yy = 0;
  for (let i = 0; i < n; i++) {
    xy += (x[i] - mx) * (y[i] - my);
    xx += (x[i] - mx) ** 2;
    yy += (y[i] - my) ** 2;
  }
  return xx === 0 || yy === 0 ? 0 : xy / Math.sqrt(xx * yy);
};

/**
 * Correlation of a patch with the pixels at its place, over all its pixels and channels at once; one number a picture.
 * Neither brightness nor contrast matters: a patch that was drawn pale still correlates.
 * @param pictures [...batch, channels, h, w]
 * @param patch [channels, height, width]
 * @param at column and row of the patch's top left pixel
 * @throws RangeError when the channels differ or the patch does not lie within the picture
 */
export const patchCorrelation = (
  pictures: Tensor,
  patch: Tensor,
  at: { readonly x: number; readonly y: number },
): number[] => {
  const { pictures: count, channels, h, w } = planes("patchCorrelation", pictures);
  const [patchChannels, height, width] = patch.dims;
  const inside = at.x >= 0 && at.y >= 0 && at.x + width <= w && at.y + height <= h;
  if (patch.dims.length !== 3 || patchChannels !== channels || !inside) {
    throw new RangeError(
      `patchCorrelation: a patch [${patch.dims.join(", ")}] at column ${at.x}, row ${at.y} does not lie within` +
        ` pictures of ${channels} channels, ${h} × ${w}`,
    );
  }
  const region = new Float64Array(patch.data.length);
  return Array.from({ length: count }, (_, picture) => {
    for (let i = 0; i < region.length; i++) {
      const channel = Math.floor(i / (height * width)), y = Math.floor(i / width) % height, x = i % width;
      region[i] = pictures.data[((picture * channels + channel) * h + at.y + y) * w + at.x + x];
    }
    return pearson(region, patch.data);
  });
};
