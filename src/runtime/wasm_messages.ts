/**
 * What the pool and its workers say to each other. Tensors go as bytes of their own, so that they change hands uncopied;
 * models as shared memory, one copy for all workers. Never as typed arrays: Deno (seen in 2.9.6) goes over the elements of
 * one in a message to a worker as if it were any object, 0.3 s for each megabyte.
 */
import { type DType, size } from "../tensor/tensor.ts";
import type { HostTensor, ModelBytes, PortType } from "./engine.ts";
import { fromBytes } from "./ort.ts";

export interface Packed {
  readonly dtype: DType;
  readonly dims: readonly number[];
  readonly bytes: ArrayBuffer;
}

export type Feeds = ReadonlyArray<readonly [string, Packed]>;
type Ports = ReadonlyArray<readonly [string, PortType]>;

/** A model in memory that workers see as well. */
export interface SharedModel {
  readonly name: string;
  readonly model: SharedArrayBuffer;
  readonly external: ReadonlyArray<{ readonly path: string; readonly data: SharedArrayBuffer }>;
}

/** Copies of bytes, as long as somebody holds the bytes: files that are read once are shared once. */
const copies = new WeakMap<Uint8Array, SharedArrayBuffer>();

const shared = (bytes: Uint8Array): SharedArrayBuffer => {
  const known = copies.get(bytes);
  if (known !== undefined) return known;
  const copy = new SharedArrayBuffer(bytes.length);
  new Uint8Array(copy).set(bytes);
  copies.set(bytes, copy);
  return copy;
};

export const shareModel = ({ name, model, external }: ModelBytes): SharedModel => ({
  name,
  model: shared(model),
  external: external.map(({ path, data }) => ({ path, data: shared(data) })),
});

export const sharedModel = ({ name, model, external }: SharedModel): ModelBytes => ({
  name,
  model: new Uint8Array(model),
  external: external.map(({ path, data }) => ({ path, data: new Uint8Array(data) })),
});

/** What is wanted of a worker; sessions are numbered by the pool. */
export type Wish =
  | { readonly do: "load"; readonly session: number; readonly model: SharedModel }
  | { readonly do: "run"; readonly session: number; readonly feeds: Feeds }
  | { readonly do: "release"; readonly session: number };

export interface Request {
  readonly id: number;
  readonly wish: Wish;
}

export interface Reply {
  readonly id: number;
  readonly ok?: { readonly inputs?: Ports; readonly outputs?: Ports; readonly results?: Feeds };
  readonly error?: string;
}

/** A copy of the tensor's values: the array may be a view of a larger one, or somebody's own. */
export const pack = ({ dims, data }: HostTensor, dtype: DType): Packed => {
  const bytes = new ArrayBuffer(data.byteLength);
  new Uint8Array(bytes).set(new Uint8Array(data.buffer, data.byteOffset, data.byteLength));
  return { dtype, dims, bytes };
};

export const unpack = ({ dtype, dims, bytes }: Packed): HostTensor => ({
  dims,
  data: fromBytes(bytes, dtype, size(dims)),
});

export const transferables = (tensors: Feeds): ArrayBuffer[] => tensors.map(([, { bytes }]) => bytes);
