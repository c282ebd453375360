/** Computes once on WebAssembly and says the result; it is up to the runtime's workers whether the process then ends. */
import { Effect } from "effect";
import process from "node:process";
import { affine } from "./graphs.ts";
import { withRuntime } from "./runtime.ts";
import { Runtime, toHost } from "../../src/runtime/mod.ts";

await withRuntime(
  Effect.gen(function* () {
    const session = yield* (yield* Runtime).session(affine(4, 2));
    const { y } = yield* session.run({ x: { dims: [4, 4], data: new Float32Array(16).fill(1) } });
    process.stdout.write(`${(yield* toHost(y)).data[0]}\n`);
  }),
  "wasm",
);
