/** Models that run: checked feeds, one call into ONNX Runtime at a time, released with their scope. */
import { Effect, type Scope, Semaphore } from "effect";
import type { DType } from "../tensor/tensor.ts";
import type { Engine, Held, HostTensor, Loaded, ModelBytes, PortType } from "./engine.ts";
import { firstLine } from "./optional.ts";
import { RuntimeError } from "./report.ts";

/**
 * A tensor where the runtime computes: GPU memory on WebGPU, host memory on wasm and native. It can be fed to every
 * session of the same runtime without a copy. It lives until `dispose`, or until the session or the scope that made it
 * ends; after that, reading or feeding it is a RuntimeError.
 */
export interface DeviceTensor {
  readonly dtype: DType;
  readonly dims: readonly number[];
  /** The values on the host; the tensor stays. Do not write to them: on wasm and native they are the tensor itself. */
  readonly read: () => Effect.Effect<HostTensor, RuntimeError>;
  readonly dispose: () => void;
}

export interface RunOptions {
  /** Outputs that stay on the device, as DeviceTensor; the others come back as host tensors. */
  readonly keep?: ReadonlyArray<string>;
}

export interface Session {
  readonly name: string;
  readonly inputs: ReadonlyMap<string, PortType>;
  readonly outputs: ReadonlyMap<string, PortType>;
  /** Every input must be fed, with its dtype and dimensions. */
  readonly run: (
    feeds: Readonly<Record<string, HostTensor | DeviceTensor>>,
    options?: RunOptions,
  ) => Effect.Effect<Record<string, HostTensor | DeviceTensor>, RuntimeError>;
}

export const isDevice = (t: HostTensor | DeviceTensor): t is DeviceTensor => !("data" in t);

/** The values of a tensor wherever it is. */
export const toHost = (t: HostTensor | DeviceTensor): Effect.Effect<HostTensor, RuntimeError> =>
  isDevice(t) ? t.read() : Effect.succeed(t);

export interface Sessions {
  /** Loads a model; it is released when the scope ends. */
  readonly session: (model: ModelBytes) => Effect.Effect<Session, RuntimeError, Scope.Scope>;
  /** Copies a tensor to the device, to be fed many times; it is freed when the scope ends. */
  readonly upload: (tensor: HostTensor, dtype?: DType) => Effect.Effect<DeviceTensor, RuntimeError, Scope.Scope>;
}

/** The dtype that an array stands for. A Uint8Array is `uint8` unless a `bool` is wanted. */
const dtypeOf = ({ data }: HostTensor): DType =>
  data instanceof Float32Array
    ? "float32"
    : data instanceof Float16Array
    ? "float16"
    : data instanceof Int32Array
    ? "int32"
    : data instanceof BigInt64Array
    ? "int64"
    : "uint8";

const show = (dtype: string, dims: readonly (number | string)[]): string => `${dtype}[${dims.join(", ")}]`;

export const makeSessions = (engine: Engine): Sessions => {
  const lock = Semaphore.makeUnsafe(1);
  const live = new WeakMap<DeviceTensor, Held>();

  /** One call into ONNX Runtime: waiting for the turn can be interrupted, the call itself cannot. */
  const call = <A>(model: string, body: () => Promise<A>): Effect.Effect<A, RuntimeError> =>
    lock.withPermits(1)(Effect.uninterruptible(Effect.tryPromise({
      try: body,
      catch: (error) => new RuntimeError({ model, message: `${model}: ${firstLine(error)}` }),
    })));

  const deviceTensor = (model: string, held: Held, owner: Set<DeviceTensor>): DeviceTensor => {
    const self: DeviceTensor = {
      dtype: held.dtype,
      dims: held.dims,
      read: () =>
        Effect.suspend(() =>
          live.has(self)
            ? call(model, () => held.read())
            : Effect.fail(new RuntimeError({ model, message: `${model}: the tensor was disposed and cannot be read` }))
        ),
      dispose: () => {
        owner.delete(self);
        if (live.delete(self)) held.dispose();
      },
    };
    live.set(self, held);
    owner.add(self);
    return self;
  };

  const upload: Sessions["upload"] = (tensor, dtype = dtypeOf(tensor)) =>
    Effect.acquireRelease(
      call("upload", () => Promise.resolve(deviceTensor("upload", engine.upload(tensor, dtype), new Set()))),
      (t) => Effect.sync(t.dispose),
      { interruptible: true },
    );

  const session: Sessions["session"] = (model) =>
    Effect.gen(function* () {
      const kept = new Set<DeviceTensor>();
      let open = true;
      const loaded = yield* lock.withPermits(1)(Effect.acquireRelease(
        Effect.tryPromise({
          try: () => engine.load(model),
          catch: (error) =>
            new RuntimeError({ model: model.name, message: `${model.name} does not load: ${firstLine(error)}` }),
        }),
        (it) => {
          open = false;
          for (const t of kept) t.dispose();
          return call(model.name, () => it.release()).pipe(Effect.ignore);
        },
      ));

      const run: Session["run"] = (feeds, { keep = [] } = {}) =>
        Effect.suspend(() => {
          const problem = open ? wrongFeeds(loaded, feeds, live) ?? wrongKeep(loaded, keep) : "the session has ended";
          if (problem !== undefined) {
            return Effect.fail(new RuntimeError({ model: model.name, message: `${model.name}: ${problem}` }));
          }
          return call(model.name, () => compute(feeds, new Set(keep)));
        });

      const compute = async (feeds: Parameters<Session["run"]>[0], keep: ReadonlySet<string>) => {
        const fed = new Map<string, Held>();
        const temporary: Held[] = [];
        for (const [name, t] of Object.entries(feeds)) {
          if (isDevice(t)) {
            fed.set(name, live.get(t)!);
          } else {
            const held = engine.wrap(t, loaded.inputs.get(name)!.dtype);
            temporary.push(held);
            fed.set(name, held);
          }
        }
        const outputs = await loaded.run(fed);
        const results: Record<string, HostTensor | DeviceTensor> = {};
        try {
          for (const [name, held] of outputs) {
            if (!keep.has(name)) results[name] = await held.read();
          }
        } catch (error) {
          for (const held of outputs.values()) held.dispose();
          throw error;
        } finally {
          for (const held of temporary) held.dispose();
        }
        for (const [name, held] of outputs) {
          if (keep.has(name)) results[name] = deviceTensor(model.name, held, kept);
          else held.dispose();
        }
        return results;
      };

      return { name: model.name, inputs: loaded.inputs, outputs: loaded.outputs, run };
    });

  return { session, upload };
};

/** What is wrong with the feeds, in one sentence each; undefined when they fit. */
const wrongFeeds = (
  loaded: Loaded,
  feeds: Readonly<Record<string, HostTensor | DeviceTensor>>,
  live: WeakMap<DeviceTensor, Held>,
): string | undefined => {
  const problems: string[] = [];
  const names = [...loaded.inputs.keys()].join(", ");
  for (const [name, type] of loaded.inputs) {
    const t = feeds[name];
    if (t === undefined) {
      problems.push(`input ${name} is missing (wanted ${show(type.dtype, type.dims)})`);
      continue;
    }
    if (isDevice(t) && !live.has(t)) {
      problems.push(`input ${name} is a tensor that was disposed or belongs to another runtime`);
      continue;
    }
    const dtype = isDevice(t) ? t.dtype : dtypeOf(t);
    const sameType = dtype === type.dtype || (!isDevice(t) && dtype === "uint8" && type.dtype === "bool");
    const sameDims = t.dims.length === type.dims.length &&
      type.dims.every((d, i) => typeof d === "string" || d === t.dims[i]);
    if (!sameType || !sameDims) {
      problems.push(`input ${name}: wanted ${show(type.dtype, type.dims)}, given ${show(dtype, t.dims)}`);
    }
  }
  for (const name of Object.keys(feeds)) {
    if (!loaded.inputs.has(name)) problems.push(`there is no input ${name} (inputs: ${names})`);
  }
  return problems.length === 0 ? undefined : problems.join("; ");
};

const wrongKeep = (loaded: Loaded, keep: readonly string[]): string | undefined => {
  const unknown = keep.filter((name) => !loaded.outputs.has(name));
  return unknown.length === 0
    ? undefined
    : `there is no output ${unknown.join(", ")} to keep (outputs: ${[...loaded.outputs.keys()].join(", ")})`;
};
