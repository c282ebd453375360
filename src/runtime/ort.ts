/** The engine over ONNX Runtime's JavaScript API, which onnxruntime-web and onnxruntime-node share. */
import process from "node:process";
import type { InferenceSession, Tensor as OrtTensor } from "onnxruntime-web";
import type { DType, TensorData } from "../tensor/tensor.ts";
import type { BackendName, Engine, Held, HostTensor, ModelBytes, PortType } from "./engine.ts";

/** The part of an ONNX Runtime package that is used here. */
export type Ort = Pick<typeof import("onnxruntime-web"), "InferenceSession" | "Tensor" | "env">;

export interface OrtSettings {
  readonly backend: BackendName;
  readonly ort: Ort;
  /** Session options beyond those common to all engines. */
  readonly options: InferenceSession.SessionOptions;
  /** Reads an ort tensor that is not in host memory. */
  readonly download?: (tensor: OrtTensor, dtype: DType) => Promise<TensorData>;
  /** Copies to the device; without it host memory is the device. */
  readonly upload?: (data: TensorData, dtype: DType, dims: readonly number[]) => OrtTensor;
  /** Last touch before a tensor is fed. */
  readonly prepare?: (tensor: OrtTensor) => OrtTensor;
  /** What the device complained about since the last call; a complaint fails the call. */
  readonly complaint?: () => string | undefined;
  /** A better message for a failed creation. */
  readonly explain?: (
    error: Error,
    retry: (options: InferenceSession.SessionOptions) => Promise<void>,
  ) => Promise<string>;
  readonly close?: () => Promise<void>;
  /** Whether it computes in half precision. */
  readonly halves?: boolean;
  /** Whether sessions take the folder of their weights. */
  readonly readsFiles?: boolean;
  /** Bytes that can still be taken. */
  readonly room?: () => number;
}

/** ONNX Runtime prints its own errors and warnings beside throwing them: fatal ones only, unless SAU_DEBUG is set. */
const severity = (): 2 | 4 => process.env.SAU_DEBUG ? 2 : 4;

export const ortEngine = (settings: OrtSettings): Engine => {
  const { ort, backend } = settings;

  const check = () => {
    const complaint = settings.complaint?.();
    if (complaint !== undefined) throw new Error(complaint);
  };

  const held = (tensor: OrtTensor): Held & { readonly tensor: OrtTensor } => {
    const dtype = dtypeFrom(tensor.type);
    return {
      tensor,
      dtype,
      dims: tensor.dims,
      read: async () => {
        const onHost = tensor.location === "cpu" || tensor.location === "cpu-pinned";
        const data = onHost ? tensor.data : await settings.download!(tensor, dtype);
        check();
        return { dims: tensor.dims, data: typed(data, dtype) };
      },
      dispose: () => tensor.dispose(),
    };
  };
  const ours = new WeakMap<Held, OrtTensor>();
  const hold = (tensor: OrtTensor): Held => {
    const value = held(tensor);
    ours.set(value, tensor);
    return value;
  };
  const wrap = ({ data, dims }: HostTensor, dtype: DType): Held => hold(new ort.Tensor(dtype, bits(data), dims));

  const load = async (model: ModelBytes) => {
    const create = (more: InferenceSession.SessionOptions = {}) =>
      ort.InferenceSession.create(model.model, {
        graphOptimizationLevel: "all",
        logSeverityLevel: severity(),
        ...settings.options,
        ...(model.external.length === 0
          ? {}
          : { externalData: model.external.map(({ path, data }) => ({ path, data })) }),
        ...(model.folder === undefined ? {} : {
          extra: { session: { model_external_initializers_file_folder_path: model.folder.path } },
        }),
        ...more,
      });
    const session = await create().catch(async (cause) => {
      const error = cause instanceof Error ? cause : new Error(String(cause));
      const retry = async (more: InferenceSession.SessionOptions) => {
        await (await create(more)).release();
      };
      throw new Error(await settings.explain?.(error, retry) ?? error.message, { cause });
    });
    const run = async (feeds: ReadonlyMap<string, Held>) => {
      const given: Record<string, OrtTensor> = {};
      for (const [name, value] of feeds) {
        const tensor = ours.get(value);
        if (tensor === undefined) throw new Error(`input ${name}: the tensor belongs to another runtime`);
        given[name] = settings.prepare?.(tensor) ?? tensor;
      }
      const results = await session.run(given);
      try {
        check();
      } catch (error) {
        for (const tensor of Object.values(results)) tensor.dispose();
        throw error;
      }
      return new Map(Object.entries(results).map(([name, tensor]) => [name, hold(tensor)]));
    };
    return {
      inputs: ports(session.inputMetadata),
      outputs: ports(session.outputMetadata),
      run,
      release: () => session.release(),
      lanes: 1,
    };
  };

  return {
    backend,
    lanes: 1,
    halves: settings.halves ?? false,
    readsFiles: settings.readsFiles ?? false,
    ...(settings.room === undefined ? {} : { room: settings.room }),
    load,
    wrap,
    upload: (tensor, dtype) =>
      settings.upload === undefined ? wrap(tensor, dtype) : hold(settings.upload(tensor.data, dtype, tensor.dims)),
    close: settings.close ?? (() => Promise.resolve()),
  };
};

const DTYPES: ReadonlySet<string> = new Set<DType>(["float32", "float16", "int32", "int64", "uint8", "bool"]);
const isDType = (type: string): type is DType => DTYPES.has(type);

const dtypeFrom = (type: string): DType => {
  if (!isDType(type)) throw new Error(`elements of type ${type} are not supported (known: ${[...DTYPES].join(", ")})`);
  return type;
};

/** Half floats as the 16-bit integers that hold them, which every ONNX Runtime package takes. */
const bits = (data: TensorData): Exclude<TensorData, Float16Array> | Uint16Array =>
  data instanceof Float16Array ? new Uint16Array(data.buffer, data.byteOffset, data.length) : data;

/** The array as the class that stands for its dtype: half floats also come as the 16-bit integers that hold them. */
const typed = (data: OrtTensor.DataType | TensorData, dtype: DType): TensorData => {
  if (dtype === "float16" && data instanceof Uint16Array) {
    return new Float16Array(data.buffer, data.byteOffset, data.length);
  }
  if (
    data instanceof Float32Array || data instanceof Float16Array || data instanceof Int32Array ||
    data instanceof BigInt64Array || data instanceof Uint8Array
  ) return data;
  throw new Error(`${dtype} came as ${Object.prototype.toString.call(data)}`);
};

const ports = (metadata: readonly InferenceSession.ValueMetadata[]): ReadonlyMap<string, PortType> =>
  new Map(metadata.flatMap((m) => m.isTensor ? [[m.name, { dtype: dtypeFrom(m.type), dims: m.shape }] as const] : []));

/** Bytes of one element. */
export const BYTES: Record<DType, number> = { float32: 4, float16: 2, int32: 4, int64: 8, uint8: 1, bool: 1 };

/** Reads bytes (at offset 0 of their buffer) as elements. */
export const fromBytes = (bytes: ArrayBuffer, dtype: DType, length: number): TensorData =>
  dtype === "float32"
    ? new Float32Array(bytes, 0, length)
    : dtype === "float16"
    ? new Float16Array(bytes, 0, length)
    : dtype === "int32"
    ? new Int32Array(bytes, 0, length)
    : dtype === "int64"
    ? new BigInt64Array(bytes, 0, length)
    : new Uint8Array(bytes, 0, length);
