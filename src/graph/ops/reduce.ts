/** Reductions over axes, and softmax. */
import { type Attribute, elements, type GradientRule, GraphError, type Op, showType, type Value } from "../graph.ts";
import { div, less, mul, sub, where } from "./elementwise.ts";
import { expand, reshape } from "./shape.ts";

const axesOf = (a: Attribute): readonly number[] => (a as { readonly ints: readonly number[] }).ints;

const reduceOp = (type: string, gradient: GradientRule): Op => ({
  type,
  gradient,
  infer: ([x], { axes }) => ({ dtype: x.dtype, dims: x.dims.map((d, i) => axesOf(axes).includes(i) ? 1 : d) }),
  onnx: ([x], { axes }, { ints }) => ({ inputs: [x, ints(axesOf(axes))], attributes: { keepdims: { int: 1 } } }),
});

const reduce = (op: Op) => (x: Value, axes: readonly number[]): Value => {
  const rank = x.dims.length;
  const full = axes.map((a) => a < 0 ? a + rank : a).sort((a, b) => a - b);
  if (full.some((a, i) => !(a >= 0 && a < rank) || a === full[i - 1])) {
    throw new GraphError(`${op.type}: axes [${axes}] of ${showType(x)}`);
  }
  // ONNX takes an empty list for all axes.
  return full.length === 0 ? x : x.graph.apply(op, [x], { axes: { ints: full } });
};

/** Sum over axes, which stay with size 1. */
export const reduceSum = reduce(reduceOp("ReduceSum", (dy, { inputs: [x] }) => expand(dy, x.dims)));
/** Mean over axes, which stay with size 1. */
export const reduceMean = reduce(
  reduceOp("ReduceMean", (dy, { inputs: [x] }) => expand(mul(dy, elements(dy) / elements(x)), x.dims)),
);
/** Largest element over axes, which stay with size 1. Elements that are equally large share the gradient. */
export const reduceMax = reduce(
  reduceOp("ReduceMax", (dy, { inputs: [x], attributes, output }) => {
    const largest = where(less(x, output), 0, expand(x.graph.scalar(1), x.dims));
    return mul(largest, div(dy, reduceSum(largest, axesOf(attributes.axes))));
  }),
);

/** Sum over the axes along which `dims` would be broadcast to the shape of x: how gradients come back through broadcasting. */
export const sumTo = (x: Value, dims: readonly number[]): Value => {
  const lead = x.dims.length - dims.length;
  const axes = x.dims.flatMap((d, i) => i < lead || (dims[i - lead] === 1 && d !== 1) ? [i] : []);
  return reshape(reduceSum(x, axes), dims);
};

const softmaxOp: Op = {
  type: "Softmax",
  infer: ([x]) => x,
  gradient: (dy, { output: y }) => mul(y, sub(dy, reduceSum(mul(dy, y), [-1]))),
};

/** e^x / Σ e^x along the last axis. */
export const softmax = (x: Value): Value => x.graph.apply(softmaxOp, [x], { axis: { int: x.dims.length - 1 } });
