/** What the pool and its workers say to each other. Tensors go as bytes of their own, so that they change hands uncopied. */
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

/** What is wanted of a worker; sessions are numbered by the pool. */
export type Wish =
  | { readonly do: "load"; readonly session: number; readonly model: ModelBytes }
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
