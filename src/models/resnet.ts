/** ResnetBlock2D of diffusers, shared by the U-Net and the autoencoder. */
import { activation, add, div, reshape, type Value, type WeightReader } from "../graph/mod.ts";
import { convLayer, groupNormLayer, linearLayer, under } from "./layers.ts";

export interface ResnetOptions {
  readonly out: number;
  readonly groups: number;
  readonly epsilon: number;
  readonly act: string;
  /** Activated time embedding [1 or B, D], added between the convolutions. */
  readonly time?: Value;
  readonly scale?: number;
}

/** x [N, C, H, W] → [N, out, H, W]: norm, act, conv, + time, norm, act, conv, + shortcut. */
export const resnetBlock = (w: WeightReader, x: Value, options: ResnetOptions): Value => {
  const { out, groups, epsilon, time, scale = 1 } = options;
  const act = activation(options.act);
  let h = convLayer(under(w, "conv1."), act(groupNormLayer(under(w, "norm1."), x, groups, epsilon)), out, 3, {
    padding: 1,
  });
  if (time !== undefined) {
    h = add(h, reshape(linearLayer(under(w, "time_emb_proj."), time, out), [time.dims[0], out, 1, 1]));
  }
  h = convLayer(under(w, "conv2."), act(groupNormLayer(under(w, "norm2."), h, groups, epsilon)), out, 3, {
    padding: 1,
  });
  const shortcut = x.dims[1] === out ? x : convLayer(under(w, "conv_shortcut."), x, out, 1);
  const sum = add(shortcut, h);
  return scale === 1 ? sum : div(sum, scale);
};
