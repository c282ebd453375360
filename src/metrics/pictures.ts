/** What the picture metrics work on: tensors [...batch, channels, h, w], one result a picture. */
import { sameDims, size, type Tensor } from "../tensor/tensor.ts";

export interface Planes {
  readonly pictures: number;
  readonly channels: number;
  readonly h: number;
  readonly w: number;
}

/** @throws RangeError when there are fewer than three dimensions, or `other` has different ones */
export const planes = (metric: string, { dims }: Tensor, other?: Tensor): Planes => {
  if (dims.length < 3) {
    throw new RangeError(`${metric}: pictures have dims [...batch, channels, height, width], not [${dims.join(", ")}]`);
  }
  if (other && !sameDims(dims, other.dims)) {
    throw new RangeError(`${metric}: pictures [${dims.join(", ")}] and [${other.dims.join(", ")}] differ in dims`);
  }
  const [channels, h, w] = dims.slice(-3);
  return { pictures: size(dims.slice(0, -3)), channels, h, w };
};
