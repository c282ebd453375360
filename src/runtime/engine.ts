/**
 * What the runtime needs from a way of computing: load a model, run it, hold tensors. It stands between the Effect
 * service above (`session.ts`: one call at a time, checked feeds, scopes) and ONNX Runtime below (`ort.ts`), so that
 * choosing and checking a device can be tried with an engine that lies.
 */
import type { DType, Tensor, TensorData } from "../tensor/tensor.ts";

/** The ways of computing, by name. */
export type BackendName = "webgpu" | "native" | "wasm" | "reference";

/** A tensor in the host's memory. `uint8` and `bool` both live in a Uint8Array. */
export type HostTensor = Tensor<TensorData>;

/** A model to load. `external` holds the files that the model's weights point into, by the path the model calls them. */
export interface ModelBytes {
  readonly name: string;
  readonly model: Uint8Array;
  readonly external: ReadonlyArray<{ readonly path: string; readonly data: Uint8Array }>;
  /** Where an engine that `readsFiles` finds by itself the paths that `external` does not hold, and their bytes. */
  readonly folder?: { readonly path: string; readonly bytes: number };
}

/** Type of an input or output. A dimension that is not fixed is a string. */
export interface PortType {
  readonly dtype: DType;
  readonly dims: ReadonlyArray<number | string>;
}

/** A tensor where the engine keeps its tensors. */
export interface Held {
  readonly dtype: DType;
  readonly dims: readonly number[];
  /** The values; the tensor stays where it is. On wasm and native the arrays are the engine's own: do not write to them. */
  readonly read: () => Promise<HostTensor>;
  readonly dispose: () => void;
}

/** A loaded model. */
export interface Loaded {
  readonly inputs: ReadonlyMap<string, PortType>;
  readonly outputs: ReadonlyMap<string, PortType>;
  /** Every output, held by the engine; the caller disposes each. */
  readonly run: (feeds: ReadonlyMap<string, Held>) => Promise<ReadonlyMap<string, Held>>;
  readonly release: () => Promise<void>;
  /** How many of its runs compute side by side; further ones would wait. */
  readonly lanes: number;
}

/** Promise-based on purpose: a call into ONNX Runtime cannot be interrupted, and `session.ts` says so once for all. */
export interface Engine {
  readonly backend: BackendName;
  /** How many runs compute side by side. */
  readonly lanes: number;
  /** Whether it has a half precision that is worth using. */
  readonly halves?: boolean;
  /** Whether it reads weights from disk by itself, so that they are never in this process's memory twice. */
  readonly readsFiles?: boolean;
  /** Bytes that it can still take, where that can be told. */
  readonly room?: () => number;
  readonly load: (model: ModelBytes) => Promise<Loaded>;
  /** A host tensor as a feed of one run: no copy where the engine reads host memory. */
  readonly wrap: (tensor: HostTensor, dtype: DType) => Held;
  /** A host tensor copied to the device, to be fed many times. */
  readonly upload: (tensor: HostTensor, dtype: DType) => Held;
  readonly close: () => Promise<void>;
}
