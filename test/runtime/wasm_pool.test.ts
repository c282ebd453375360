/** WebAssembly in workers: several runs at once, no process that does not end, no runtime that one failure spoils. */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { describe, it } from "node:test";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { Effect, Result } from "effect";
import { Graph, toOnnx } from "../../src/graph/mod.ts";
import { expand } from "../../src/graph/ops/shape.ts";
import { runtimeName } from "../../src/runtime/host.ts";
import { Runtime, toHost } from "../../src/runtime/mod.ts";
import { lanes } from "../../src/runtime/wasm_pool.ts";
import { affine } from "../support/graphs.ts";
import { withRuntime } from "../support/runtime.ts";

const PATIENT = { timeout: 120_000 };
const x = { dims: [4, 4], data: new Float32Array(16).fill(1) };

describe("the pool of workers", () => {
  it("has a lane for every core, or as many as SAU_WASM_THREADS says", PATIENT, () => {
    const before = process.env.SAU_WASM_THREADS;
    try {
      delete process.env.SAU_WASM_THREADS;
      const all = lanes();
      assert.ok(all >= 1);
      for (const [said, want] of [["1", 1], ["0", all], ["nonsense", all], ["100000", all]] as const) {
        process.env.SAU_WASM_THREADS = said;
        assert.equal(lanes(), want, said);
      }
    } finally {
      if (before === undefined) delete process.env.SAU_WASM_THREADS;
      else process.env.SAU_WASM_THREADS = before;
    }
  });

  it(
    "goes on after a run that needed more memory than WebAssembly has, and the error says so",
    PATIENT,
    () =>
      withRuntime(
        Effect.gen(function* () {
          const runtime = yield* Runtime;
          const graph = new Graph();
          graph.output("y", expand(graph.input("x", "float32", [1]), [1200, 1024, 1024]));
          const { model } = toOnnx(graph, () => assert.fail("no weights"));
          const huge = yield* runtime.session({ name: "huge", model, external: [] });
          const small = yield* runtime.session(affine(4, 2));
          const failed = yield* Effect.result(huge.run({ x: { dims: [1], data: Float32Array.of(1) } }));
          assert.ok(Result.isFailure(failed));
          assert.match(failed.failure.message, /^huge: .*at most 4 GiB/);
          for (let i = 0; i < 3; i++) {
            assert.equal((yield* toHost((yield* small.run({ x })).y)).data[0], 3);
          }
        }),
        "wasm",
      ),
  );

  it("does not keep a process from ending", PATIENT, () => {
    const script = fileURLToPath(new URL("../support/compute_once.ts", import.meta.url));
    const args = runtimeName() === "deno" ? ["run", "-A", script] : ["run", script];
    const { stdout, status, signal } = spawnSync(process.execPath, args, { encoding: "utf8", timeout: 60_000 });
    assert.deepEqual([stdout, status, signal], ["3\n", 0, null]);
  });
});
