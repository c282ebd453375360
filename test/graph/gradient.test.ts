/** Gradients: each rule against finite differences of the definition, and what holds for the transform as a whole. */
import { describe, it } from "node:test";
import assert from "node:assert/strict";
import fc from "fast-check";
import { Graph, GraphError, type Op, type Value } from "../../src/graph/graph.ts";
import { gradient } from "../../src/graph/gradient.ts";
import { printGraph } from "../../src/graph/onnx.ts";
import { conv2d } from "../../src/graph/ops/conv.ts";
import { add, cast, exp, less, mul, sigmoid, where } from "../../src/graph/ops/elementwise.ts";
import { linear, matmul } from "../../src/graph/ops/linear.ts";
import { reduceMean, reduceSum } from "../../src/graph/ops/reduce.ts";
import { reshape } from "../../src/graph/ops/shape.ts";
import type { Tensor, TensorData } from "../../src/tensor/tensor.ts";
import { evaluate } from "../support/evaluate.ts";
import { type Case, cases, hostTensor } from "./cases.ts";
import * as ref from "./reference.ts";
import type { Nd } from "./reference.ts";

/** Sum of all elements, as one number. */
const total = (x: Value): Value => reshape(reduceSum(x, [...x.dims.keys()]), []);

/** A fixed pattern of numbers around ±1: weights of a sum, or a direction to move in. */
const pattern = (dims: readonly number[], phase: number): Nd =>
  ref.build(dims, (i) => Math.fround(Math.sin(phase + i.reduce((n, x, axis) => n + (axis + 1.3) * (x + 0.7), 0))));

const dot = (a: Nd, b: Nd): number => ref.sum(a.data.map((x, i) => x * b.data[i]));

/**
 * loss = Σ pattern · y. For each float input, the derivative along a direction by central differences of the definition,
 * in float64 with a step that leaves 8 digits, is the gradient's product with that direction.
 */
const checkRules = async (named: Readonly<Record<string, Case>>): Promise<void> => {
  const graph = new Graph();
  const feeds: Record<string, Tensor<TensorData>> = {};
  const checks: { output: string; d: Nd; slope: number; size: number }[] = [];
  for (const [name, { inputs, apply, reference, dtype = "float32" }] of Object.entries(named)) {
    if (dtype !== "float32") continue;
    const values = inputs.map(({ dtype, nd }, i) => {
      feeds[`${name}.${i}`] = hostTensor(dtype, nd);
      return graph.input(`${name}.${i}`, dtype, nd.dims);
    });
    const y = apply(...values);
    const weights = pattern(y.dims, 1);
    const loss = total(mul(y, graph.constant(hostTensor("float32", weights))));
    const floats = [...inputs.keys()].filter((i) => inputs[i].dtype === "float32");
    const gradients = gradient(graph, loss, floats.map((i) => values[i]));
    for (const [at, i] of floats.entries()) {
      const { nd } = inputs[i];
      assert.deepEqual(gradients[at].dims, nd.dims, `${name}: shape of gradient ${i}`);
      graph.output(`${name}.gradient.${i}`, gradients[at]);
      const d = pattern(nd.dims, 2 + i);
      const lossAt = (step: number) => {
        const moved = inputs.map((input, j) => j === i ? ref.zip(nd, d, (x, v) => x + step * v) : input.nd);
        return dot(reference(...moved), weights);
      };
      const slope = (lossAt(STEP) - lossAt(-STEP)) / (2 * STEP);
      checks.push({ output: `${name}.gradient.${i}`, d, slope, size: nd.data.length });
    }
  }
  const got = await evaluate(graph, feeds);
  for (const { output, d, slope, size } of checks) {
    const along = dot({ dims: d.dims, data: [...got[output].data].map(Number) }, d);
    assert.ok(
      Math.abs(along - slope) <= 3e-4 * (Math.abs(slope) + Math.sqrt(size)),
      `${output}: ${along} along a direction, finite differences say ${slope}`,
    );
  }
};

const STEP = 1e-6;

/** Of float32 alone is there a gradient: what turns into another type has none. */
const differentiable = Object.fromEntries(
  Object.entries(cases).filter(([name]) => !["less", "equal", "cast"].includes(name)),
);

describe("gradient rules", () => {
  it("are the derivatives of the definitions", { timeout: 240_000 }, async () => {
    await fc.assert(fc.asyncProperty(fc.record(differentiable), checkRules), { numRuns: 10, endOnFailure: true });
  });
});

const floatsOf = (dims: readonly number[], phase: number) => hostTensor("float32", pattern(dims, phase));

describe("gradient", () => {
  it("of a sum is ones, of a loss with respect to itself one", async () => {
    const g = new Graph();
    const x = g.input("x", "float32", [2, 3]);
    const [dx, own] = [gradient(g, total(x), [x])[0], gradient(g, total(x), [total(x)])[0]];
    assert.deepEqual(dx.dims, [2, 3]);
    g.output("dx", dx);
    g.output("own", own);
    const got = await evaluate(g, { x: floatsOf([2, 3], 1) });
    assert.deepEqual([[...got.dx.data], [...got.own.data]], [[1, 1, 1, 1, 1, 1], [1]]);
  });

  it("is linear: that of a·f + b·h is a times that of f plus b times that of h", { timeout: 120_000 }, async () => {
    const number = fc.integer({ min: -40, max: 40 }).map((n) => n / 8);
    const sizes = fc.integer({ min: 1, max: 4 });
    await fc.assert(
      fc.asyncProperty(number, number, sizes, sizes, sizes, async (a, b, m, k, n) => {
        const g = new Graph();
        const x = g.input("x", "float32", [m, k]);
        const w = g.input("w", "float32", [n, k]);
        const f = reduceMean(exp(linear(x, w)), [0, 1]);
        const h = total(sigmoid(mul(matmul(x, reshape(w, [k, n])), 0.3)));
        const whole = add(mul(reshape(f, []), a), mul(h, b));
        for (const [name, loss] of Object.entries({ f, h, whole })) {
          gradient(g, loss, [x, w]).forEach((d, i) => g.output(`${name}.${i}`, d));
        }
        const got = await evaluate(g, { x: floatsOf([m, k], 3), w: floatsOf([n, k], 4) });
        for (const i of [0, 1]) {
          got[`whole.${i}`].data.forEach((have, at) => {
            const [df, dh] = [Number(got[`f.${i}`].data[at]), Number(got[`h.${i}`].data[at])];
            assert.ok(Math.abs(Number(have) - a * df - b * dh) <= 1e-5 * (1 + Math.abs(a * df) + Math.abs(b * dh)));
          });
        }
      }),
      { numRuns: 8 },
    );
  });

  it("adds up what comes back along every way, also where one value is both operands", async () => {
    const g = new Graph();
    const x = g.input("x", "float32", [2]);
    const square = mul(x, x);
    g.output("dx", gradient(g, total(add(mul(square, square), add(square, x))), [x])[0]);
    const got = await evaluate(g, { x: { dims: [2], data: Float32Array.of(2, -1) } });
    assert.deepEqual([...got.dx.data], [4 * 8 + 4 + 1, -4 - 2 + 1]);
  });

  it("takes a value in between, and goes on past it", async () => {
    const g = new Graph();
    const x = g.input("x", "float32", [2]);
    const y = mul(x, 3);
    const [dy, dx] = gradient(g, total(mul(y, y)), [y, x]);
    g.output("dy", dy);
    g.output("dx", dx);
    const got = await evaluate(g, { x: { dims: [2], data: Float32Array.of(1, -2) } });
    assert.deepEqual([[...got.dy.data], [...got.dx.data]], [[6, -12], [18, -36]]);
  });

  it("uses the forward pass's values: nothing that is there is computed again", () => {
    const count = (g: Graph, type: string) =>
      g.reachable().filter((v) => v.source.kind === "node" && v.source.op.type === type).length;
    const g = new Graph();
    const x = g.input("x", "float32", [2, 3, 5, 5]);
    const w = g.weights("unet")("w", [4, 3, 3, 3]);
    const loss = total(sigmoid(exp(conv2d(x, w, undefined, { padding: 1 }))));
    g.output("loss", loss);
    const [convolutions, sigmoids, exponentials] = ["Conv", "Sigmoid", "Exp"].map((type) => count(g, type));
    g.output("dw", gradient(g, loss, [w])[0]);
    assert.deepEqual(["Conv", "Sigmoid", "Exp"].map((type) => count(g, type)), [convolutions, sigmoids, exponentials]);
  });

  it("computes nothing for inputs that are not asked for", () => {
    const g = new Graph();
    const x = g.input("x", "float32", [2, 3]);
    const w = g.weights("unet")("w", [4, 3]);
    g.output("dw", gradient(g, total(linear(x, w)), [w])[0]);
    const before = g.reachable().length;
    gradient(g, total(linear(x, w)), [w]);
    assert.equal(g.reachable().length, before);
    assert.ok(!printGraph(g).includes("weight unet w"), "the gradient of a linear layer's weight needs x alone");
  });

  const mistakes: Record<string, [(g: Graph, x: Value) => unknown, string]> = {
    "an operation without a rule": [
      (g, x) => {
        const op: Op = { type: "Hardmax", infer: ([x]) => x };
        return gradient(g, total(g.apply(op, [exp(x)])), [x]);
      },
      "gradient: the operation Hardmax has no gradient rule",
    ],
    "a loss of many elements": [(g, x) => gradient(g, x, [x]), "gradient: the loss is float32[2,3], not one float32"],
    "a loss of another graph": [(_, x) => gradient(new Graph(), total(x), [x]), "the loss belongs to another graph"],
    "what the loss does not depend on": [
      (g, x) => gradient(g, total(x), [g.input("z", "float32", [])]),
      "gradient: the loss does not depend on the input z, float32[]",
    ],
    "what it depends on by a comparison alone": [
      (g, x) => gradient(g, total(where(less(x, 0), 1, 2)), [x]),
      "gradient: the loss does not depend on the input x, float32[2,3]",
    ],
    "whole numbers": [
      (g) => {
        const ids = g.input("ids", "int32", [2]);
        return gradient(g, total(cast(ids, "float32")), [ids]);
      },
      "gradient: the loss does not depend on the input ids, int32[2]",
    ],
  };
  for (const [what, [make, text]] of Object.entries(mistakes)) {
    it(`refuses ${what}`, () => {
      const g = new Graph();
      assert.throws(() => make(g, g.input("x", "float32", [2, 3])), (error) => {
        assert.ok(error instanceof GraphError);
        assert.ok(error.message.includes(text), `"${error.message}" does not say "${text}"`);
        return true;
      });
    });
  }
});
