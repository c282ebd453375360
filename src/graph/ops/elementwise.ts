/** Operations that act element by element, with numpy broadcasting. */
import type { DType } from "../../tensor/tensor.ts";
import { type Graph, GraphError, type Op, showType, type Value, type ValueType } from "../graph.ts";

/** A value, or a number that stands for a float32 scalar. */
export type Operand = Value | number;

/** Shape that two shapes broadcast to. @throws GraphError when they do not. */
export const broadcast = (a: readonly number[], b: readonly number[], what: string): number[] => {
  const rank = Math.max(a.length, b.length);
  return Array.from({ length: rank }, (_, i) => {
    const x = a[a.length - rank + i] ?? 1;
    const y = b[b.length - rank + i] ?? 1;
    if (x !== y && x !== 1 && y !== 1) throw new GraphError(`${what}: [${a}] and [${b}] do not broadcast`);
    return x === 1 ? y : x;
  });
};

const binaryOp = (type: string, result?: DType): Op => ({
  type,
  infer: ([a, b]) => {
    if (a.dtype !== b.dtype) throw new GraphError(`${type}: ${showType(a)} with ${showType(b)}`);
    return { dtype: result ?? a.dtype, dims: broadcast(a.dims, b.dims, type) };
  },
});

const unaryOp = (type: string): Op => ({ type, infer: ([x]) => x });

const graphOf = (a: Operand, b: Operand): Graph => {
  if (typeof a !== "number") return a.graph;
  if (typeof b !== "number") return b.graph;
  throw new GraphError("an operation on two numbers needs no graph");
};

const binary = (op: Op) => (a: Operand, b: Operand): Value => {
  const g = graphOf(a, b);
  const lift = (x: Operand) => typeof x === "number" ? g.scalar(x) : x;
  return g.apply(op, [lift(a), lift(b)]);
};

const unary = (op: Op) => (x: Value): Value => x.graph.apply(op, [x]);

/** a + b */
export const add = binary(binaryOp("Add"));
/** a − b */
export const sub = binary(binaryOp("Sub"));
/** a · b */
export const mul = binary(binaryOp("Mul"));
/** a / b */
export const div = binary(binaryOp("Div"));
/** max(a, b) */
export const maximum = binary(binaryOp("Max"));
/** a < b, as bool */
export const less = binary(binaryOp("Less", "bool"));

/** −x */
export const neg = unary(unaryOp("Neg"));
/** eˣ */
export const exp = unary(unaryOp("Exp"));
/** ln x */
export const log = unary(unaryOp("Log"));
/** √x */
export const sqrt = unary(unaryOp("Sqrt"));
/** |x| */
export const abs = unary(unaryOp("Abs"));
/** The error function, 2/√π ∫₀ˣ e^(−t²) dt. */
export const erf = unary(unaryOp("Erf"));
/** 1 / (1 + e^(−x)) */
export const sigmoid = unary(unaryOp("Sigmoid"));
export const tanh = unary(unaryOp("Tanh"));
export const sin = unary(unaryOp("Sin"));
export const cos = unary(unaryOp("Cos"));

const ELEMENT: Partial<Record<DType, number>> = { float32: 1, int32: 6, int64: 7, bool: 9 };
const castOp = (dtype: DType): Op => ({ type: "Cast", infer: ([x]) => ({ dtype, dims: x.dims }) });

/** The same numbers as another dtype. */
export const cast = (x: Value, dtype: "float32" | "int32" | "int64" | "bool"): Value =>
  x.dtype === dtype ? x : x.graph.apply(castOp(dtype), [x], { to: { int: ELEMENT[dtype]! } });

const whereOp: Op = {
  type: "Where",
  infer: ([condition, a, b]: readonly ValueType[]) => {
    if (condition.dtype !== "bool" || a.dtype !== b.dtype) {
      throw new GraphError(`Where: ${showType(condition)} ? ${showType(a)} : ${showType(b)}`);
    }
    return { dtype: a.dtype, dims: broadcast(condition.dims, broadcast(a.dims, b.dims, "Where"), "Where") };
  },
};

/** condition ? a : b, element by element. */
export const where = (condition: Value, a: Operand, b: Operand): Value => {
  const lift = (x: Operand) => typeof x === "number" ? condition.graph.scalar(x) : x;
  return condition.graph.apply(whereOp, [condition, lift(a), lift(b)]);
};

/** x · sigmoid(x) (Elfwing et al. 2017), "silu" or "swish" in configs. */
export const silu = (x: Value): Value => mul(x, sigmoid(x));

/** x · Φ(x), the exact form by the error function (Hendrycks and Gimpel 2016). */
export const gelu = (x: Value): Value => mul(mul(x, 0.5), add(erf(div(x, Math.SQRT2)), 1));

/** x · sigmoid(1.702 x), the approximation that OpenAI's CLIP was trained with. */
export const quickGelu = (x: Value): Value => mul(x, sigmoid(mul(x, 1.702)));

/** The activation that a config names. @throws GraphError for a name that no supported network uses. */
export const activation = (name: string): (x: Value) => Value => {
  const known: Record<string, (x: Value) => Value> = { silu, swish: silu, gelu, quick_gelu: quickGelu };
  if (!Object.hasOwn(known, name)) {
    throw new GraphError(`activation "${name}" is not supported; known: ${Object.keys(known).join(", ")}`);
  }
  return known[name];
};
