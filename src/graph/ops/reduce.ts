/** Reductions over axes, and softmax. */
import { type Attribute, GraphError, type Op, showType, type Value } from "../graph.ts";

const axesOf = (a: Attribute): readonly number[] => (a as { readonly ints: readonly number[] }).ints;

const reduceOp = (type: string): Op => ({
  type,
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
export const reduceSum = reduce(reduceOp("ReduceSum"));
/** Mean over axes, which stay with size 1. */
export const reduceMean = reduce(reduceOp("ReduceMean"));
/** Largest element over axes, which stay with size 1. */
export const reduceMax = reduce(reduceOp("ReduceMax"));

const softmaxOp: Op = { type: "Softmax", infer: ([x]) => x };

/** e^x / Σ e^x along the last axis. */
export const softmax = (x: Value): Value => x.graph.apply(softmaxOp, [x], { axis: { int: x.dims.length - 1 } });
