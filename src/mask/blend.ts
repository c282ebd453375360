/** Blending of latents inside a mask: the sampling-time cure, and A/B pictures. */
import { sameDims, size, type Tensor } from "../tensor/tensor.ts";

/**
 * h = h_poi + M ⊙ (h_clean − h_poi): the poisoned latents where the mask is 0, the clean ones where it is 1. Convex, so
 * no value leaves the interval between the two. Computed (1 − M)·h_poi + M·h_clean, which is exact at both ends.
 *
 * @param poisoned latents [...batch, channels, h, w]
 * @param clean latents of the same dims
 * @param mask in [0, 1], either [h, w] (one for all) or [...batch, h, w]; it acts on all channels alike
 * @throws RangeError when the dims do not fit
 */
export const blend = (poisoned: Tensor, clean: Tensor, mask: Tensor): Tensor => {
  const { dims } = poisoned;
  if (!sameDims(dims, clean.dims)) {
    throw new RangeError(`blend: poisoned [${dims.join(", ")}] and clean [${clean.dims.join(", ")}] differ in dims`);
  }
  const batch = dims.slice(0, -3), plane = dims.slice(-2);
  const shared = sameDims(mask.dims, plane);
  if (dims.length < 3 || !(shared || sameDims(mask.dims, [...batch, ...plane]))) {
    throw new RangeError(
      `blend: a mask of dims [${mask.dims.join(", ")}] does not fit latents [${dims.join(", ")}];` +
        ` expected [${plane.join(", ")}] or [${[...batch, ...plane].join(", ")}]`,
    );
  }
  const cells = size(plane), channels = dims[dims.length - 3];
  const data = new Float32Array(poisoned.data.length);
  for (let i = 0; i < data.length; i++) {
    const item = shared ? 0 : Math.floor(i / (channels * cells));
    const m = mask.data[item * cells + i % cells];
    data[i] = (1 - m) * poisoned.data[i] + m * clean.data[i];
  }
  return { dims, data };
};
