/**
 * WebAssembly on all cores: workers with an ONNX Runtime of one thread each, so that several runs compute side by side.
 * ONNX Runtime's own threads share one run, and wait for each other by spinning hundreds of times in it: on cores that
 * other work holds as well, a run was seen to be forty times slower, and one to stand still (Deno 2.9.6, onnxruntime-web
 * 1.30.0). Workers only wait for work. The pool is the process's: a worker starts when a run first needs it, and serves
 * every runtime from then on; idle ones do not keep the process alive.
 */
import process from "node:process";
import { Worker } from "node:worker_threads";
import type { DType } from "../tensor/tensor.ts";
import type { Engine, Held, HostTensor, Loaded, ModelBytes } from "./engine.ts";
import { cores, freeMemory } from "./host.ts";
import { pack, type Reply, type Request, shareModel, transferables, unpack, type Wish } from "./wasm_messages.ts";

/** Runs side by side: as many as SAU_WASM_THREADS says, else one a core. */
export const lanes = (): number => Math.max(1, Math.min(cores(), Number(process.env.SAU_WASM_THREADS) || cores()));

/** Weights beyond this are held by one worker alone: each has its own copy. */
const SHARED_WEIGHTS = 2 ** 29;

/** What one WebAssembly's memory can hold, in bytes. */
const HEAP = 2 ** 32;

interface Pending {
  readonly resolve: (ok: NonNullable<Reply["ok"]>) => void;
  readonly reject: (error: Error) => void;
}

/**
 * One worker, which may have been replaced: it starts when it is first asked, and again after it died. For that, and for
 * workers that join later, a session's bytes stay in memory that they share, beside what each makes of them.
 */
class Lane {
  busy = false;
  readonly sessions = new Set<number>();
  #worker: Worker | undefined;
  #next = 0;
  readonly #pending = new Map<number, Pending>();

  ask(wish: Wish): Promise<NonNullable<Reply["ok"]>> {
    const worker = this.#worker ??= this.#start();
    const request: Request = { id: this.#next++, wish };
    worker.ref();
    return new Promise((resolve, reject) => {
      this.#pending.set(request.id, { resolve, reject });
      worker.postMessage(request, wish.do === "run" ? transferables(wish.feeds) : []);
    });
  }

  #start(): Worker {
    const worker = new Worker(new URL("./wasm_worker.ts", import.meta.url));
    worker.on("message", ({ id, ok, error }: Reply) => {
      const waiting = this.#pending.get(id);
      this.#pending.delete(id);
      if (this.#pending.size === 0) worker.unref();
      if (ok !== undefined) return waiting?.resolve(ok);
      waiting?.reject(new Error(explained(error ?? "no answer")));
      // After an abort nothing in that WebAssembly can be trusted or freed.
      if (/aborted|memory access|unreachable/i.test(error ?? "")) this.#end(worker, error ?? "");
    });
    worker.on("error", (error) => this.#end(worker, error instanceof Error ? error.message : String(error)));
    worker.on("exit", (code) => this.#end(worker, `exit code ${code}`));
    return worker;
  }

  #end(worker: Worker, why: string): void {
    if (this.#worker !== worker) return;
    this.#worker = undefined;
    this.sessions.clear();
    for (const { reject } of this.#pending.values()) reject(new Error(`a worker ended: ${why}`));
    this.#pending.clear();
    void worker.terminate();
  }
}

const explained = (message: string): string =>
  /bad_alloc|out of memory|Array buffer allocation|Integer overflow|Aborted|memory access/i.test(message)
    ? `${message}. WebAssembly holds at most 4 GiB, weights included: use a GPU (--device webgpu) or install onnxruntime-node (--device native)`
    : message;

const pool: Lane[] = [];
/** Those who wait for a lane, in the order in which they came. */
const waiting: (() => void)[] = [];
let sessionsMade = 0;

/** The engine over the pool. */
export const pooledEngine = (): Engine => {
  /** Gives the body a lane of its own: one that knows the session before one that does not, the first that is free. */
  const withLane = async <A>(session: number, body: (lane: Lane) => Promise<A>): Promise<A> => {
    while (pool.length < lanes()) pool.push(new Lane());
    let lane: Lane | undefined;
    while (lane === undefined) {
      const idle = pool.filter((lane) => !lane.busy);
      lane = idle.find((lane) => lane.sessions.has(session)) ?? idle[0];
      if (lane === undefined) await new Promise<void>((resolve) => waiting.push(resolve));
    }
    lane.busy = true;
    try {
      return await body(lane);
    } finally {
      lane.busy = false;
      waiting.shift()?.();
    }
  };

  const load = async (model: ModelBytes): Promise<Loaded> => {
    const session = sessionsMade++;
    const bytes = shareModel(model);
    const large = bytes.external.reduce((n, { data }) => n + data.byteLength, 0) > SHARED_WEIGHTS;
    const open = async (lane: Lane) => {
      const ports = await lane.ask({ do: "load", session, model: bytes });
      lane.sessions.add(session);
      return ports;
    };
    const { inputs, outputs } = await withLane(session, open);
    return {
      inputs: new Map(inputs),
      outputs: new Map(outputs),
      lanes: large ? 1 : lanes(),
      run: (feeds) =>
        withLane(session, async (lane) => {
          if (!lane.sessions.has(session)) await open(lane);
          const given = [...feeds].map(([name, held]) => {
            const tensor = ours.get(held);
            if (tensor === undefined) throw new Error(`input ${name}: the tensor belongs to another runtime`);
            return [name, pack(tensor, held.dtype)] as const;
          });
          const { results = [] } = await lane.ask({ do: "run", session, feeds: given });
          return new Map(results.map(([name, t]) => [name, hold(unpack(t), t.dtype)]));
        }),
      release: async () => {
        for (const lane of pool) {
          if (lane.sessions.delete(session)) await lane.ask({ do: "release", session });
        }
      },
    };
  };

  return {
    backend: "wasm",
    lanes: lanes(),
    room: () => Math.min(HEAP, freeMemory()),
    load,
    wrap: hold,
    upload: hold,
    close: () => Promise.resolve(),
  };
};

/** The engine keeps its tensors in the host's memory. */
const ours = new WeakMap<Held, HostTensor>();

const hold = (tensor: HostTensor, dtype: DType): Held => {
  const held: Held = { dtype, dims: tensor.dims, read: () => Promise.resolve(tensor), dispose: () => {} };
  ours.set(held, tensor);
  return held;
};
