/** The graph itself: equal expressions are one node, what is not needed is left out, mistakes are told where they are made. */
import { describe, it } from "node:test";
import assert from "node:assert/strict";
import { Graph, GraphError, type Value } from "../../src/graph/graph.ts";
import { activation, add, less, mul, where } from "../../src/graph/ops/elementwise.ts";
import { conv2d } from "../../src/graph/ops/conv.ts";
import { linear, matmul } from "../../src/graph/ops/linear.ts";
import { groupNorm, layerNorm } from "../../src/graph/ops/normalize.ts";
import { reduceMean, reduceSum } from "../../src/graph/ops/reduce.ts";
import {
  concat,
  expand,
  gather,
  reshape,
  slice,
  split,
  transpose,
  upsampleNearest,
} from "../../src/graph/ops/shape.ts";

describe("hash-consing", () => {
  it("equal expressions are one value", () => {
    const g = new Graph();
    const x = g.input("x", "float32", [2, 3]);
    const expression = () => mul(add(x, 1), add(x, 1));
    assert.equal(expression(), expression());
    assert.equal(reduceSum(x, [-1]), reduceSum(x, [1]));
    assert.equal(g.weights("unet")("w", [3]), g.weights("unet")("w", [3]));
    assert.equal(g.input("x", "float32", [2, 3]), x);
    assert.equal(g.scalarRow(1, 4), g.scalarRow(1, 4));
  });

  it("values that differ in operation, operand, order, attribute or part stay apart", () => {
    const g = new Graph();
    const [x, y] = [g.input("x", "float32", [2, 2]), g.input("y", "float32", [2, 2])];
    const values = [
      add(x, y),
      add(y, x),
      mul(x, y),
      add(x, 1),
      add(x, 1.5),
      add(x, -1),
      transpose(x, [1, 0]),
      reshape(x, [4]),
      reshape(x, [1, 4]),
      reduceSum(x, [0]),
      reduceSum(x, [1]),
      reduceSum(x, [0, 1]),
      reduceMean(x, [0]),
      slice(x, 0, 0, 1),
      slice(x, 1, 0, 1),
      slice(x, 0, 1, 2),
      g.weights("unet")("w", [2]),
      g.weights("vae")("w", [2]),
      g.constant({ dims: [1], data: Float32Array.of(1) }),
      g.constant({ dims: [1], data: Float32Array.of(1) }),
    ]; // deno-fmt-ignore
    assert.equal(new Set(values).size, values.length);
  });

  it("operations that change nothing add nothing", () => {
    const g = new Graph();
    const x = g.input("x", "float32", [2, 3]);
    for (
      const same of [
        reshape(x, [2, 3]),
        reshape(x, [-1, 3]),
        transpose(x, [0, 1]),
        concat([x], 0),
        slice(x, 1, 0, 3),
        expand(x, [2, 3]),
        reduceSum(x, []),
      ]
    ) assert.equal(same, x);
  });
});

describe("reachable values", () => {
  it("come after what they are made from, and leave out what no output needs", () => {
    const g = new Graph();
    const read = g.weights("unet");
    const x = g.input("x", "float32", [2]);
    const y = add(mul(x, read("used", [2])), x);
    mul(y, read("unused", [2]));
    g.output("y", y);
    const order = g.reachable();
    for (const [i, value] of order.entries()) {
      if (value.source.kind !== "node") continue;
      for (const input of value.source.inputs) assert.ok(order.indexOf(input) < i);
    }
    assert.equal(new Set(order).size, order.length);
    assert.deepEqual(g.weightsUsed(), [{ part: "unet", key: "used", dims: [2] }]);
  });

  it("are found in a chain too deep for recursion", () => {
    const g = new Graph();
    let x: Value = g.input("x", "float32", [1]);
    for (let i = 0; i < 50_000; i++) x = add(x, i + 1);
    g.output("y", x);
    assert.equal(g.reachable().length, 100_001);
  });
});

describe("mistakes are told at the line that makes them", () => {
  const g = new Graph();
  const x = g.input("x", "float32", [2, 3]);
  const image = g.input("image", "float32", [1, 4, 8, 8]);
  const ids = g.input("ids", "int32", [2]);
  const weight = g.weights("unet");
  const rows = (n: number) => g.scalarRow(1, n);

  const mistakes: Record<string, [() => unknown, string]> = {
    "shapes that do not broadcast": [
      () => add(x, g.input("four", "float32", [4])),
      "Add: [2,3] and [4] do not broadcast",
    ],
    "two element types": [() => add(x, ids), "Add: float32[2,3] with int32[2]"],
    "a condition that is no condition": [() => where(x, 1, 2), "Where: float32[2,3] ? float32[] : float32[]"],
    "numbers alone": [() => less(1, 2), "an operation on two numbers needs no graph"],
    "inner sizes that differ": [() => matmul(x, x), "MatMul: float32[2,3] by float32[2,3]"],
    "a weight that does not fit": [() => linear(x, weight("w", [5, 4])), "MatMul: float32[2,3] by float32[4,5]"],
    "channels that differ": [
      () => conv2d(image, weight("conv", [8, 3, 3, 3]), weight("bias", [8])),
      "Conv: float32[1,4,8,8] with weight float32[8,3,3,3] and bias float32[8]",
    ],
    "groups that do not divide": [
      () => groupNorm(image, 3, rows(4), rows(4), 1e-5),
      "groupNorm: 4 channels do not fall into 3 groups",
    ],
    "a scale of another length": [
      () => layerNorm(x, rows(2), rows(3), 1e-5),
      "LayerNormalization: float32[2,3] with float32[2] and float32[3]",
    ],
    "elements lost in a reshape": [() => reshape(x, [4]), "Reshape: float32[2,3] to [4]"],
    "a reshape that leaves a fraction": [() => reshape(x, [4, -1]), "dimensions [4,1.5] are not whole numbers"],
    "axes that are no order": [() => transpose(x, [0, 0]), "Transpose: float32[2,3] by [0,0]"],
    "too few axes": [() => transpose(x, [0]), "Transpose: float32[2,3] by [0]"],
    "an axis that is not there": [() => slice(x, 2, 0, 1), "Slice: axis 2 of a rank-2 value"],
    "a slice past the end": [() => slice(x, 1, 2, 4), "Slice: float32[2,3], axis 1, 2 to 4"],
    "pieces that are not equal": [() => split(x, 1, 2), "are not whole numbers"],
    "parts that do not continue each other": [
      () => concat([x, image], 0),
      "Concat on axis 0: float32[2,3], float32[1,4,8,8]",
    ],
    "an expansion of more than 1": [() => expand(x, [4, 3]), "Expand: float32[2,3] to [4,3]"],
    "an index that is no int32": [() => gather(x, x), "Gather: index float32[2,3], int32 is needed to stay on a GPU"],
    "an axis reduced twice": [() => reduceSum(x, [1, -1]), "ReduceSum: axes [1,-1] of float32[2,3]"],
    "something else than an image": [() => upsampleNearest(x, 2), "upsampleNearest: float32[2,3] is not [N,C,H,W]"],
    "an unknown activation": [
      () => activation("relu6"),
      'activation "relu6" is not supported; known: silu, swish, gelu, quick_gelu',
    ],
    "a weight of two shapes": [
      () => [weight("twice", [2]), weight("twice", [3])],
      "weight unet twice: used as float32[2] and as float32[3]",
    ],
    "an input of two types": [
      () => g.input("x", "int32", [2, 3]),
      "input x: float32[2,3] and int32[2,3] share one name",
    ],
    "a dimension that is no number": [
      () => g.input("bad", "float32", [2, NaN]),
      "dimensions [2,NaN] are not whole numbers",
    ],
    "a name kept for the writer": [
      () => g.input("%1", "float32", []),
      'input "%1": a name begins with neither % nor #',
    ],
    "a value of another graph": [
      () => add(x, new Graph().input("x", "float32", [])),
      "Add: an input belongs to another graph",
    ],
    "an output of another graph": [
      () => g.output("y", new Graph().scalar(1)),
      "output y: the value belongs to another graph",
    ],
    "an output named twice": [() => [g.output("z", x), g.output("z", image)], "output z is there already"],
  };

  for (const [what, [make, text]] of Object.entries(mistakes)) {
    it(what, () => {
      assert.throws(make, (error) => {
        assert.ok(error instanceof GraphError);
        assert.ok(error.message.includes(text), `"${error.message}" does not say "${text}"`);
        return true;
      });
    });
  }
});
