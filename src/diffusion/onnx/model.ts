/**
 * What of an ONNX file tells where its weights are: its constants, and the nodes that use them. The graph itself, which may take
 * gigabytes of weights, is walked on disk; nothing of it is run. Field numbers: onnx.proto of ONNX IR version 10.
 */
import { bytesIn, type Field, fieldsOf, integerIn, integersIn, textIn } from "../../graph/protobuf_reader.ts";
import { type FileDType, widthOf } from "../../tensor/safetensors.ts";
import { fieldsIn, OnnxError, type Read, small, Window } from "./window.ts";

export { OnnxError } from "./window.ts";

/** A tensor that is written down in the file. */
export interface Constant {
  readonly name: string;
  readonly dims: readonly number[];
  /** Undefined for element types that safetensors files do not have. */
  readonly dtype: FileDType | undefined;
  /** Name of another file of the folder that holds the values; none where this file does. */
  readonly location?: string;
  /** Where the values lie in that file. Undefined where they are not one run of bytes. */
  readonly begin: number | undefined;
  readonly bytes: number;
}

export interface Node {
  readonly type: string;
  readonly domain: string;
  readonly inputs: readonly string[];
  readonly outputs: readonly string[];
  /** Path of the module that it was traced in (`down_blocks.0.resnets.0.conv1`), or undefined where it does not say. */
  readonly module: string | undefined;
  /** Attribute `transB` of Gemm, or axes of Transpose. */
  readonly transB: boolean;
  readonly perm: readonly number[] | undefined;
}

export interface OnnxModel {
  readonly producer: string;
  readonly constants: ReadonlyMap<string, Constant>;
  readonly nodes: readonly Node[];
}

/** More than any network has that is read here: SDXL's U-Net takes about 20,000 nodes. */
const MOST_NODES = 200_000;
const MOST_CONSTANTS = 100_000;
const LONGEST_NAME = 4096;
const MOST_DIMS = 8;
const MOST_INPUTS = 4096;
/** Of one node, and of all nodes together. */
const LARGEST_NODE = 16 << 20;
const ALL_NODES = 512 << 20;

/** Data types of TensorProto that safetensors files have as well. */
const DTYPES: Readonly<Record<number, FileDType>> = {
  1: "F32",
  2: "U8",
  3: "I8",
  4: "U16",
  5: "I16",
  6: "I32",
  7: "I64",
  9: "BOOL",
  10: "F16",
  11: "F64",
  12: "U32",
  13: "U64",
  16: "BF16",
};

/** One entry of external_data: a key and a value. */
const stringPair = (bytes: Uint8Array): readonly [string, string] => {
  let key = "", value = "";
  for (const field of fieldsOf(bytes)) {
    if (field.number === 1) key = textIn(bytes, field, LONGEST_NAME);
    if (field.number === 2) value = textIn(bytes, field, LONGEST_NAME);
  }
  return [key, value];
};

const count = (text: string | undefined, tensor: string): number | undefined => {
  if (text === undefined) return undefined;
  const value = /^\d{1,16}$/.test(text) ? Number(text) : NaN;
  if (!Number.isSafeInteger(value)) {
    throw new OnnxError(`gives ${JSON.stringify(text.slice(0, 40))} as a position of ${tensor}`, tensor);
  }
  return value;
};

/** Elements, counted factor by factor: a product beyond 2⁵³ would round. */
const elements = (dims: readonly number[], tensor: string): number => {
  let n = 1;
  for (const d of dims) {
    n *= d;
    if (d < 0 || !Number.isSafeInteger(n * 8)) {
      throw new OnnxError(`claims the shape [${dims.join(", ")}] for ${tensor}`, tensor);
    }
  }
  return n;
};

/** A tensor's name, shape and place; its values are passed over. @param name of a tensor that has none of its own */
const constantIn = async (file: Window, { begin, end }: Pick<Field, "begin" | "end">, name = ""): Promise<Constant> => {
  const dims: number[] = [];
  const external = new Map<string, string>();
  let type = 0, own = name, outside = false, odd = false;
  let raw: { readonly begin: number; readonly end: number } | undefined;
  for await (const field of fieldsIn(file, begin, end)) {
    if (field.number === 1) {
      dims.push(...integersIn(...await small(file, field, 10 * MOST_DIMS), MOST_DIMS));
      if (dims.length > MOST_DIMS) throw new OnnxError(`gives a tensor more than ${MOST_DIMS} dimensions`);
    } else if (field.number === 2) type = integerIn(field);
    else if (field.number === 8) own = textIn(...await small(file, field, LONGEST_NAME), LONGEST_NAME);
    else if (field.number === 13) {
      external.set(...stringPair(bytesIn(...await small(file, field, 2 * LONGEST_NAME))));
      if (external.size > 16) throw new OnnxError(`says too much about where ${own} is`, own);
    } else if (field.number === 14) outside = integerIn(field) === 1;
    // Packed floats are, byte for byte, what raw_data would hold; other numbers are not.
    else if (field.number === 9 || (field.number === 4 && field.wire === 2)) {
      odd ||= raw !== undefined;
      raw = field;
    } else if ([3, 4, 5, 6, 7, 10, 11].includes(field.number)) odd = true;
  }
  const dtype = DTYPES[type];
  const bytes = elements(dims, own) * (dtype === undefined ? 0 : widthOf(dtype));
  const whole = { name: own, dims, dtype, bytes };
  if (outside) {
    const location = external.get("location");
    if (location === undefined) throw new OnnxError(`does not say in which file ${own} lies`, own);
    const length = count(external.get("length"), own) ?? bytes;
    if (dtype !== undefined && length !== bytes) {
      throw new OnnxError(`gives ${own} ${length} bytes; its shape [${dims.join(", ")}] takes ${bytes}`, own);
    }
    return { ...whole, location, begin: count(external.get("offset"), own) ?? 0 };
  }
  if (raw === undefined || odd || dtype === undefined) return { ...whole, begin: bytes === 0 ? begin : undefined };
  if (raw.end - raw.begin !== bytes) {
    throw new OnnxError(
      `holds ${raw.end - raw.begin} bytes for ${own}; its shape [${dims.join(", ")}] of ${dtype} takes ${bytes}`,
      own,
    );
  }
  return { ...whole, begin: raw.begin };
};

/** `/down_blocks.0/resnets.0/conv1/Conv` as the module's path. A module in a Sequential says its parent's name twice. */
const moduleOfName = (name: string): string | undefined => {
  if (!name.startsWith("/")) return undefined;
  const parts = name.slice(1).split("/").slice(0, -1);
  return parts.filter((part, i) => !parts[i + 1]?.startsWith(`${part}.`)).join(".");
};

/**
 * The same of the newer exporter, which writes a list of the scopes, outermost first, as Python prints it: the last of them that
 * has the next one's path as its beginning is the module.
 */
const moduleOfScopes = (scopes: string): string | undefined => {
  const list = [...scopes.matchAll(/'([^']*)'/g)].map(([, scope]) => scope);
  return list.length < 2 ? undefined : list.at(-2);
};

interface RawNode extends Node {
  /** Where the tensor of a Constant lies in the node's bytes. */
  readonly value: Field | undefined;
}

const attributeIn = (bytes: Uint8Array, offset: number) => {
  let name = "", int = 0, tensor: Field | undefined;
  const ints: number[] = [];
  for (const field of fieldsOf(bytes)) {
    if (field.number === 1) name = textIn(bytes, field, LONGEST_NAME);
    else if (field.number === 3 && field.wire === 0) int = field.value === 0n ? 0 : 1;
    else if (field.number === 5 && field.wire === 2) {
      tensor = { ...field, begin: offset + field.begin, end: offset + field.end };
    } else if (field.number === 8 && ints.length <= MOST_DIMS && field.end - field.begin <= 10 * MOST_DIMS) {
      ints.push(...integersIn(bytes, field, MOST_DIMS));
    }
  }
  return { name, int, ints, tensor };
};

const nodeIn = (bytes: Uint8Array): RawNode => {
  const inputs: string[] = [], outputs: string[] = [];
  let type = "", domain = "", name = "", scopes: string | undefined;
  let transB = false, perm: number[] | undefined, value: Field | undefined;
  for (const field of fieldsOf(bytes)) {
    if (field.number === 1) inputs.push(textIn(bytes, field, LONGEST_NAME));
    else if (field.number === 2) outputs.push(textIn(bytes, field, LONGEST_NAME));
    else if (field.number === 3) name = textIn(bytes, field, LONGEST_NAME);
    else if (field.number === 4) type = textIn(bytes, field, LONGEST_NAME);
    else if (field.number === 7) domain = textIn(bytes, field, LONGEST_NAME);
    else if (field.number === 5) {
      const attribute = attributeIn(bytesIn(bytes, field), field.begin);
      if (attribute.name === "transB") transB = attribute.int !== 0;
      if (attribute.name === "perm") perm = attribute.ints;
      if (attribute.name === "value") value = attribute.tensor;
    } else if (field.number === 9) {
      const own = bytesIn(bytes, field);
      if (own.length > 2 * LONGEST_NAME) continue;
      const [key, text] = stringPair(own);
      if (key === "pkg.torch.onnx.name_scopes") scopes = text;
    }
    if (inputs.length + outputs.length > MOST_INPUTS) {
      throw new OnnxError(`has a node with more than ${MOST_INPUTS} inputs and outputs`);
    }
  }
  const module = scopes === undefined ? moduleOfName(name) : moduleOfScopes(scopes);
  return { type, domain, inputs, outputs, module, transB, perm, value };
};

/**
 * Reads the constants and nodes of a file.
 * @param size of the file, in bytes
 * @throws OnnxError, ProtobufError
 */
export const readOnnx = async (from: Read, size: number): Promise<OnnxModel> => {
  const file = new Window(from, size);
  const constants = new Map<string, Constant>();
  const nodes: Node[] = [];
  let producer = "", graphs = 0, read = 0;
  const keep = (constant: Constant) => {
    if (constants.size >= MOST_CONSTANTS) throw new OnnxError(`holds more than ${MOST_CONSTANTS} constants`);
    if (constants.has(constant.name)) throw new OnnxError(`holds ${constant.name} twice`, constant.name);
    constants.set(constant.name, constant);
  };
  for await (const part of fieldsIn(file, 0, size)) {
    if (part.number === 2 || part.number === 3) {
      const text = textIn(...await small(file, part, LONGEST_NAME), LONGEST_NAME);
      producer = producer === "" ? text : `${producer} ${text}`;
    } else if (part.number === 7) {
      if (part.wire !== 2 || ++graphs > 1) throw new OnnxError("holds more than one graph, or one that is a number");
      for await (const field of fieldsIn(file, part.begin, part.end)) {
        if (field.number === 5) keep(await constantIn(file, field));
        if (field.number === 15) throw new OnnxError("holds sparse weights, which are not read");
        if (field.number !== 1) continue;
        if (nodes.length >= MOST_NODES || (read += field.end - field.begin) > ALL_NODES) {
          throw new OnnxError(`holds more than ${MOST_NODES} nodes, or larger ones than any network has`);
        }
        const { value, ...node } = nodeIn(bytesIn(...await small(file, field, LARGEST_NODE)));
        if (node.type === "Constant" && value !== undefined) {
          keep(
            await constantIn(file, { begin: field.begin + value.begin, end: field.begin + value.end }, node.outputs[0]),
          );
        } else nodes.push(node);
      }
    }
  }
  if (graphs === 0) throw new OnnxError("holds no graph; is it an ONNX file?");
  return { producer: producer.slice(0, 100), constants, nodes };
};
