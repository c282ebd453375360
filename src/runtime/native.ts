/** Native CPU code: onnxruntime-node, when the user installed it. About six times as fast as WebAssembly. */
import { Effect } from "effect";
import type { Tensor as OrtTensor } from "onnxruntime-web";
import { type Backend, Missing } from "./backend.ts";
import { cores, freeMemory } from "./host.ts";
import { loadOptional } from "./optional.ts";
import { type Ort, ortEngine } from "./ort.ts";

const INSTALL =
  "npm install --ignore-scripts onnxruntime-node@1.30.0 (in the project, or in any folder that the variable SAU_MODULES names)";

export const native = (threads = cores()): Backend => ({
  name: "native",
  find: () =>
    Effect.promise(() => loadOptional("onnxruntime-node", "commonjs")).pipe(Effect.flatMap((found) => {
      if (found.kind === "absent") {
        return Effect.fail(new Missing({ reason: "onnxruntime-node is not installed", advice: [INSTALL] }));
      }
      if (found.kind === "broken" || !isOrt(found.module)) {
        const reason = found.kind === "broken" ? found.reason : "it is not ONNX Runtime";
        return Effect.fail(
          new Missing({ reason: `${found.path} does not load: ${reason}`, advice: [`Install it again: ${INSTALL}`] }),
        );
      }
      const ort = found.module;
      return Effect.succeed({
        vendor: "",
        architecture: "",
        description: `native CPU code (${found.path})`,
        software: false,
        threads,
        limits: null,
        version: `onnxruntime-node ${ort.env.versions.node ?? ort.env.versions.common}`,
        open: Effect.sync(() =>
          ortEngine({
            backend: "native",
            ort,
            options: { executionProviders: ["cpu"], intraOpNumThreads: threads, executionMode: "sequential" },
            prepare: asBits,
            readsFiles: true,
            room: freeMemory,
          })
        ),
      });
    })),
});

const isOrt = (module: unknown): module is Ort =>
  typeof module === "object" && module !== null && "InferenceSession" in module && "Tensor" in module &&
  "env" in module;

/** The binding knows half floats as 16-bit integers only, and Tensor's constructor always makes a Float16Array of them. */
const asBits = (tensor: OrtTensor): OrtTensor => {
  const data: unknown = tensor.data;
  if (data instanceof Float16Array) {
    const bits = new Uint16Array(data.buffer, data.byteOffset, data.length);
    Object.defineProperty(tensor, "data", { value: bits, configurable: true });
  }
  return tensor;
};
