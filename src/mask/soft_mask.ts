/** The usual way from a field to a soft mask: threshold, blur, edge. */
import type { Tensor } from "../tensor/tensor.ts";
import { gaussianBlur } from "./blur.ts";
import { sigmoidEdge } from "./edge.ts";
import { aboveThreshold, type Threshold } from "./threshold.ts";

export interface SoftMaskOptions {
  readonly threshold: Threshold;
  /** Standard deviation of the blur in cells; 0 for none. */
  readonly blur?: number;
  /** Steepness of the sigmoid edge around ½; 0 for none, which leaves the blurred values as they are. */
  readonly edge?: number;
}

/**
 * The cells whose values exceed the threshold, blurred and given a soft edge. With an edge of steepness k the mask
 * reaches from 1 / (1 + e^(k/2)) to 1 minus that (0.0025 to 0.9975 at the precursor's 12), not quite from 0 to 1.
 */
export const softMask = (field: Tensor, { threshold, blur = 0, edge = 0 }: SoftMaskOptions): Tensor => {
  const blurred = gaussianBlur(aboveThreshold(field, threshold), blur);
  return edge === 0 ? blurred : sigmoidEdge(blurred, { centre: 0.5, steepness: edge });
};
