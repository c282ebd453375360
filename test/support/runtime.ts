/** The runtime that tests compute with: wasm, or the device that SAU_DEVICE names. */
import process from "node:process";
import { Effect, type Layer, Schema, type Scope } from "effect";
import { Device, Runtime, type RuntimeUnavailable } from "../../src/runtime/mod.ts";

export const testDevice: Device = Schema.decodeUnknownSync(Device)(process.env.SAU_DEVICE ?? "wasm");

export const testRuntime: Layer.Layer<Runtime, RuntimeUnavailable> = Runtime.layer(testDevice);

/** Runs a program with the test runtime, or another device; its sessions are released before the promise settles. */
export const withRuntime = <A, E>(
  program: Effect.Effect<A, E, Runtime | Scope.Scope>,
  device: Device = testDevice,
): Promise<A> => Effect.runPromise(program.pipe(Effect.scoped, Effect.provide(Runtime.layer(device))));
