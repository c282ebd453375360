import type { Tensor } from "../../src/tensor/tensor.ts";

/** One-hot rows at the first end-of-text token of each text, as CLIPModel pools. */
export const endOf = ({ dims, data }: Tensor<Int32Array>, token: number): Tensor => {
  const [batch, length] = dims;
  const end = new Float32Array(batch * length);
  for (let b = 0; b < batch; b++) end[b * length + data.subarray(b * length, (b + 1) * length).indexOf(token)] = 1;
  return { dims, data: end };
};
