/** Runs a graph as the project does: compiled to ONNX, on the runtime that tests compute with (wasm, or SAU_DEVICE's). */
import assert from "node:assert/strict";
import { Effect, Exit, ManagedRuntime, Scope } from "effect";
import type { Graph } from "../../src/graph/graph.ts";
import { type Compiled, type CompileOptions, toOnnx, type WeightLocator } from "../../src/graph/onnx.ts";
import { isDevice, Runtime } from "../../src/runtime/mod.ts";
import type { Tensor, TensorData } from "../../src/tensor/tensor.ts";
import { testRuntime } from "./runtime.ts";

export interface External {
  readonly path: string;
  readonly data: Uint8Array;
}

/** A compiled graph that can be run many times. Release it, or its session outlives the test. */
export interface Evaluator {
  readonly compiled: Compiled;
  readonly run: (feeds: Readonly<Record<string, Tensor<TensorData>>>) => Promise<Record<string, Tensor<TensorData>>>;
  readonly release: () => Promise<void>;
}

const noWeights: WeightLocator = (part, key) => {
  throw new Error(`the test gives no weights, the graph wants ${part} ${key}`);
};

/** One runtime for all graphs of a test file: choosing a device costs more than most graphs. */
const ofTests = ManagedRuntime.make(testRuntime), ofReference = ManagedRuntime.make(Runtime.layer("reference"));

export const evaluator = async (
  graph: Graph,
  locate: WeightLocator = noWeights,
  external: readonly External[] = [],
  on: "tests" | "reference" = "tests",
  options: CompileOptions = {},
): Promise<Evaluator> => {
  const managed = on === "reference" ? ofReference : ofTests;
  const compiled = toOnnx(graph, locate, options);
  const used = external.filter(({ path }) => compiled.paths.has(path));
  const scope = Scope.makeUnsafe();
  const session = await managed.runPromise(
    Effect.gen(function* () {
      const runtime = yield* Runtime;
      return yield* runtime.session({ name: "test", model: compiled.model, external: used });
    }).pipe(Scope.provide(scope)),
  );
  return {
    compiled,
    run: async (feeds) => {
      const results = await managed.runPromise(session.run(feeds));
      return Object.fromEntries(
        Object.entries(results).map(([name, t]) => {
          assert.ok(!isDevice(t));
          return [name, t];
        }),
      );
    },
    release: () => managed.runPromise(Scope.close(scope, Exit.void)),
  };
};

/** One run of a graph. */
export const evaluate = async (
  graph: Graph,
  feeds: Readonly<Record<string, Tensor<TensorData>>> = {},
  locate?: WeightLocator,
  external?: readonly External[],
  on?: "tests" | "reference",
  options?: CompileOptions,
): Promise<Record<string, Tensor<TensorData>>> => {
  const session = await evaluator(graph, locate, external, on, options);
  try {
    return await session.run(feeds);
  } finally {
    await session.release();
  }
};
