/** The runtimes that tests compute with. SAU_DEVICE names another device for all of them. */
import process from "node:process";
import { Effect, type Layer, Schema, type Scope } from "effect";
import { loadOptional } from "../../src/runtime/optional.ts";
import { Device, Runtime, type RuntimeUnavailable } from "../../src/runtime/mod.ts";

const deviceOr = (device: Device): Device => Schema.decodeUnknownSync(Device)(process.env.SAU_DEVICE ?? device);

/** Of operations and networks, whose values these tests are about: WebAssembly, which every machine has. */
export const testDevice: Device = deviceOr("wasm");

export const testRuntime: Layer.Layer<Runtime, RuntimeUnavailable> = Runtime.layer(testDevice);

/** Runs a program with the test runtime, or another device; its sessions are released before the promise settles. */
export const withRuntime = <A, E>(
  program: Effect.Effect<A, E, Runtime | Scope.Scope>,
  device: Device = testDevice,
): Promise<A> => Effect.runPromise(program.pipe(Effect.scoped, Effect.provide(Runtime.layer(device))));

const installed = (await loadOptional("onnxruntime-node", "commonjs")).kind === "loaded";

/**
 * Of steps and pipelines, which take any device: under Deno native code, where it is installed, under Bun WebAssembly. So
 * every such test sees both, and takes the time of one. One thread: the other core has the other runtime's tests.
 */
export const stepsDevice: Device = deviceOr(installed && process.versions.bun === undefined ? "native" : "wasm");

export const stepsRuntime: Layer.Layer<Runtime, RuntimeUnavailable> = Runtime.layer(stepsDevice, { threads: 1 });

/** Runs a program with the runtime of steps. */
export const withSteps = <A, E>(program: Effect.Effect<A, E, Runtime | Scope.Scope>): Promise<A> =>
  Effect.runPromise(program.pipe(Effect.scoped, Effect.provide(stepsRuntime)));
