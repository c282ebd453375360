/** safetensors files: tensors read to float32, written anew, or patched in place. The header is read in safetensors_header.ts. */
import { type Entry, type FileDType, type Header, SafetensorsError, widthOf } from "./safetensors_header.ts";
import { sameDims, size, type Tensor, type TensorData } from "./tensor.ts";

export {
  dataStart,
  type Entry,
  type FileDType,
  type Header,
  MAX_HEADER,
  parseHeader,
  SafetensorsError,
  widthOf,
} from "./safetensors_header.ts";

const entryIn = (header: Header, key: string): Entry => {
  const entry = header.entries.get(key);
  if (entry === undefined) throw new SafetensorsError(header.file, key, `holds no tensor ${key}`);
  return entry;
};

/** bfloat16 is the upper half of a float32. */
const bf16ToFloat = (raw: Uint16Array): Float32Array => {
  const bits = new Uint32Array(raw.length);
  for (let i = 0; i < raw.length; i++) bits[i] = raw[i] << 16;
  return new Float32Array(bits.buffer);
};

/** To bfloat16, ties to even. A NaN stays a NaN. */
const floatToBf16 = (values: Float32Array): Uint16Array => {
  const bits = new Uint32Array(Float32Array.from(values).buffer);
  const out = new Uint16Array(values.length);
  for (let i = 0; i < bits.length; i++) {
    const b = bits[i];
    out[i] = (b & 0x7fffffff) > 0x7f800000 ? (b >>> 16) | 0x40 : (b + 0x7fff + ((b >>> 16) & 1)) >>> 16;
  }
  return out;
};

/** Elements of a file's type as float32, or undefined for a type that is not read here. */
export const toFloats = (dtype: FileDType, raw: ArrayBuffer): Float32Array | undefined => {
  switch (dtype) {
    case "F32":
      return new Float32Array(raw);
    case "F16":
      return new Float32Array(new Float16Array(raw));
    case "BF16":
      return bf16ToFloat(new Uint16Array(raw));
    case "F64":
      return new Float32Array(new Float64Array(raw));
    case "I64":
      return Float32Array.from(new BigInt64Array(raw), Number);
    case "I32":
      return new Float32Array(new Int32Array(raw));
    case "I16":
      return new Float32Array(new Int16Array(raw));
    case "I8":
      return new Float32Array(new Int8Array(raw));
    case "U8":
    case "BOOL":
      return new Float32Array(new Uint8Array(raw));
    default:
      return undefined;
  }
};

/**
 * One tensor as float32. Wider types are rounded to the nearest float32.
 * @param bytes the whole file
 * @throws SafetensorsError when the file has no such key or its element type is not read here
 */
export const readTensor = (bytes: Uint8Array, header: Header, key: string): Tensor => {
  const { begin, end } = entryIn(header, key);
  if (bytes.length < end) {
    throw new SafetensorsError(header.file, key, `is truncated: ${key} ends at byte ${end}, ${bytes.length} are there`);
  }
  return decodeAs(header, key, bytes.subarray(begin, end));
};

/**
 * One tensor as float32, from its own bytes alone.
 * @throws SafetensorsError when the file has no such key or its element type is not read here
 */
export const decodeAs = (header: Header, key: string, bytes: Uint8Array): Tensor => {
  const { dtype, dims } = entryIn(header, key);
  // A copy, so it is aligned whatever the offset in the file was. (Not `slice`: that of a Buffer shares its memory.)
  const data = toFloats(dtype, new Uint8Array(bytes).buffer);
  if (data === undefined) throw new SafetensorsError(header.file, key, `${key}: element type ${dtype} cannot be read`);
  return { dims, data };
};

const fromFloats = (dtype: FileDType, values: Float32Array): ArrayBufferView | undefined => {
  switch (dtype) {
    case "F32":
      return values;
    case "F16":
      return new Float16Array(values);
    case "BF16":
      return floatToBf16(values);
    case "F64":
      return new Float64Array(values);
    default:
      return undefined;
  }
};

const viewBytes = (view: ArrayBufferView): Uint8Array => new Uint8Array(view.buffer, view.byteOffset, view.byteLength);

/**
 * Bytes of float32 values in a file's element type, rounded to nearest, ties to even.
 * @throws SafetensorsError when the dims differ, the type is not a floating one, or a value is not finite in it
 */
export const encodeAs = (header: Header, key: string, value: Tensor): Uint8Array => {
  const { dtype, dims } = entryIn(header, key);
  const bad = (what: string) => new SafetensorsError(header.file, key, `${key}: ${what}`);
  if (!sameDims(value.dims, dims)) {
    throw bad(`new values have shape [${value.dims.join(", ")}], the file has [${dims.join(", ")}]`);
  }
  const view = fromFloats(dtype, value.data);
  if (view === undefined) throw bad(`element type ${dtype} holds no weights that could be changed`);
  const limit = dtype === "F16" ? 65520 : dtype === "BF16" ? 3.3961775292304957e38 : Infinity;
  const off = value.data.findIndex((v) => !(Math.abs(v) < limit));
  if (off >= 0) throw bad(`new value ${value.data[off]} at element ${off} does not fit into ${dtype}`);
  return viewBytes(view);
};

/**
 * A copy of the file in which some tensors have new values; every other byte stays as it is.
 * @param bytes the whole file (not changed)
 * @throws SafetensorsError as `encodeAs`
 */
export const patch = (bytes: Uint8Array, header: Header, changed: ReadonlyMap<string, Tensor>): Uint8Array => {
  const out = new Uint8Array(bytes);
  for (const [key, value] of changed) out.set(encodeAs(header, key, value), entryIn(header, key).begin);
  return out;
};

const dtypeOf = (data: TensorData): FileDType =>
  data instanceof Float32Array
    ? "F32"
    : data instanceof Float16Array
    ? "F16"
    : data instanceof Int32Array
    ? "I32"
    : data instanceof BigInt64Array
    ? "I64"
    : "U8";

/** A tensor as it lies in a file. */
export interface RawTensor {
  readonly dtype: FileDType;
  readonly dims: readonly number[];
  readonly bytes: Uint8Array;
}

/**
 * The head of a new file, and the order in which its tensors' bytes follow. Wider elements first, then by name, and data at a
 * multiple of 8 bytes: so every tensor is aligned.
 * @throws SafetensorsError when a tensor is called `__metadata__`
 */
export const headerOf = (
  tensors: ReadonlyMap<string, Pick<RawTensor, "dtype" | "dims">>,
  metadata?: Readonly<Record<string, string>>,
): { readonly bytes: Uint8Array; readonly order: readonly string[] } => {
  const order = [...tensors].sort(([a, x], [b, y]) =>
    widthOf(y.dtype) - widthOf(x.dtype) || (a < b ? -1 : a > b ? 1 : 0)
  );
  const json: [string, unknown][] = metadata === undefined ? [] : [["__metadata__", metadata]];
  let at = 0;
  for (const [key, { dtype, dims }] of order) {
    if (key === "__metadata__") throw new SafetensorsError("(new file)", key, `no tensor may be called ${key}`);
    json.push([key, { dtype, shape: dims, data_offsets: [at, at += size(dims) * widthOf(dtype)] }]);
  }
  const text = new TextEncoder().encode(JSON.stringify(Object.fromEntries(json)));
  const padded = Math.ceil(text.length / 8) * 8;
  const bytes = new Uint8Array(8 + padded).fill(0x20, 8);
  new DataView(bytes.buffer).setBigUint64(0, BigInt(padded), true);
  bytes.set(text, 8);
  return { bytes, order: order.map(([key]) => key) };
};

/**
 * A new file from tensors' bytes; see headerOf.
 * @throws SafetensorsError when a tensor's data does not fill its dims, or a tensor is called `__metadata__`
 */
export const writeRaw = (
  tensors: ReadonlyMap<string, RawTensor>,
  metadata?: Readonly<Record<string, string>>,
): Uint8Array => {
  const { bytes: head, order } = headerOf(tensors, metadata);
  const own: Uint8Array[] = [];
  for (const key of order) {
    const { dtype, dims, bytes } = tensors.get(key) ?? { dtype: "F32", dims: [0], bytes: new Uint8Array() };
    const elements = bytes.length / widthOf(dtype);
    if (elements !== size(dims)) {
      throw new SafetensorsError("(new file)", key, `${key}: ${elements} elements do not fill [${dims.join(", ")}]`);
    }
    own.push(bytes);
  }
  const out = new Uint8Array(own.reduce((n, bytes) => n + bytes.length, head.length));
  let to = 0;
  for (const bytes of [head, ...own]) {
    out.set(bytes, to);
    to += bytes.length;
  }
  return out;
};

/** The same from tensors, in the element type that each has. */
export const write = (
  tensors: ReadonlyMap<string, Tensor<TensorData>>,
  metadata?: Readonly<Record<string, string>>,
): Uint8Array =>
  writeRaw(
    new Map([...tensors].map(([key, { dims, data }]) => [key, { dtype: dtypeOf(data), dims, bytes: viewBytes(data) }])),
    metadata,
  );

/**
 * A tensor in a file's element type, and what it is after rounding to it.
 * @throws SafetensorsError as `encodeAs`
 */
export const roundTo = (
  dtype: FileDType,
  key: string,
  { dims, data }: Tensor,
): RawTensor & { readonly values: Tensor } => {
  const end = size(dims) * widthOf(dtype);
  const header: Header = {
    file: "(new file)",
    entries: new Map([[key, { dtype, dims, begin: 0, end }]]),
    metadata: {},
    bytes: 0,
  };
  const bytes = encodeAs(header, key, { dims, data });
  return { dtype, dims, bytes, values: readTensor(bytes, header, key) };
};
