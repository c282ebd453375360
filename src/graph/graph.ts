/**
 * The typed, static-shape graph that networks are written in. It talks to `ops/` (what can be computed) above it and to
 * `onnx.ts` (the compile target) below it.
 *
 * Every value knows its dtype and dimensions when it is made, so a mistake is an error at the line that made it, and the
 * compiled model holds no shape arithmetic. Equal expressions are one node (hash-consing): nothing is computed twice.
 */
import { type DType, size, type Tensor, type TensorData } from "../tensor/tensor.ts";

/** Element type and dimensions of a value. */
export interface ValueType {
  readonly dtype: DType;
  readonly dims: readonly number[];
}

/** A value in a graph: an input, a weight, a constant or the output of a node. */
export interface Value extends ValueType {
  readonly graph: Graph;
  readonly id: number;
  readonly source: Source;
}

/** Where a value comes from. */
export type Source =
  | { readonly kind: "input"; readonly name: string }
  | { readonly kind: "weight"; readonly part: string; readonly key: string }
  | { readonly kind: "constant"; readonly tensor: Tensor<TensorData> }
  | { readonly kind: "node"; readonly op: Op; readonly inputs: readonly Value[]; readonly attributes: Attributes };

/** An ONNX attribute: `int` and `float` are told apart by tag, since 1 and 1.0 are one number in JavaScript. */
export type Attribute =
  | { readonly int: number }
  | { readonly float: number }
  | { readonly string: string }
  | { readonly ints: readonly number[] };
export type Attributes = Readonly<Record<string, Attribute>>;

/** What a lowered operation may say to the writer: names of int64 or float32 constants that exist only in the ONNX form. */
export interface Lowering {
  readonly ints: (values: readonly number[]) => string;
  readonly floats: (values: readonly number[]) => string;
}

/** One application of an operation, as its gradient rule sees it. */
export interface Application {
  readonly inputs: readonly Value[];
  readonly attributes: Attributes;
  /** The result. A rule that needs it uses it, rather than computing it a second time. */
  readonly output: Value;
}

/**
 * Gradient of a loss with respect to input `i` of an application, of that input's shape, given `dy`, the gradient with
 * respect to its output. It is asked for float32 inputs only, and only for those whose gradient is needed.
 */
export type GradientRule = (dy: Value, at: Application, i: number) => Value;

/** An operation: its shape rule, its ONNX form and its gradient rule stand together. One output each. */
export interface Op {
  readonly type: string;
  /** ONNX domain; the default is the standard one. */
  readonly domain?: string;
  /** Type of the result. @throws GraphError when the inputs do not fit. */
  readonly infer: (inputs: readonly ValueType[], attributes: Attributes) => ValueType;
  /** Inputs and attributes of the ONNX node where they differ from the graph's own (default: the same). */
  readonly onnx?: (
    inputs: readonly string[],
    attributes: Attributes,
    lowering: Lowering,
    output: ValueType,
  ) => { readonly inputs: readonly string[]; readonly attributes: Attributes };
  /**
   * In a model compiled for half precision: `computes` takes and gives halves, `follows` does where all that it takes are
   * halves. The others compute in single precision.
   */
  readonly half?: "computes" | "follows";
  /** The result lies in the first input's memory. */
  readonly view?: boolean;
  /** How gradients pass from the output to the inputs; without it, `gradient` refuses to pass. */
  readonly gradient?: GradientRule;
}

/** A graph that does not fit together: which operation, what it was given and what it wanted. */
export class GraphError extends Error {
  override readonly name = "GraphError";
}

export const showType = (t: ValueType): string => `${t.dtype}[${t.dims.join(",")}]`;

/** Reads a weight of one part by its checkpoint key: `weight("down_blocks.0.resnets.0.conv1.weight", [320, 320, 3, 3])`. */
export type WeightReader = (key: string, dims: readonly number[]) => Value;

export interface WeightUse {
  readonly part: string;
  readonly key: string;
  readonly dims: readonly number[];
}

export class Graph {
  readonly inputs: Value[] = [];
  readonly outputs: { readonly name: string; readonly value: Value }[] = [];
  #count = 0;
  readonly #known = new Map<string, Value>();
  readonly #asInput: (part: string, key: string) => boolean;
  readonly #weightInputs = new Set<Value>();

  /** @param options.weightsAsInputs chooses weights that the caller feeds at run time (candidates of a cure, trained weights). */
  constructor(options: { weightsAsInputs?: (part: string, key: string) => boolean } = {}) {
    this.#asInput = options.weightsAsInputs ?? (() => false);
  }

  /** A value fed at run time. */
  input(name: string, dtype: DType, dims: readonly number[]): Value {
    checkName("input", name);
    const known = this.#known.get(`input ${name}`);
    if (known !== undefined) {
      if (known.dtype !== dtype || known.dims.join() !== dims.join()) {
        throw new GraphError(`input ${name}: ${showType(known)} and ${showType({ dtype, dims })} share one name`);
      }
      return known;
    }
    const value = this.#make(`input ${name}`, { dtype, dims }, { kind: "input", name });
    this.inputs.push(value);
    return value;
  }

  /** Reader of the weights of one part (`unet`, `vae`, …). A weight is float32 in the graph whatever its file holds. */
  weights(part: string): WeightReader {
    return (key, dims) => {
      if (!this.#asInput(part, key)) {
        return this.#shared(`weight ${part} ${key}`, { dtype: "float32", dims }, () => ({ kind: "weight", part, key }));
      }
      const value = this.input(weightInput(part, key), "float32", dims);
      this.#weightInputs.add(value);
      return value;
    };
  }

  /** The inputs that feed weights, in the order of first use. */
  weightInputs(): Value[] {
    return [...this.#weightInputs];
  }

  /** A constant tensor. Constants are compared by identity; scalars by value. */
  constant(t: Tensor<TensorData>): Value {
    return this.#make(`constant #${this.#count}`, { dtype: dtypeOf(t.data), dims: t.dims }, {
      kind: "constant",
      tensor: t,
    });
  }

  scalar(x: number): Value {
    return this.#shared(`scalar ${x}`, { dtype: "float32", dims: [] }, () => ({
      kind: "constant",
      tensor: { dims: [], data: Float32Array.of(x) },
    }));
  }

  /** A row of `count` equal numbers, shared by all that ask for the same. */
  scalarRow(x: number, count: number): Value {
    return this.#shared(`row ${x} ${count}`, { dtype: "float32", dims: [count] }, () => ({
      kind: "constant",
      tensor: { dims: [count], data: new Float32Array(count).fill(x) },
    }));
  }

  /** A row of whole numbers as int32, shared by all that ask for the same. */
  intRow(values: readonly number[]): Value {
    return this.#shared(`ints ${values}`, { dtype: "int32", dims: [values.length] }, () => ({
      kind: "constant",
      tensor: { dims: [values.length], data: Int32Array.from(values) },
    }));
  }

  /** Names a value as a result of the graph. */
  output(name: string, value: Value): void {
    checkName("output", name);
    if (value.graph !== this) throw new GraphError(`output ${name}: the value belongs to another graph`);
    if (this.outputs.some((o) => o.name === name)) throw new GraphError(`output ${name} is there already`);
    this.outputs.push({ name, value });
  }

  /** Applies an operation, or returns the value of an equal application made before. */
  apply(op: Op, inputs: readonly Value[], attributes: Attributes = {}): Value {
    for (const v of inputs) {
      if (v.graph !== this) throw new GraphError(`${op.type}: an input belongs to another graph`);
    }
    const key = `${op.domain ?? ""}.${op.type}(${inputs.map((v) => v.id)})${JSON.stringify(attributes)}`;
    return this.#shared(key, undefined, () => ({ kind: "node", op, inputs, attributes }));
  }

  /** Values that the outputs, or the given values, need: each after those it is made from. */
  reachable(from: readonly Value[] = this.outputs.map((o) => o.value)): Value[] {
    return postOrder(from, (value) => value.source.kind === "node" ? value.source.inputs : []);
  }

  /** The weights that the outputs need, in the order of first use, with the dimensions a checkpoint must have. */
  weightsUsed(): WeightUse[] {
    return this.reachable().flatMap((v) =>
      v.source.kind === "weight" ? [{ part: v.source.part, key: v.source.key, dims: v.dims }] : []
    );
  }

  #shared(key: string, type: ValueType | undefined, source: () => Source): Value {
    const known = this.#known.get(key);
    if (known !== undefined) {
      if (type !== undefined && known.dims.join() !== type.dims.join()) {
        throw new GraphError(`${key}: used as ${showType(known)} and as ${showType(type)}`);
      }
      return known;
    }
    const from = source();
    const inferred = type ?? (from.kind === "node" ? from.op.infer(from.inputs, from.attributes) : undefined);
    return this.#make(key, inferred!, from);
  }

  #make(key: string, { dtype, dims }: ValueType, source: Source): Value {
    if (!dims.every((d) => Number.isSafeInteger(d) && d >= 0)) {
      throw new GraphError(`${key}: dimensions [${dims.join(",")}] are not whole numbers`);
    }
    const value: Value = { graph: this, id: this.#count++, dtype, dims, source };
    this.#known.set(key, value);
    return value;
  }
}

/**
 * Every value once, depth first, after all that it is made from; the last root and the last input are entered first. An
 * explicit stack: a deep network would overflow a recursive walk.
 */
export const postOrder = (roots: readonly Value[], inputsOf: (value: Value) => readonly Value[]): Value[] => {
  const order: Value[] = [];
  const seen = new Set<Value>();
  const stack = roots.map((value) => ({ value, entered: false }));
  while (stack.length > 0) {
    const { value, entered } = stack.pop()!;
    if (entered) {
      order.push(value);
      continue;
    }
    if (seen.has(value)) continue;
    seen.add(value);
    stack.push({ value, entered: true });
    for (const input of inputsOf(value)) stack.push({ value: input, entered: false });
  }
  return order;
};

/** % and # begin the names that the ONNX writer gives to what is inside. */
const checkName = (what: string, name: string): void => {
  if (!/^[^%#]/.test(name)) {
    throw new GraphError(`${what} "${name}": a name begins with neither % nor #, and is not empty`);
  }
};

/** Name of the graph input that feeds a weight chosen by `weightsAsInputs`. */
export const weightInput = (part: string, key: string): string => `${part}/${key}`;

export const dtypeOf = (data: TensorData): DType =>
  data instanceof Float32Array
    ? "float32"
    : data instanceof Float16Array
    ? "float16"
    : data instanceof Int32Array
    ? "int32"
    : data instanceof BigInt64Array
    ? "int64"
    : "uint8";

export const elements = (t: ValueType): number => size(t.dims);
