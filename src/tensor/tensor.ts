/**
 * Host tensors: dimensions and typed data, row-major. The element type is that of the array that holds it.
 * Everything numeric outside ONNX Runtime passes through this one shape.
 */

/** Element types that travel between host, safetensors files and ONNX graphs. */
export type DType = "float32" | "float16" | "int32" | "int64" | "uint8" | "bool";

export type TensorData = Float32Array | Float16Array | Int32Array | BigInt64Array | Uint8Array;

/** Row-major tensor. `data.length` is the product of `dims`; a scalar has dims `[]`. */
export interface Tensor<T extends TensorData = Float32Array> {
  readonly dims: readonly number[];
  readonly data: T;
}

/** Number of elements of a shape. */
export const size = (dims: readonly number[]): number => dims.reduce((n, d) => n * d, 1);

/** Tensor over existing data. @throws RangeError when the length is not the product of `dims`. */
export const tensor = <T extends TensorData>(data: T, dims: readonly number[]): Tensor<T> => {
  if (data.length !== size(dims)) {
    throw new RangeError(`tensor: ${data.length} elements do not fill [${dims.join(", ")}]`);
  }
  return { dims, data };
};

/** float32 zeros of a shape. */
export const zeros = (dims: readonly number[]): Tensor => ({ dims, data: new Float32Array(size(dims)) });

export const sameDims = (a: readonly number[], b: readonly number[]): boolean =>
  a.length === b.length && a.every((d, i) => d === b[i]);

/** Rows `begin` (inclusive) to `end` (exclusive) of the first axis, as a view on the same memory. */
export const slice0 = (t: Tensor, begin: number, end: number): Tensor => {
  const row = size(t.dims.slice(1));
  return { dims: [end - begin, ...t.dims.slice(1)], data: t.data.subarray(begin * row, end * row) };
};

/** Joins tensors along the first axis; the other axes must agree. */
export const concat0 = (parts: readonly Tensor[]): Tensor => {
  const rest = parts[0].dims.slice(1);
  const data = new Float32Array(parts.reduce((n, p) => n + p.data.length, 0));
  let at = 0;
  for (const p of parts) {
    if (!sameDims(p.dims.slice(1), rest)) throw new RangeError(`concat0: [${p.dims}] does not continue [*,${rest}]`);
    data.set(p.data, at);
    at += p.data.length;
  }
  return { dims: [parts.reduce((n, p) => n + p.dims[0], 0), ...rest], data };
};
