/** Runs a graph on ONNX Runtime's WASM build, with nothing of ours in between but the graph and its ONNX writer. */
import * as ort from "onnxruntime-web";
import type { Graph } from "../../src/graph/graph.ts";
import { type Compiled, toOnnx, type WeightLocator } from "../../src/graph/onnx.ts";
import type { Tensor, TensorData } from "../../src/tensor/tensor.ts";

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

// Tests run beside other work, and their graphs are small: one thread each.
ort.env.wasm.numThreads = 1;
ort.env.logLevel = "error";

const noWeights: WeightLocator = (part, key) => {
  throw new Error(`the test gives no weights, the graph wants ${part} ${key}`);
};

const creation = { last: Promise.resolve() as Promise<unknown> };

export const evaluator = async (
  graph: Graph,
  locate: WeightLocator = noWeights,
  external: readonly External[] = [],
): Promise<Evaluator> => {
  const compiled = toOnnx(graph, locate);
  // ONNX Runtime creates one session at a time.
  const created = creation.last.then(() =>
    ort.InferenceSession.create(compiled.model, {
      executionProviders: ["wasm"],
      externalData: external.filter(({ path }) => compiled.paths.has(path)).map(({ path, data }) => ({ path, data })),
    })
  );
  creation.last = created.catch(() => undefined);
  const session = await created;
  return {
    compiled,
    run: async (feeds) => {
      const results = await session.run(
        Object.fromEntries(
          Object.entries(feeds).map(([name, t]) => {
            const type = compiled.inputs.get(name);
            if (type === undefined) throw new Error(`the graph has no input ${name}`);
            if (t.data instanceof Float16Array) throw new Error(`${name}: no test feeds float16`);
            return [name, new ort.Tensor(type.dtype, t.data, [...t.dims])];
          }),
        ),
      );
      return Object.fromEntries(
        Object.entries(results).map(([name, t]) => [name, { dims: t.dims, data: t.data as TensorData }]),
      );
    },
    release: () => session.release(),
  };
};

/** One run of a graph. */
export const evaluate = async (
  graph: Graph,
  feeds: Readonly<Record<string, Tensor<TensorData>>> = {},
  locate?: WeightLocator,
  external?: readonly External[],
): Promise<Record<string, Tensor<TensorData>>> => {
  const session = await evaluator(graph, locate, external);
  try {
    return await session.run(feeds);
  } finally {
    await session.release();
  }
};
