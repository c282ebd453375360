/** Every operation of the graph, on random shapes: the shape it infers is the runtime's, its values are the definition's. */
import { describe, it } from "node:test";
import assert from "node:assert/strict";
import fc from "fast-check";
import { Graph } from "../../src/graph/graph.ts";
import { div, less, sub, where } from "../../src/graph/ops/elementwise.ts";
import type { Tensor, TensorData } from "../../src/tensor/tensor.ts";
import { evaluate } from "../support/evaluate.ts";
import { type Case, cases, exported, hostTensor } from "./cases.ts";

/** All cases in one graph and one session: creating a session costs far more than running it. */
const check = (on: "tests" | "reference") => async (named: Readonly<Record<string, Case>>): Promise<void> => {
  const graph = new Graph();
  const feeds: Record<string, Tensor<TensorData>> = {};
  const results = Object.entries(named).map(([name, { inputs, apply }]) => {
    const values = inputs.map(({ dtype, nd }, i) => {
      feeds[`${name}.${i}`] = hostTensor(dtype, nd);
      return graph.input(`${name}.${i}`, dtype, nd.dims);
    });
    const value = apply(...values);
    graph.output(name, value);
    return { name, value };
  });
  const got = await evaluate(graph, feeds, undefined, undefined, on);
  for (const { name, value } of results) {
    const { inputs, reference, dtype = "float32" } = named[name];
    const expected = reference(...inputs.map(({ nd }) => nd));
    assert.deepEqual(value.dims, expected.dims, `${name}: inferred shape`);
    assert.equal(value.dtype, dtype, `${name}: inferred dtype`);
    assert.deepEqual(got[name].dims, expected.dims, `${name}: the runtime's shape`);
    assert.equal(
      got[name].data.constructor,
      hostTensor(dtype, expected).data.constructor,
      `${name}: the runtime's dtype`,
    );
    expected.data.forEach((want, i) => {
      const have = Number(got[name].data[i]);
      assert.ok(
        Math.abs(have - want) <= 2e-5 * (1 + Math.abs(want)),
        `${name}[${i}]: ${have}, the definition says ${want}`,
      );
    });
  }
};

describe("operations", () => {
  it("each exported operation is tested here", () => {
    assert.deepEqual(exported.filter((name) => !(name in cases)), []);
  });

  it("shapes are ONNX Runtime's, values are the definitions'", { timeout: 120_000 }, async () => {
    await fc.assert(fc.asyncProperty(fc.record(cases), check("tests")), { numRuns: 30 });
  });

  it("the reference kernels are exact but for rounding to float32", { timeout: 120_000 }, async () => {
    await fc.assert(fc.asyncProperty(fc.record(cases), check("reference")), { numRuns: 30 });
  });

  it("numbers stand for float32 scalars, on either side", async () => {
    const graph = new Graph();
    const x = graph.input("x", "float32", [2]);
    graph.output("right", sub(x, 1.5));
    graph.output("left", div(1, x));
    graph.output("chosen", where(less(x, 0), -1, x));
    const got = await evaluate(graph, { x: { dims: [2], data: Float32Array.of(-2, 4) } });
    assert.deepEqual([...got.right.data], [-3.5, 2.5]);
    assert.deepEqual([...got.left.data], [-0.5, 0.25]);
    assert.deepEqual([...got.chosen.data], [-1, 4]);
  });
});
