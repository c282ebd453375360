/**
 * How many calls go into each ONNX Runtime package at a time, in the whole process. One on a GPU and in native code:
 * session creation is not re-entrant, runs on WebGPU are not either, and native code has all cores in one run already.
 * WebAssembly takes one a worker, and the reference kernels hold the only thread while they compute.
 */
import { type Effect, Semaphore } from "effect";
import type { BackendName } from "./engine.ts";
import { lanes } from "./wasm_pool.ts";

const turns: Readonly<Record<BackendName, Semaphore.Semaphore>> = {
  webgpu: Semaphore.makeUnsafe(1),
  native: Semaphore.makeUnsafe(1),
  wasm: Semaphore.makeUnsafe(lanes()),
  reference: Semaphore.makeUnsafe(1),
};

/** Waits for the turn, which can be interrupted, and runs `body` in it. */
export const inTurn = (backend: BackendName) => <A, E, R>(body: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
  turns[backend].withPermits(1)(body);
