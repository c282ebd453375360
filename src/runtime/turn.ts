/**
 * One call into each ONNX Runtime package at a time, in the whole process: session creation is not re-entrant, runs on
 * WebGPU are not either, and on a CPU a second run would only share the same cores.
 */
import { type Effect, Semaphore } from "effect";
import type { BackendName } from "./engine.ts";

const turns: Readonly<Record<BackendName, Semaphore.Semaphore>> = {
  webgpu: Semaphore.makeUnsafe(1),
  native: Semaphore.makeUnsafe(1),
  wasm: Semaphore.makeUnsafe(1),
};

/** Waits for the turn, which can be interrupted, and runs `body` in it. */
export const inTurn = (backend: BackendName) => <A, E, R>(body: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
  turns[backend].withPermits(1)(body);
