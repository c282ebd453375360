/** Memory of a run by counting what is alive, and gradients that compute the forward pass again to need less of it. */
import { describe, it } from "node:test";
import assert from "node:assert/strict";
import { estimateMemory, executionOrder, showMemory } from "../../src/graph/memory.ts";
import { gradient } from "../../src/graph/gradient.ts";
import { Graph, type Value } from "../../src/graph/graph.ts";
import { add, exp, mul, sigmoid, tanh } from "../../src/graph/ops/elementwise.ts";
import { linear } from "../../src/graph/ops/linear.ts";
import { reduceMean } from "../../src/graph/ops/reduce.ts";
import { reshape } from "../../src/graph/ops/shape.ts";
import { trainingStep } from "../../src/graph/training.ts";
import { normal } from "../../src/tensor/random.ts";
import { evaluate } from "../support/evaluate.ts";

describe("the memory of a run", () => {
  it("counts each value from the node that makes it to the last that reads it", () => {
    const g = new Graph();
    const x = g.input("x", "float32", [4]);
    let y = x;
    for (let i = 0; i < 10; i++) y = exp(y);
    g.output("chain", y);
    assert.deepEqual(estimateMemory(g), { weights: 0, inputs: 16, computed: 32, peak: 48 });

    const skip = new Graph();
    const early = exp(skip.input("x", "float32", [4]));
    skip.output("y", add(mul(tanh(sigmoid(early)), skip.weights("unet")("w", [4])), early));
    // `early` waits while the others follow each other.
    assert.deepEqual(estimateMemory(skip), { weights: 16, inputs: 16, computed: 48, peak: 80 });
  });

  it("holds results to the end, and gives a reshape no memory of its own", () => {
    const g = new Graph();
    const x = exp(g.input("x", "float32", [2, 3]));
    g.output("first", x);
    g.output("second", exp(exp(reshape(x, [6]))));
    assert.equal(estimateMemory(g).computed, 3 * 24);
  });

  it("counts a weight as it is used: transposed when the model is loaded, and as it was where both are", () => {
    const g = new Graph();
    const x = exp(g.input("x", "float32", [5, 4]));
    const y = linear(x, g.weights("unet")("w", [3, 4]));
    g.output("y", y);
    assert.equal(estimateMemory(g).weights, 48);
    g.output("dx", gradient(g, reduceMean(mul(y, y), [0, 1]), [x])[0]);
    // Both, and the gradient of the mean, which is 1/15 in [5, 3] cells whatever is fed.
    assert.equal(estimateMemory(g).weights, 48 + 48 + 60);
  });

  it("is told in plain numbers", () => {
    assert.equal(
      showMemory({ weights: 3.36e9, inputs: 2.3e8, computed: 5.14e9, peak: 8.73e9 }),
      "8.7 GB at the most: 3.4 GB weights, 230.0 MB inputs, 5.1 GB computed",
    );
  });

  it("is that of the order in which ONNX Runtime runs: a training step makes its gradients from the last layer on", () => {
    const g = new Graph({ weightsAsInputs: () => true });
    const [layers, width] = [6, 129];
    let x = g.input("x", "float32", [3, width]);
    // Beyond the size of weights that share one sum of squares.
    for (let i = 0; i < layers; i++) x = tanh(linear(x, g.weights("mlp")(`${i}`, [width, width])));
    trainingStep(g, reduceMean(mul(x, x), [0, 1]), { clipNorm: 1 });
    const order = executionOrder(g);
    assert.equal(new Set(order).size, order.length);
    assert.equal(order.length, g.reachable().filter((v) => v.source.kind === "node").length);
    const place = new Map(order.map((v, i) => [v, i]));
    for (const v of order) {
      if (v.source.kind === "node") {
        for (const input of v.source.inputs) assert.ok((place.get(input) ?? -1) < place.get(v)!);
      }
    }
    const squares = order.filter((v) =>
      v.source.kind === "node" && v.source.op.type === "ReduceSum" && v.dims.join() === "1,1"
    );
    assert.equal(squares.length, layers);
    // Weights and gradients meet in the sum of squares; the last layer's, which has the fewest nodes below it, comes first.
    const below = (v: Value): number => {
      const [seen, stack] = [new Set<Value>(), [v]];
      while (stack.length > 0) {
        const at = stack.pop()!;
        if (seen.has(at) || at.source.kind !== "node") continue;
        seen.add(at);
        stack.push(...at.source.inputs);
      }
      return seen.size;
    };
    const sizes = squares.map(below);
    assert.deepEqual(sizes, sizes.toSorted((a, b) => a - b));
  });
});

describe("gradients in segments", () => {
  const DEPTH = 48;
  /** Layers of tanh(x Wᵀ) with one that is seen again far behind; the weights are small, what is computed is large. */
  const deep = (segments: number) => {
    const g = new Graph();
    const x = g.input("x", "float32", [256, 8]);
    const weight = (i: number) => g.constant(normal(i, [8, 8]));
    const first = weight(0);
    let y = tanh(linear(x, first));
    const early = y;
    for (let i = 1; i < DEPTH; i++) y = tanh(add(linear(y, weight(i)), i === DEPTH - 5 ? early : 0));
    const loss = reduceMean(mul(y, y), [0, 1]);
    g.output("loss", loss);
    const [dFirst, dx] = gradient(g, loss, [first, x], { segments });
    g.output("first", dFirst);
    g.output("dx", dx);
    return g;
  };

  it("are the same gradients, for less memory and more work", async () => {
    const feeds = { x: normal(99, [256, 8]) };
    const whole = deep(1);
    const want = await evaluate(whole, feeds);
    let before = estimateMemory(whole);
    const nodes = (g: Graph) => g.reachable().length;
    for (const segments of [2, 4, 7]) {
      const g = deep(segments);
      const estimate = estimateMemory(g);
      assert.ok(estimate.computed < before.computed, `${segments}: ${estimate.computed} of ${before.computed} bytes`);
      assert.ok(nodes(g) > nodes(whole) && nodes(g) < 2 * nodes(whole));
      assert.equal(estimate.inputs, before.inputs);
      const got = await evaluate(g, feeds);
      for (const name of ["loss", "first", "dx"]) {
        assert.deepEqual(got[name], want[name], `${segments} segments, ${name}`);
      }
      before = estimate;
    }
    assert.ok(before.computed < estimateMemory(whole).computed / 2);
  });
});
