/**
 * Reads the ONNX models that `graph/onnx.ts` writes (onnx.proto of ONNX IR version 10): nodes, weights, types. The bytes
 * come from this process, so that a mistake is a bug of the writer, told as one.
 */
import type { DType, TensorData } from "../../tensor/tensor.ts";
import type { ModelBytes, PortType } from "../engine.ts";

/** A tensor whose dtype is told, since bool and uint8 live in the same kind of array. */
export interface Typed {
  readonly dtype: DType;
  readonly dims: readonly number[];
  readonly data: TensorData;
}

export type Attribute = number | string | readonly number[];

export interface Node {
  readonly type: string;
  /** "" stands for an optional input that is left out. */
  readonly inputs: readonly string[];
  readonly output: string;
  readonly attributes: Readonly<Record<string, Attribute>>;
}

export interface Model {
  readonly nodes: readonly Node[];
  readonly constants: ReadonlyMap<string, Typed>;
  readonly inputs: ReadonlyMap<string, PortType>;
  readonly outputs: ReadonlyMap<string, PortType>;
}

/** The fields of one message, by number: varints as bigint, everything else as its bytes. */
type Fields = ReadonlyMap<number, ReadonlyArray<bigint | Uint8Array>>;

/** protobuf.dev/programming-guides/encoding */
const fieldsOf = (bytes: Uint8Array): Fields => {
  const fields = new Map<number, (bigint | Uint8Array)[]>();
  let at = 0;
  const varint = (): bigint => {
    let value = 0n;
    for (let shift = 0n;; shift += 7n) {
      const byte = bytes[at++];
      if (byte === undefined) throw new Error("the model's bytes end inside a number");
      value |= BigInt(byte & 0x7f) << shift;
      if (byte < 0x80) return value;
    }
  };
  const take = (length: number): Uint8Array => {
    if (at + length > bytes.length) throw new Error("the model's bytes end inside a field");
    return bytes.subarray(at, at += length);
  };
  while (at < bytes.length) {
    const tag = Number(varint()), wire = tag & 7;
    const value = wire === 0 ? varint() : wire === 2 ? take(Number(varint())) : wire === 5 ? take(4) : undefined;
    if (value === undefined) throw new Error(`wire type ${wire} is not used in ONNX`);
    const field = tag >> 3, known = fields.get(field);
    if (known === undefined) fields.set(field, [value]);
    else known.push(value);
  }
  return fields;
};

const utf8 = new TextDecoder();
const messages = (fields: Fields, field: number): Fields[] => bytesOf(fields, field).map((bytes) => fieldsOf(bytes));
const bytesOf = (fields: Fields, field: number): Uint8Array[] =>
  (fields.get(field) ?? []).filter((v) => v instanceof Uint8Array);
const strings = (fields: Fields, field: number): string[] => bytesOf(fields, field).map((b) => utf8.decode(b));
const text = (fields: Fields, field: number): string => strings(fields, field)[0] ?? "";
/** int64, two's complement; the writer packs no lists. */
const ints = (fields: Fields, field: number): number[] =>
  (fields.get(field) ?? []).flatMap((v) => typeof v === "bigint" ? [Number(BigInt.asIntN(64, v))] : []);
const int = (fields: Fields, field: number): number => ints(fields, field)[0] ?? 0;

const DTYPES: Readonly<Record<number, DType>> = {
  1: "float32",
  2: "uint8",
  6: "int32",
  7: "int64",
  9: "bool",
  10: "float16",
};
export const dtypeOfElement = (element: number): DType => {
  const dtype = DTYPES[element];
  if (dtype === undefined) throw new Error(`element type ${element} is not used by the graph`);
  return dtype;
};

const attributeOf = (a: Fields): Attribute => {
  switch (int(a, 20)) {
    case 1: {
      const [bytes] = bytesOf(a, 2);
      return new DataView(bytes.buffer, bytes.byteOffset).getFloat32(0, true);
    }
    case 2:
      return int(a, 3);
    case 3:
      return text(a, 4);
    default:
      return ints(a, 8);
  }
};

const portOf = (info: Fields): [string, PortType] => {
  const [tensor] = messages(messages(info, 2)[0], 1);
  const dims = messages(tensor, 2).flatMap((shape) => messages(shape, 1).map((d) => int(d, 1)));
  return [text(info, 1), { dtype: dtypeOfElement(int(tensor, 1)), dims }];
};

const ARRAYS = {
  float32: Float32Array,
  float16: Float16Array,
  int32: Int32Array,
  int64: BigInt64Array,
  uint8: Uint8Array,
  bool: Uint8Array,
} as const;

/** The bytes as numbers; copied, since they may lie at an odd place. */
const arrayOf = (dtype: DType, bytes: Uint8Array): TensorData => new ARRAYS[dtype](bytes.slice().buffer);

const tensorOf = (t: Fields, external: ModelBytes["external"]): [string, Typed] => {
  const dtype = dtypeOfElement(int(t, 2));
  const name = text(t, 8);
  let bytes = bytesOf(t, 9)[0] ?? new Uint8Array();
  if (int(t, 14) === 1) {
    const place = new Map(messages(t, 13).map((entry) => [text(entry, 1), text(entry, 2)]));
    const file = external.find(({ path }) => path === place.get("location"));
    if (file === undefined) throw new Error(`${name}: there is no external data "${place.get("location")}"`);
    const offset = Number(place.get("offset")), length = Number(place.get("length"));
    if (offset + length > file.data.length) throw new Error(`${name}: its bytes lie beyond the end of its file`);
    bytes = file.data.subarray(offset, offset + length);
  }
  return [name, { dtype, dims: ints(t, 1), data: arrayOf(dtype, bytes) }];
};

/** @throws Error when the bytes are no model, or name external data that is not given */
export const readModel = ({ model, external }: Pick<ModelBytes, "model" | "external">): Model => {
  const [graph] = messages(fieldsOf(model), 7);
  if (graph === undefined) throw new Error("the bytes hold no ONNX graph");
  return {
    nodes: messages(graph, 1).map((node) => ({
      type: text(node, 4),
      inputs: strings(node, 1),
      output: text(node, 2),
      attributes: Object.fromEntries(messages(node, 5).map((a) => [text(a, 1), attributeOf(a)])),
    })),
    constants: new Map(messages(graph, 5).map((t) => tensorOf(t, external))),
    inputs: new Map(messages(graph, 11).map(portOf)),
    outputs: new Map(messages(graph, 12).map(portOf)),
  };
};

/** A tensor of the dtype from numbers in double precision: rounded for floats, cut off for integers, 0 or 1 for bool. */
export const typed = (dtype: DType, dims: readonly number[], values: Float64Array): Typed => {
  if (dtype === "int64") return { dtype, dims, data: BigInt64Array.from(values, (v) => BigInt(Math.trunc(v))) };
  if (dtype === "bool") return { dtype, dims, data: Uint8Array.from(values, (v) => v === 0 ? 0 : 1) };
  return { dtype, dims, data: new ARRAYS[dtype](values) };
};

/** The values as numbers. int64 beyond 2⁵³ would lose digits; the graph has none. */
export const numbers = ({ data }: Typed): Exclude<TensorData, BigInt64Array> | Float64Array =>
  data instanceof BigInt64Array ? Float64Array.from(data, Number) : data;
