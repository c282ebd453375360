/** Whether a network fits where it is to be computed: told in plain words before anything is loaded, not by a crash in the middle. */
import { Effect } from "effect";
import { estimateMemory, type Graph, type MemoryEstimate, showMemory } from "../graph/mod.ts";
import { RuntimeError, type Sessions } from "../runtime/mod.ts";
import { byteText } from "../tensor/bytes.ts";

const advice = (backend: Sessions["backend"]): string =>
  backend === "wasm"
    ? "WebAssembly holds at most 4 GiB. Use a GPU (--device webgpu), or install onnxruntime-node (--device native)."
    : "Close other programs, or use a machine with more memory. SAU_MEMORY_GB=N says how much may be taken.";

/**
 * Native code's allocator keeps part of what it was given back while weights are converted: up to so much of what they take was
 * seen there (bench/memory.ts; docs/how-to/memory.md has the table).
 */
const KEPT = 1.5;

/** Bytes that a session of the graph takes at the most while it is loaded, and afterwards while it runs. */
export const roomFor = (graph: Graph, stored: number, backend: Sessions["backend"]) => {
  const factor = backend === "native" ? KEPT : 1;
  const { inputs, computed, ...counted } = estimateMemory(graph);
  const weights = Math.round(factor * counted.weights);
  const estimate: MemoryEstimate = { weights, inputs, computed, peak: weights + inputs + computed };
  return { estimate, loading: Math.round(factor * stored) + weights };
};

/**
 * Fails when a session of the graph cannot fit.
 * @param stored bytes of the part's weights as they lie in its file; beside them stands, while it is loaded, what they become
 */
export const checkRoom = (
  name: string,
  graph: Graph,
  stored: number,
  { backend, room }: Pick<Sessions, "backend" | "room">,
) =>
  Effect.suspend(() => {
    const free = room();
    if (free === undefined) return Effect.void;
    const { estimate, loading } = roomFor(graph, stored, backend);
    const most = Math.max(estimate.peak, loading);
    if (most <= free) return Effect.void;
    const needs = estimate.peak >= loading
      ? showMemory(estimate)
      : `${byteText(loading)} while it loads: ${byteText(loading - estimate.weights)} stored weights, ${
        byteText(estimate.weights)
      } computed with`;
    return Effect.fail(
      new RuntimeError({
        model: name,
        message: `${name} does not fit: it takes ${needs}. ${byteText(free)} are free (${backend}). ${advice(backend)}`,
      }),
    );
  });
