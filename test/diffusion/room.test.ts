/** What does not fit is refused before it is loaded, in words that say what it takes, what there is and what to do. */
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { Effect } from "effect";
import { checkRoom, roomFor } from "../../src/diffusion/room.ts";
import { estimateMemory, Graph, linear } from "../../src/graph/mod.ts";

/** 4 MB of weights, twice 4 kB of values. */
const graph = (() => {
  const g = new Graph();
  g.output("y", linear(g.input("x", "float32", [1, 1000]), g.weights("unet")("w", [1000, 1000])));
  return g;
})();
const check = (stored: number, free: number | undefined, backend: "native" | "wasm" = "native") =>
  Effect.runPromise(Effect.result(checkRoom("toy", graph, stored, { backend, room: () => free })));

describe("room for a session", () => {
  it("is there when the estimate fits, or when nobody knows what is free", async () => {
    const { peak } = roomFor(graph, 0, "native").estimate;
    assert.equal((await check(0, peak))._tag, "Success");
    assert.equal((await check(1e12, undefined))._tag, "Success");
  });

  it("is missing when what is computed does not fit, by one byte", async () => {
    const result = await check(0, roomFor(graph, 0, "native").estimate.peak - 1);
    assert.ok(result._tag === "Failure");
    assert.match(
      result.failure.message,
      /^toy does not fit: it takes 6\.0 MB at the most: 6\.0 MB weights.* \(native\)/,
    );
  });

  it("is counted with what native code's allocator keeps of weights, and of nothing else", () => {
    const counted = estimateMemory(graph), { estimate, loading } = roomFor(graph, 1e6, "native");
    assert.equal(roomFor(graph, 1e6, "wasm").loading, 1e6 + counted.weights);
    assert.equal(loading, 1.5e6 + estimate.weights);
    assert.equal(estimate.weights, Math.round(1.5 * counted.weights));
    assert.equal(estimate.computed, counted.computed);
  });

  it("is missing when the stored weights beside the computed ones do not fit", async () => {
    const result = await check(2e6, 5e6, "wasm");
    assert.ok(result._tag === "Failure");
    assert.match(result.failure.message, /6\.0 MB while it loads: 2\.0 MB stored.*5\.0 MB are free \(wasm\)/);
    assert.match(result.failure.message, /--device native/);
  });
});
