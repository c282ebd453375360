/** Matrix products. */
import { elements, GraphError, type Op, showType, type Value } from "../graph.ts";
import { add, broadcast } from "./elementwise.ts";
import { sumTo } from "./reduce.ts";
import { reshape, transpose } from "./shape.ts";

const matmulOp: Op = {
  type: "MatMul",
  half: "computes",
  infer: ([a, b]) => {
    const [k, l] = [a.dims.at(-1), b.dims.at(-2)];
    if (a.dims.length < 2 || b.dims.length < 2 || k !== l) {
      throw new GraphError(`MatMul: ${showType(a)} by ${showType(b)}`);
    }
    const batch = broadcast(a.dims.slice(0, -2), b.dims.slice(0, -2), "MatMul");
    return { dtype: a.dtype, dims: [...batch, a.dims.at(-2)!, b.dims.at(-1)!] };
  },
  gradient: (dy, { inputs: [a, b] }, i) => {
    if (i === 0) return sumTo(matmul(dy, turned(b)), a.dims);
    // One matrix for all rows, as in every linear layer: one product over all of them, no sum over a batch afterwards.
    if (b.dims.length === 2) return matmul(turned(flat(a)), flat(dy));
    return sumTo(matmul(turned(a), dy), b.dims);
  },
};

/** The last two axes exchanged. */
const turned = (x: Value): Value => {
  const rank = x.dims.length;
  return transpose(x, [...x.dims.keys()].map((i) => i < rank - 2 ? i : 2 * rank - 3 - i));
};

/** All rows in one matrix. */
const flat = (x: Value): Value => reshape(x, [elements(x) / x.dims.at(-1)!, x.dims.at(-1)!]);

/** Matrix product of the last two axes; the axes before them broadcast. */
export const matmul = (a: Value, b: Value): Value => a.graph.apply(matmulOp, [a, b]);

/** x Wᵀ + b for W [out, in], as torch.nn.Linear. */
export const linear = (x: Value, weight: Value, bias?: Value): Value => {
  const y = matmul(x, transpose(weight, [1, 0]));
  return bias === undefined ? y : add(y, bias);
};
