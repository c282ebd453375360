/** Small models for tests of the runtime. */
import { add, Graph, matmul, type Op, sigmoid, toOnnx, type Value } from "../../src/graph/mod.ts";
import type { DType } from "../../src/tensor/tensor.ts";
import type { ModelBytes } from "../../src/runtime/mod.ts";

/** y = x·W + x and s = sigmoid(y) for x [n, n]; W is `w` times the identity, in external data at an odd offset. */
export const affine = (n: number, w: number, name = "affine"): ModelBytes => {
  const graph = new Graph();
  const x = graph.input("x", "float32", [n, n]);
  const y = add(matmul(x, graph.weights("test")("w", [n, n])), x);
  graph.output("y", y);
  graph.output("s", sigmoid(y));
  const { model } = toOnnx(graph, () => ({
    path: "w.safetensors",
    offset: 3,
    length: 4 * n * n,
    dtype: "float32",
    dims: [n, n],
  }));
  const weights = Float32Array.from({ length: n * n }, (_, i) => i % (n + 1) === 0 ? w : 0);
  const data = new Uint8Array(3 + weights.byteLength);
  data.set(new Uint8Array(weights.buffer), 3);
  return { name, model, external: [{ path: "w.safetensors", data }] };
};

/** One elementwise operation that keeps the type, on each of the given types: inputs and outputs are named by the type. */
export const eachType = (type: string, dtypes: readonly DType[], dims: readonly number[]): ModelBytes => {
  const graph = new Graph();
  for (const dtype of dtypes) {
    graph.output(`${dtype} out`, unary(type, graph.input(dtype, dtype, dims)));
  }
  const { model } = toOnnx(graph, () => {
    throw new Error("no weights");
  });
  return { name: type, model, external: [] };
};

/** Sigmoid, then operations by name, one after the other. */
export const chain = (types: readonly string[], dims: readonly number[]): ModelBytes => {
  const graph = new Graph();
  graph.output("y", types.reduce((x, type) => unary(type, x), sigmoid(graph.input("x", "float32", dims))));
  const { model } = toOnnx(graph, () => {
    throw new Error("no weights");
  });
  return { name: types.join(" "), model, external: [] };
};

const unary = (type: string, x: Value): Value => {
  const op: Op = { type, infer: ([t]) => t };
  return x.graph.apply(op, [x]);
};
