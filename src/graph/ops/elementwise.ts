/** Operations that act element by element, with numpy broadcasting. */
import type { DType } from "../../tensor/tensor.ts";
import { type Graph, GraphError, type Op, showType, type Value, type ValueType } from "../graph.ts";
import { sumTo } from "./reduce.ts";

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

const binaryShape = (type: string, result?: DType): Op => ({
  type,
  infer: ([a, b]) => {
    if (a.dtype !== b.dtype) throw new GraphError(`${type}: ${showType(a)} with ${showType(b)}`);
    return { dtype: result ?? a.dtype, dims: broadcast(a.dims, b.dims, type) };
  },
});

/** @param partials gradients with respect to a and b in the broadcast shape, from dy, a, b and the result y. */
const binaryOp = (
  type: string,
  ...partials: readonly ((dy: Value, a: Value, b: Value, y: Value) => Value)[]
): Op => ({
  ...binaryShape(type),
  gradient: (dy, { inputs, output }, i) => sumTo(partials[i](dy, inputs[0], inputs[1], output), inputs[i].dims),
});

/** A comparison: true or false, so that no gradient passes. */
const comparisonOp = (type: string): Op => binaryShape(type, "bool");

/** @param partial gradient with respect to x, from dy, x and the result y. */
const unaryOp = (type: string, partial: (dy: Value, x: Value, y: Value) => Value): Op => ({
  type,
  infer: ([x]) => x,
  gradient: (dy, { inputs, output }) => partial(dy, inputs[0], output),
});

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

const following = (op: Op): Op => ({ ...op, half: "follows" });

/** a + b */
export const add = binary(following(binaryOp("Add", (dy) => dy, (dy) => dy)));
/** a − b */
export const sub = binary(following(binaryOp("Sub", (dy) => dy, (dy) => neg(dy))));
/** a · b */
export const mul = binary(following(binaryOp("Mul", (dy, _, b) => mul(dy, b), (dy, a) => mul(dy, a))));
/** a / b */
export const div = binary(binaryOp("Div", (dy, _, b) => div(dy, b), (dy, _, b, y) => neg(div(mul(dy, y), b))));
/** max(a, b). Where they are equal the gradient is b's, so that max(x, 0) has the gradient 0 at 0, as ReLU. */
export const maximum = binary(
  binaryOp("Max", (dy, a, b) => where(less(b, a), dy, 0), (dy, a, b) => where(less(b, a), 0, dy)),
);
/** a < b, as bool */
export const less = binary(comparisonOp("Less"));
/** a = b, as bool: for int32, or for float32 that were never computed with. */
export const equal = binary(comparisonOp("Equal"));

/** −x */
export const neg = unary(unaryOp("Neg", (dy) => neg(dy)));
/** eˣ */
export const exp = unary(unaryOp("Exp", (dy, _, y) => mul(dy, y)));
/** ln x */
export const log = unary(unaryOp("Log", (dy, x) => div(dy, x)));
/** √x */
export const sqrt = unary(unaryOp("Sqrt", (dy, _, y) => div(mul(dy, 0.5), y)));
/** |x|. The gradient at 0 is 0. */
export const abs = unary(
  unaryOp("Abs", (dy, x) => where(less(x, 0), neg(dy), where(less(0, x), dy, 0))),
);
/** The error function, 2/√π ∫₀ˣ e^(−t²) dt. */
export const erf = unary(unaryOp("Erf", (dy, x) => mul(dy, mul(exp(neg(mul(x, x))), 2 / Math.sqrt(Math.PI)))));
/** 1 / (1 + e^(−x)) */
export const sigmoid = unary(unaryOp("Sigmoid", (dy, _, y) => mul(dy, mul(y, sub(1, y)))));
export const tanh = unary(unaryOp("Tanh", (dy, _, y) => mul(dy, sub(1, mul(y, y)))));

const ELEMENT: Partial<Record<DType, number>> = { float32: 1, int32: 6, int64: 7, bool: 9 };
const castOp = (dtype: DType): Op => ({ type: "Cast", infer: ([x]) => ({ dtype, dims: x.dims }) });

/** The same numbers as another dtype. No gradient passes: only float32 carries one. */
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
  gradient: (dy, { inputs: [condition, ...choices] }, i) =>
    sumTo(i === 1 ? where(condition, dy, 0) : where(condition, 0, dy), choices[i - 1].dims),
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
