/** WebAssembly on the CPU: there on every machine, the last resort of `auto`. */
import { Effect } from "effect";
import process from "node:process";
import { type Backend, Missing } from "./backend.ts";
import { cores } from "./host.ts";
import { firstLine } from "./optional.ts";
import { ortEngine } from "./ort.ts";

/**
 * One thread, unless SAU_WASM_THREADS asks for more. With two, a run was seen to be forty times slower beside other work
 * on both cores, and one test run to stand still (Deno 2.9.6, onnxruntime-web 1.30.0): slow and certain beats fast and stuck.
 */
const wanted = (): number => Math.max(1, Math.min(cores(), Number(process.env.SAU_WASM_THREADS) || 1));

/** Threads are set once in a process: ONNX Runtime reads the number when its WebAssembly starts. */
let started: number | undefined;

export const wasm = (threads = wanted()): Backend => ({
  name: "wasm",
  find: () =>
    Effect.tryPromise({
      // The bare entry is the one that starts threads in both runtimes.
      try: () => import("onnxruntime-web"),
      catch: (error) =>
        new Missing({
          reason: `onnxruntime-web does not load: ${firstLine(error)}`,
          advice: ["Install sau's dependencies again."],
        }),
    }).pipe(Effect.map((ort) => {
      started ??= threads;
      ort.env.wasm.numThreads = started;
      return {
        vendor: "",
        architecture: "",
        description: "WebAssembly with SIMD on the CPU",
        software: false,
        threads: started,
        limits: null,
        version: `onnxruntime-web ${ort.env.versions.web ?? ort.env.versions.common}`,
        open: Effect.sync(() =>
          ortEngine({
            backend: "wasm",
            ort,
            options: { executionProviders: ["wasm"] },
            explain: (error) =>
              Promise.resolve(
                /bad_alloc|out of memory|Array buffer allocation|Aborted|memory access/i.test(error.message)
                  ? `${error.message}. WebAssembly holds at most 4 GiB, weights included: use a GPU (--device webgpu) or install onnxruntime-node (--device native)`
                  : error.message,
              ),
          })
        ),
      };
    })),
});
