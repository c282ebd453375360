/** Normalisation layers. */
import { GraphError, type Op, showType, type Value } from "../graph.ts";
import { add, mul } from "./elementwise.ts";
import { reshape } from "./shape.ts";

const layerNormOp: Op = {
  type: "LayerNormalization",
  infer: ([x, scale, bias]) => {
    const last = x.dims.at(-1);
    if (scale.dims.join() !== `${last}` || bias.dims.join() !== `${last}`) {
      throw new GraphError(`LayerNormalization: ${showType(x)} with ${showType(scale)} and ${showType(bias)}`);
    }
    return x;
  },
};

/** (x − mean) / √(variance + ε) · scale + bias along the last axis (Ba et al. 2016). */
export const layerNorm = (x: Value, scale: Value, bias: Value, epsilon: number): Value =>
  x.graph.apply(layerNormOp, [x, scale, bias], { axis: { int: x.dims.length - 1 }, epsilon: { float: epsilon } });

const instanceNormOp: Op = {
  type: "InstanceNormalization",
  infer: ([x, scale, bias]) => {
    if (x.dims.length < 3 || scale.dims.join() !== `${x.dims[1]}` || bias.dims.join() !== `${x.dims[1]}`) {
      throw new GraphError(`InstanceNormalization: ${showType(x)} with ${showType(scale)} and ${showType(bias)}`);
    }
    return x;
  },
};

/**
 * Group normalisation (Wu and He 2018) of [N, C, …]: each of `groups` runs of channels to mean 0 and variance 1, then
 * scale and bias [C] per channel. Written with InstanceNormalization, since ONNX Runtime's GroupNormalization leaves the GPU.
 */
export const groupNorm = (x: Value, groups: number, scale: Value, bias: Value, epsilon: number): Value => {
  const [n, c, ...space] = x.dims;
  if (c % groups !== 0) throw new GraphError(`groupNorm: ${c} channels do not fall into ${groups} groups`);
  const g = x.graph;
  const ones = g.scalarRow(1, groups);
  const zeros = g.scalarRow(0, groups);
  const perGroup = reshape(x, [n, groups, (c / groups) * space.reduce((a, b) => a * b, 1)]);
  const normal = reshape(g.apply(instanceNormOp, [perGroup, ones, zeros], { epsilon: { float: epsilon } }), x.dims);
  const perChannel = [c, ...space.map(() => 1)];
  return add(mul(normal, reshape(scale, perChannel)), reshape(bias, perChannel));
};
