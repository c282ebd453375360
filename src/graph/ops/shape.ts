/** Operations that move elements without changing them. */
import { size } from "../../tensor/tensor.ts";
import { elements, GraphError, type Op, showType, type Value } from "../graph.ts";
import { cast, equal } from "./elementwise.ts";
import { matmul } from "./linear.ts";
import { reduceSum, sumTo } from "./reduce.ts";

const intsOf = (a: { readonly ints: readonly number[] } | object): readonly number[] =>
  (a as { ints: readonly number[] }).ints;
const intOf = (a: object): number => (a as { int: number }).int;

/** Axis counted from the front; −1 is the last. */
const axisOf = (axis: number, rank: number, what: string): number => {
  const a = axis < 0 ? axis + rank : axis;
  if (!Number.isInteger(a) || a < 0 || a >= rank) throw new GraphError(`${what}: axis ${axis} of a rank-${rank} value`);
  return a;
};

const reshapeOp: Op = {
  type: "Reshape",
  half: "follows",
  view: true,
  infer: ([x], { shape }) => {
    const dims = intsOf(shape);
    if (dims.reduce((n, d) => n * d, 1) !== elements(x)) throw new GraphError(`Reshape: ${showType(x)} to [${dims}]`);
    return { dtype: x.dtype, dims };
  },
  onnx: ([x], { shape }, { ints }) => ({ inputs: [x, ints(intsOf(shape))], attributes: {} }),
  gradient: (dy, { inputs: [x] }) => reshape(dy, x.dims),
};

/** The same elements in another shape; one dimension may be −1, the rest that is left. */
export const reshape = (x: Value, dims: readonly number[]): Value => {
  const known = dims.reduce((n, d) => d < 0 ? n : n * d, 1);
  const full = dims.map((d) => d < 0 ? elements(x) / known : d);
  if (full.length === x.dims.length && full.every((d, i) => d === x.dims[i])) return x;
  // Of two reshapes only the last shows.
  if (x.source.kind === "node" && x.source.op === reshapeOp && elements(x) === size(full)) {
    return reshape(x.source.inputs[0], full);
  }
  return x.graph.apply(reshapeOp, [x], { shape: { ints: full } });
};

const transposeOp: Op = {
  type: "Transpose",
  half: "follows",
  infer: ([x], { perm }) => {
    const p = intsOf(perm);
    if (p.length !== x.dims.length || [...p].sort((a, b) => a - b).some((a, i) => a !== i)) {
      throw new GraphError(`Transpose: ${showType(x)} by [${p}]`);
    }
    return { dtype: x.dtype, dims: p.map((i) => x.dims[i]) };
  },
  gradient: (dy, { attributes: { perm } }) => transpose(dy, intsOf(perm).map((_, i) => intsOf(perm).indexOf(i))),
};

/** Axes in a new order: result axis i is axis perm[i] of x. */
export const transpose = (x: Value, perm: readonly number[]): Value => {
  if (perm.length === x.dims.length && perm.every((a, i) => a === i)) return x;
  const y = x.graph.apply(transposeOp, [x], { perm: { ints: perm } });
  if (x.source.kind !== "node" || x.source.op !== transposeOp) return y;
  // Two transpositions are one, or none: the gradient of x Wᵀ asks for Wᵀᵀ.
  const inner = intsOf(x.source.attributes.perm);
  return transpose(x.source.inputs[0], perm.map((i) => inner[i]));
};

const concatOp: Op = {
  type: "Concat",
  half: "follows",
  infer: (inputs, { axis }) => {
    const a = intOf(axis);
    const [first] = inputs;
    for (const x of inputs) {
      if (
        x.dtype !== first.dtype || x.dims.length !== first.dims.length ||
        x.dims.some((d, i) => i !== a && d !== first.dims[i])
      ) {
        throw new GraphError(`Concat on axis ${a}: ${inputs.map(showType).join(", ")}`);
      }
    }
    const dims = [...first.dims];
    dims[a] = inputs.reduce((n, x) => n + x.dims[a], 0);
    return { dtype: first.dtype, dims };
  },
  gradient: (dy, { inputs, attributes: { axis } }, i) => {
    const a = intOf(axis);
    const begin = inputs.slice(0, i).reduce((n, x) => n + x.dims[a], 0);
    return slice(dy, a, begin, begin + inputs[i].dims[a]);
  },
};

/** Joins values along an axis. */
export const concat = (inputs: readonly Value[], axis: number): Value =>
  inputs.length === 1
    ? inputs[0]
    : inputs[0].graph.apply(concatOp, inputs, { axis: { int: axisOf(axis, inputs[0].dims.length, "Concat") } });

const sliceOp: Op = {
  type: "Slice",
  half: "follows",
  infer: ([x], { axis, begin, end }) => {
    const [a, b, e] = [intOf(axis), intOf(begin), intOf(end)];
    if (b < 0 || e > x.dims[a] || b >= e) throw new GraphError(`Slice: ${showType(x)}, axis ${a}, ${b} to ${e}`);
    return { dtype: x.dtype, dims: x.dims.map((d, i) => i === a ? e - b : d) };
  },
  onnx: ([x], { axis, begin, end }, { ints }) => ({
    inputs: [x, ints([intOf(begin)]), ints([intOf(end)]), ints([intOf(axis)])],
    attributes: {},
  }),
  gradient: (dy, { inputs: [x], attributes: { axis, begin, end } }) => {
    const along = (n: number) => x.dims.map((_, i) => i === intOf(axis) ? n : 0);
    return pad(dy, along(intOf(begin)), along(x.dims[intOf(axis)] - intOf(end)));
  },
};

/** Positions `begin` (inclusive) to `end` (exclusive) of an axis. */
export const slice = (x: Value, axis: number, begin: number, end: number): Value => {
  const a = axisOf(axis, x.dims.length, "Slice");
  if (begin === 0 && end === x.dims[a]) return x;
  return x.graph.apply(sliceOp, [x], { axis: { int: a }, begin: { int: begin }, end: { int: end } });
};

/** Cuts an axis into equal pieces. */
export const split = (x: Value, axis: number, pieces: number): Value[] => {
  const width = x.dims[axisOf(axis, x.dims.length, "split")] / pieces;
  return Array.from({ length: pieces }, (_, i) => slice(x, axis, i * width, (i + 1) * width));
};

const expandOp: Op = {
  type: "Expand",
  half: "follows",
  infer: ([x], { shape }) => {
    const dims = intsOf(shape);
    const offset = dims.length - x.dims.length;
    if (offset < 0 || x.dims.some((d, i) => d !== 1 && d !== dims[offset + i])) {
      throw new GraphError(`Expand: ${showType(x)} to [${dims}]`);
    }
    return { dtype: x.dtype, dims };
  },
  onnx: ([x], { shape }, { ints }) => ({ inputs: [x, ints(intsOf(shape))], attributes: {} }),
  gradient: (dy, { inputs: [x] }) => sumTo(dy, x.dims),
};

/** Repeats axes of size 1, and new leading axes, up to a shape. */
export const expand = (x: Value, dims: readonly number[]): Value =>
  x.dims.length === dims.length && x.dims.every((d, i) => d === dims[i])
    ? x
    : x.graph.apply(expandOp, [x], { shape: { ints: dims } });

const padOp: Op = {
  type: "Pad",
  infer: ([x], { before, after }) => ({
    dtype: x.dtype,
    dims: x.dims.map((d, i) => d + intsOf(before)[i] + intsOf(after)[i]),
  }),
  onnx: ([x], { before, after }, { ints }) => ({
    inputs: [x, ints([...intsOf(before), ...intsOf(after)])],
    attributes: { mode: { string: "constant" } },
  }),
  gradient: (dy, { inputs: [x], attributes: { before } }) =>
    x.dims.reduce((g, d, i) => slice(g, i, intsOf(before)[i], intsOf(before)[i] + d), dy),
};

/** Zeros around each axis. */
export const pad = (x: Value, before: readonly number[], after: readonly number[]): Value =>
  [...before, ...after].every((n) => n === 0)
    ? x
    : x.graph.apply(padOp, [x], { before: { ints: before }, after: { ints: after } });

const gatherOp: Op = {
  type: "Gather",
  infer: ([table, index]) => {
    if (index.dtype !== "int32") {
      throw new GraphError(`Gather: index ${showType(index)}, int32 is needed to stay on a GPU`);
    }
    return { dtype: table.dtype, dims: [...index.dims, ...table.dims.slice(1)] };
  },
  // Rows of the gradient are added up by a product with the one-hot index. ONNX's ScatterND takes int64, which leaves a GPU.
  gradient: (dy, { inputs: [table, index] }) => {
    const [rows, ...rest] = table.dims;
    const places = table.graph.intRow(Array.from({ length: rows }, (_, i) => i));
    const oneHot = cast(equal(reshape(places, [rows, 1]), reshape(index, [1, elements(index)])), "float32");
    return reshape(matmul(oneHot, reshape(dy, [elements(index), size(rest)])), table.dims);
  },
};

/** Rows of a table: result[i…] = table[index[i…]]. The index is int32, which every backend keeps on its device. */
export const gather = (table: Value, index: Value): Value =>
  table.graph.apply(gatherOp, [table, index], { axis: { int: 0 } });

const resizeOp: Op = {
  type: "Resize",
  half: "follows",
  infer: ([x], { scale }) => ({
    dtype: x.dtype,
    dims: x.dims.map((d, i) => i < 2 ? d : d * intOf(scale)),
  }),
  onnx: ([x], { scale }, { floats }) => ({
    inputs: [x, "", floats([1, 1, intOf(scale), intOf(scale)])],
    attributes: {
      mode: { string: "nearest" },
      nearest_mode: { string: "floor" },
      coordinate_transformation_mode: { string: "asymmetric" },
    },
  }),
  gradient: (dy, { inputs: [x], attributes: { scale } }) => {
    const [n, c, h, w] = x.dims;
    // Four axes rather than six: each block of cells is summed along axes of its own.
    const blocks = reshape(dy, [n * c * h, intOf(scale), w, intOf(scale)]);
    return reshape(reduceSum(blocks, [1, 3]), x.dims);
  },
};

/** Each cell of [N, C, H, W] becomes scale × scale cells, as torch's nearest-neighbour interpolation. */
export const upsampleNearest = (x: Value, scale: number): Value => {
  if (x.dims.length !== 4) throw new GraphError(`upsampleNearest: ${showType(x)} is not [N,C,H,W]`);
  return x.graph.apply(resizeOp, [x], { scale: { int: scale } });
};
