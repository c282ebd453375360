/** WebAssembly on the CPU: there on every machine, the last resort of `auto`. */
import { Effect } from "effect";
import { type Backend, Missing } from "./backend.ts";
import { firstLine } from "./optional.ts";
import { lanes, pooledEngine } from "./wasm_pool.ts";

export const wasm: Backend = {
  name: "wasm",
  find: () =>
    Effect.tryPromise({
      try: () => import("onnxruntime-web"),
      catch: (error) =>
        new Missing({
          reason: `onnxruntime-web does not load: ${firstLine(error)}`,
          advice: ["Install sau's dependencies again."],
        }),
    }).pipe(Effect.map((ort) => ({
      vendor: "",
      architecture: "",
      description: "WebAssembly with SIMD on the CPU",
      software: false,
      threads: lanes(),
      limits: null,
      version: `onnxruntime-web ${ort.env.versions.web ?? ort.env.versions.common}`,
      open: Effect.sync(pooledEngine),
    }))),
};
