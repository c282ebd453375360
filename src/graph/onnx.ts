/**
 * Compiles a graph to the bytes of an ONNX model. ONNX is the compile target: weights stay in the user's .safetensors
 * files, as external data that points at their byte ranges, so nothing is converted and nothing is copied.
 * Field numbers: onnx.proto of ONNX IR version 10 (github.com/onnx/onnx, onnx/onnx.proto).
 */
import type { DType, TensorData } from "../tensor/tensor.ts";
import {
  type Attributes,
  dtypeOf,
  type Graph,
  GraphError,
  type Lowering,
  showType,
  type Value,
  weightInput,
} from "./graph.ts";
import { halfValues } from "./half.ts";
import { Writer } from "./protobuf.ts";

/** Where the bytes of a weight are: `path` names the external data, offset and length count bytes. */
export interface WeightPlace {
  readonly path: string;
  readonly offset: number;
  readonly length: number;
  readonly dtype: DType;
  readonly dims: readonly number[];
  /** The bytes themselves, for a weight that the model is to hold in itself; path and offset then mean nothing. */
  readonly bytes?: Uint8Array;
  /** Whether the bytes are the matrix turned over: [columns, rows] of the dims. */
  readonly turned?: boolean;
}

/** Finds a weight of a part, or says why there is none by throwing. */
export type WeightLocator = (part: string, key: string) => WeightPlace;

export interface Compiled {
  readonly model: Uint8Array;
  /** External data paths that the model refers to. */
  readonly paths: ReadonlySet<string>;
  readonly inputs: ReadonlyMap<string, { readonly dtype: DType; readonly dims: readonly number[] }>;
  readonly outputs: ReadonlyMap<string, { readonly dtype: DType; readonly dims: readonly number[] }>;
}

const OPSET = 21;
const IR_VERSION = 10;
const ELEMENT: Record<DType, number> = { float32: 1, uint8: 2, int32: 6, int64: 7, bool: 9, float16: 10 };

export interface CompileOptions {
  /** Compute products in half precision; inputs and outputs stay as they are. */
  readonly half?: boolean;
}

/** ONNX model of everything that the graph's outputs need. */
export const toOnnx = (graph: Graph, locate: WeightLocator, options: CompileOptions = {}): Compiled => {
  const half: ReadonlySet<Value> = options.half ? halfValues(graph) : new Set();
  const nodes: Writer[] = [];
  const initializers: Writer[] = [];
  const paths = new Set<string>();
  const small = new Map<string, string>();
  const outputNames = new Map<Value, string>();
  for (const { name, value } of graph.outputs) if (!outputNames.has(value)) outputNames.set(value, name);

  // A weight keeps its name, which ONNX Runtime's errors then show; other inner values are numbered, as printGraph does.
  const nameOf = (v: Value): string => {
    if (v.source.kind === "input") return v.source.name;
    return outputNames.get(v) ?? (v.source.kind === "weight" ? weightInput(v.source.part, v.source.key) : `%${v.id}`);
  };

  const taken = new Set(graph.inputs.map((v) => nameOf(v)));
  for (const value of graph.reachable()) {
    if (value.source.kind === "input") continue;
    const name = nameOf(value);
    if (taken.has(name)) throw new GraphError(`${name} is the name of two values; rename the input or the output`);
    taken.add(name);
  }

  const constants = (kind: "ints" | "floats") => (values: readonly number[]): string => {
    const key = `${kind} ${values.join()}`;
    const known = small.get(key);
    if (known !== undefined) return known;
    const name = `#${small.size}`;
    small.set(key, name);
    const data = kind === "ints" ? BigInt64Array.from(values, BigInt) : Float32Array.from(values);
    initializers.push(inlineTensor(name, data, [values.length]));
    return name;
  };
  const lowering: Lowering = { ints: constants("ints"), floats: constants("floats") };

  const stored = new Set<Value>();
  const casts = new Set<string>();
  const halfName = (v: Value): string => `${nameOf(v)}.${stored.has(v) ? "stored" : "half"}`;
  /** The name under which a float32 value is read in one precision or the other; a Cast makes the one that is not there. */
  const read = (v: Value, inHalf: boolean): string => {
    const isHalf = half.has(v) || stored.has(v);
    const name = inHalf ? halfName(v) : nameOf(v);
    if (v.dtype !== "float32" || isHalf === inHalf || casts.has(name)) return v.dtype === "float32" ? name : nameOf(v);
    casts.add(name);
    if (inHalf && v.source.kind === "constant") {
      initializers.push(inlineTensor(name, Float16Array.from(v.source.tensor.data, Number), v.dims));
    } else {
      const to = { int: inHalf ? ELEMENT.float16 : ELEMENT.float32 };
      nodes.push(nodeProto("Cast", "", [inHalf ? nameOf(v) : halfName(v)], name, { to }));
    }
    return name;
  };

  for (const value of graph.reachable()) {
    const { source } = value;
    const name = nameOf(value);
    if (source.kind === "constant") {
      initializers.push(inlineTensor(name, source.tensor.data, value.dims));
    } else if (source.kind === "weight") {
      const place = locate(source.part, source.key);
      if (place.dims.join() !== value.dims.join()) {
        throw new GraphError(
          `${source.part} ${source.key}: the file holds [${place.dims}], the network wants [${value.dims}]`,
        );
      }
      if (place.bytes === undefined) paths.add(place.path);
      // What is done to the bytes comes after their name: ".stored", turned over, cast.
      if (place.dtype === "float16") stored.add(value);
      const plain = place.dtype === "float32";
      const right = plain ? name : `${name}.stored`;
      const bytes = place.turned ? `${name}.turned` : right;
      initializers.push(weightTensor(bytes, place));
      if (place.turned) nodes.push(nodeProto("Transpose", "", [bytes], right, { perm: { ints: [1, 0] } }));
      // A half is cast where something reads it in single precision.
      if (!plain && !stored.has(value)) {
        nodes.push(nodeProto("Cast", "", [right], name, { to: { int: ELEMENT.float32 } }));
      }
    } else if (source.kind === "node") {
      const inputs = source.inputs.map((v) => read(v, half.has(value)));
      const form = source.op.onnx?.(inputs, source.attributes, lowering, value) ??
        { inputs, attributes: source.attributes };
      const out = half.has(value) ? halfName(value) : name;
      nodes.push(nodeProto(source.op.type, source.op.domain ?? "", form.inputs, out, form.attributes));
    }
  }
  // One value under two output names, or an input handed straight through: ONNX wants a node for each.
  for (const { name, value } of graph.outputs) {
    read(value, false);
    if (nameOf(value) !== name) nodes.push(nodeProto("Identity", "", [nameOf(value)], name, {}));
  }

  const proto = new Writer();
  for (const node of nodes) proto.message(1, node);
  proto.string(2, "sau");
  for (const initializer of initializers) proto.message(5, initializer);
  for (const input of graph.inputs) proto.message(11, valueInfo(nameOf(input), input.dtype, input.dims));
  for (const { name, value } of graph.outputs) proto.message(12, valueInfo(name, value.dtype, value.dims));

  const domains = new Set(graph.reachable().flatMap((v) => v.source.kind === "node" ? [v.source.op.domain ?? ""] : []));
  const model = new Writer().int(1, IR_VERSION).string(2, "sau").message(7, proto);
  model.message(8, new Writer().string(1, "").int(2, OPSET));
  for (const domain of domains) if (domain !== "") model.message(8, new Writer().string(1, domain).int(2, 1));

  return {
    model: model.finish(),
    paths,
    inputs: new Map(graph.inputs.map((v) => [nameOf(v), { dtype: v.dtype, dims: v.dims }])),
    outputs: new Map(graph.outputs.map(({ name, value }) => [name, { dtype: value.dtype, dims: value.dims }])),
  };
};

const valueInfo = (name: string, dtype: DType, dims: readonly number[]): Writer => {
  const shape = new Writer();
  for (const d of dims) shape.message(1, new Writer().int(1, d));
  return new Writer().string(1, name).message(
    2,
    new Writer().message(1, new Writer().int(1, ELEMENT[dtype]).message(2, shape)),
  );
};

const nodeProto = (
  type: string,
  domain: string,
  inputs: readonly string[],
  output: string,
  attributes: Attributes,
): Writer => {
  const node = new Writer();
  for (const input of inputs) node.string(1, input);
  node.string(2, output).string(3, output).string(4, type);
  for (const [name, a] of Object.entries(attributes)) {
    const w = new Writer().string(1, name);
    if ("int" in a) w.int(3, a.int).int(20, 2);
    else if ("float" in a) w.float(2, a.float).int(20, 1);
    else if ("string" in a) w.string(4, a.string).int(20, 3);
    else {
      for (const x of a.ints) w.int(8, x);
      w.int(20, 7);
    }
    node.message(5, w);
  }
  if (domain !== "") node.string(7, domain);
  return node;
};

const inlineTensor = (name: string, data: TensorData, dims: readonly number[]): Writer => {
  const w = new Writer();
  for (const d of dims) w.int(1, d);
  return w.int(2, ELEMENT[dtypeOf(data)]).string(8, name).bytes(
    9,
    new Uint8Array(data.buffer, data.byteOffset, data.byteLength),
  );
};

const weightTensor = (name: string, place: WeightPlace): Writer => {
  const w = new Writer();
  for (const d of place.turned ? place.dims.toReversed() : place.dims) w.int(1, d);
  w.int(2, ELEMENT[place.dtype]).string(8, name);
  if (place.bytes !== undefined) return w.bytes(9, place.bytes);
  for (const [key, value] of [["location", place.path], ["offset", `${place.offset}`], ["length", `${place.length}`]]) {
    w.message(13, new Writer().string(1, key).string(2, value));
  }
  return w.int(14, 1);
};

/** The graph as text, one line a value: for people who look for a mistake. */
export const printGraph = (graph: Graph): string =>
  graph.reachable().map((v) => {
    const s = v.source;
    const from = s.kind === "node"
      ? `${s.op.type}(${s.inputs.map((i) => `%${i.id}`).join(", ")}) ${JSON.stringify(s.attributes)}`
      : s.kind === "constant"
      ? "constant"
      : s.kind === "weight"
      ? `weight ${s.part} ${s.key}`
      : `input ${s.name}`;
    return `%${v.id}: ${showType(v)} = ${from}`;
  }).join("\n");
