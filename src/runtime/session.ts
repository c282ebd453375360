/** Models that run: checked feeds, no more calls into ONNX Runtime at once than it bears, released with their scope. */
import { Effect, type Scope } from "effect";
import { dtypeOf } from "../graph/graph.ts";
import { type DType, size } from "../tensor/tensor.ts";
import type { BackendName, Engine, Held, HostTensor, Loaded, ModelBytes, PortType } from "./engine.ts";
import { firstLine } from "./optional.ts";
import { RuntimeError } from "./report.ts";
import { inTurn } from "./turn.ts";

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
  /** How many runs compute side by side: the concurrency that is worth asking for. More are welcome, and wait. */
  readonly lanes: number;
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

/** What is alive on the device. */
export interface Usage {
  readonly sessions: number;
  /** Tensors that were left there or uploaded. */
  readonly tensors: number;
  /** Bytes of their values and of the sessions' models; what a session works in comes on top. */
  readonly bytes: number;
}

export interface Sessions {
  /** What is alive now: back to where it was when the scopes that opened it have ended. */
  readonly usage: () => Usage;
  /** How many runs compute side by side: into so many batches work is best cut. */
  readonly lanes: number;
  readonly backend: BackendName;
  /** Bytes that the device can still take; undefined where it does not tell. */
  readonly room: () => number | undefined;
  /** Whether models may leave weights in their files (`ModelBytes.folder`). */
  readonly readsFiles: boolean;
  /** Loads a model; it is released when the scope ends. */
  readonly session: (model: ModelBytes) => Effect.Effect<Session, RuntimeError, Scope.Scope>;
  /** Copies a tensor to the device, to be fed many times; it is freed when the scope ends. */
  readonly upload: (tensor: HostTensor, dtype?: DType) => Effect.Effect<DeviceTensor, RuntimeError, Scope.Scope>;
}

const BYTES: Readonly<Record<DType, number>> = { float32: 4, float16: 2, int32: 4, int64: 8, uint8: 1, bool: 1 };
const bytesOf = ({ dtype, dims }: Held): number => BYTES[dtype] * size(dims);

const show = (dtype: string, dims: readonly (number | string)[]): string => `${dtype}[${dims.join(", ")}]`;

export const makeSessions = (engine: Engine): Sessions => {
  const turn = inTurn(engine.backend);
  const live = new WeakMap<DeviceTensor, Held>();
  const usage = { sessions: 0, tensors: 0, bytes: 0 };

  /** One call into ONNX Runtime: waiting for the turn can be interrupted, the call itself cannot. */
  const call = <A>(model: string, body: () => Promise<A>): Effect.Effect<A, RuntimeError> =>
    turn(Effect.uninterruptible(Effect.tryPromise({
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
        if (!live.delete(self)) return;
        usage.tensors--;
        usage.bytes -= bytesOf(held);
        held.dispose();
      },
    };
    live.set(self, held);
    usage.tensors++;
    usage.bytes += bytesOf(held);
    owner.add(self);
    return self;
  };

  const upload: Sessions["upload"] = (tensor, dtype = dtypeOf(tensor.data)) =>
    Effect.acquireRelease(
      call("upload", () => Promise.resolve(deviceTensor("upload", engine.upload(tensor, dtype), new Set()))),
      (t) => Effect.sync(t.dispose),
      { interruptible: true },
    );

  const session: Sessions["session"] = (model) =>
    Effect.gen(function* () {
      const kept = new Set<DeviceTensor>();
      let open = true;
      const bytes = model.external.reduce(
        (sum, { data }) => sum + data.byteLength,
        model.model.byteLength + (model.folder?.bytes ?? 0),
      );
      const loaded = yield* turn(Effect.acquireRelease(
        Effect.tap(
          Effect.tryPromise({
            try: () => engine.load(model),
            catch: (error) =>
              new RuntimeError({ model: model.name, message: `${model.name} does not load: ${firstLine(error)}` }),
          }),
          () => {
            usage.sessions++;
            usage.bytes += bytes;
            return Effect.void;
          },
        ),
        (it) => {
          open = false;
          usage.sessions--;
          usage.bytes -= bytes;
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
        const results: Record<string, HostTensor | DeviceTensor> = {};
        let outputs: ReadonlyMap<string, Held> = new Map();
        try {
          for (const [name, t] of Object.entries(feeds)) {
            const held = isDevice(t) ? live.get(t)! : engine.wrap(t, loaded.inputs.get(name)!.dtype);
            if (!isDevice(t)) temporary.push(held);
            fed.set(name, held);
          }
          outputs = await loaded.run(fed);
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

      return { name: model.name, inputs: loaded.inputs, outputs: loaded.outputs, lanes: loaded.lanes, run };
    });

  return {
    usage: () => ({ ...usage }),
    lanes: engine.lanes,
    readsFiles: engine.readsFiles ?? false,
    backend: engine.backend,
    room: () => engine.room?.(),
    session,
    upload,
  };
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
    const dtype = isDevice(t) ? t.dtype : dtypeOf(t.data);
    const sameType = dtype === type.dtype || (!isDevice(t) && dtype === "uint8" && type.dtype === "bool");
    const sameDims = t.dims.length === type.dims.length &&
      type.dims.every((d, i) => typeof d === "string" || d === t.dims[i]);
    if (!sameType || !sameDims) {
      problems.push(`input ${name}: wanted ${show(type.dtype, type.dims)}, given ${show(dtype, t.dims)}`);
    } else if (!isDevice(t) && t.data.length !== size(t.dims)) {
      problems.push(`input ${name}: ${t.data.length} elements do not fill [${t.dims.join(", ")}]`);
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
