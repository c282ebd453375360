/** Normalisation layers. */
import { type Attribute, GraphError, type Op, showType, type Value } from "../graph.ts";
import { add, div, mul, sqrt, sub } from "./elementwise.ts";
import { reduceMean, sumTo } from "./reduce.ts";
import { reshape } from "./shape.ts";

const floatOf = (a: Attribute): number => (a as { readonly float: number }).float;

/** x̂ = (x − mean) / √(variance + ε) over axes, and 1 / √(variance + ε). */
const standardised = (x: Value, axes: readonly number[], epsilon: number) => {
  const centred = sub(x, reduceMean(x, axes));
  const inverse = div(1, sqrt(add(reduceMean(mul(centred, centred), axes), epsilon)));
  return { normal: mul(centred, inverse), inverse };
};

/** Gradient with respect to x, from that with respect to x̂ (Ioffe and Szegedy 2015, §3; the sums are means over `axes`). */
const throughStandard = (dy: Value, normal: Value, inverse: Value, axes: readonly number[]): Value =>
  mul(inverse, sub(sub(dy, reduceMean(dy, axes)), mul(normal, reduceMean(mul(dy, normal), axes))));

const layerNormOp: Op = {
  type: "LayerNormalization",
  infer: ([x, scale, bias]) => {
    const last = x.dims.at(-1);
    if (scale.dims.join() !== `${last}` || bias.dims.join() !== `${last}`) {
      throw new GraphError(`LayerNormalization: ${showType(x)} with ${showType(scale)} and ${showType(bias)}`);
    }
    return x;
  },
  gradient: (dy, { inputs: [x, scale], attributes }, i) => {
    if (i === 2) return sumTo(dy, scale.dims);
    const { normal, inverse } = standardised(x, [-1], floatOf(attributes.epsilon));
    return i === 1 ? sumTo(mul(dy, normal), scale.dims) : throughStandard(mul(dy, scale), normal, inverse, [-1]);
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
  // Only as groupNorm uses it, with scale 1 and bias 0: the output is then x̂ itself.
  gradient: (dy, { inputs: [x, scale, bias], attributes, output }, i) => {
    const { graph, dims } = x;
    if (i > 0 || scale !== graph.scalarRow(1, dims[1]) || bias !== graph.scalarRow(0, dims[1])) {
      throw new GraphError("InstanceNormalization has a gradient rule for scale 1 and bias 0 alone");
    }
    const axes = [...dims.keys()].slice(2);
    return throughStandard(dy, output, standardised(x, axes, floatOf(attributes.epsilon)).inverse, axes);
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
