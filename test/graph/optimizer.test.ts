/** AdamW, clipping and the running mean do what PyTorch's do (test/golden/make_gradients.py), step by step. */
import { describe, it } from "node:test";
import assert from "node:assert/strict";
import { Graph, GraphError } from "../../src/graph/graph.ts";
import { add, mul } from "../../src/graph/ops/elementwise.ts";
import { reduceSum } from "../../src/graph/ops/reduce.ts";
import { reshape } from "../../src/graph/ops/shape.ts";
import { adamW, clipByGlobalNorm, ema, globalNorm } from "../../src/graph/optimizer.ts";
import { trainingStep } from "../../src/graph/training.ts";
import { normal } from "../../src/tensor/random.ts";
import { type Tensor, type TensorData, zeros } from "../../src/tensor/tensor.ts";
import { evaluate, evaluator } from "../support/evaluate.ts";
import { goldenOf, relativeError } from "../support/golden.ts";

const NAMES = ["a", "b", "c"];
const number = (x: number) => ({ dims: [], data: Float32Array.of(x) });

describe("AdamW", () => {
  it("with clipped gradients, bias correction, decay and a running mean is PyTorch's over five steps", async () => {
    const golden = goldenOf("optimizer.safetensors");
    const g = new Graph();
    const moment = { step: g.input("step", "float32", []), rate: g.input("rate", "float32", []) };
    const inputs = NAMES.map((name) => {
      const { dims } = golden.floats(`start.${name}`);
      const [weight, first, second, mean, gradient] = ["weight", "first", "second", "mean", "gradient"]
        .map((what) => g.input(`${what}.${name}`, "float32", dims));
      return { name, weight, first, second, mean, gradient };
    });
    const { factor, norm } = clipByGlobalNorm(inputs.map((x) => x.gradient), 1);
    g.output("norm", norm);
    for (const { name, mean, gradient, ...state } of inputs) {
      const next = adamW(state, gradient, moment, { beta2: 0.99, weightDecay: 0.1 }, factor);
      g.output(`next.weight.${name}`, next.weight);
      g.output(`next.first.${name}`, next.first);
      g.output(`next.second.${name}`, next.second);
      g.output(`next.mean.${name}`, ema(mean, next.weight, 0.9));
    }
    const session = await evaluator(g);
    const state: Record<string, Tensor<TensorData>> = {};
    for (const name of NAMES) {
      const start = golden.floats(`start.${name}`);
      Object.assign(state, { [`weight.${name}`]: start, [`mean.${name}`]: start });
      Object.assign(state, { [`first.${name}`]: zeros(start.dims), [`second.${name}`]: zeros(start.dims) });
    }
    const rates = golden.floats("rates").data;
    for (const [step, rate] of rates.entries()) {
      const fed = NAMES.map((name) => [`gradient.${name}`, golden.floats(`gradient.${step}.${name}`)]);
      const got = await session.run({
        ...state,
        ...Object.fromEntries(fed),
        step: number(step + 1),
        rate: number(rate),
      });
      const norm = golden.floats("norms").data[step];
      assert.ok(Math.abs(Number(got.norm.data[0]) - norm) <= 1e-5 * norm, `norm at step ${step + 1}`);
      for (const key of Object.keys(state)) state[key] = got[`next.${key}`];
      for (const name of NAMES) {
        for (const what of ["weight", "mean"]) {
          const error = relativeError(state[`${what}.${name}`], golden.floats(`${what}.${step}.${name}`));
          assert.ok(error <= 1e-6, `${what} ${name} at step ${step + 1}: relative error ${error}`);
        }
      }
    }
    for (const name of NAMES) {
      for (const what of ["first", "second"]) {
        assert.ok(relativeError(state[`${what}.${name}`], golden.floats(`${what}.${name}`)) <= 1e-5, `${what} ${name}`);
      }
    }
    await session.release();
  });

  it("keeps its digits where β is near 1: the first step moves each weight by the rate, whatever the gradient", async () => {
    const g = new Graph();
    const [weight, gradient] = ["w", "g"].map((name) => g.input(name, "float32", [3]));
    const zero = g.scalarRow(0, 3);
    const moment = { step: g.input("step", "float32", []), rate: g.scalar(1) };
    const settings = { beta1: 0.999, beta2: 0.99999, weightDecay: 0 };
    g.output("next", adamW({ weight, first: zero, second: zero }, gradient, moment, settings).weight);
    const got = await evaluate(g, {
      w: { dims: [3], data: Float32Array.of(0, 0, 0) },
      g: { dims: [3], data: Float32Array.of(1, -100, 0.01) },
      step: number(1),
    });
    [-1, 1, -1].forEach((want, i) => assert.ok(Math.abs(Number(got.next.data[i]) - want) < 3e-6, `${got.next.data}`));
  });
});

describe("the global norm", () => {
  it("is that of all elements together; gradients below the limit stay as they are", async () => {
    const g = new Graph();
    const values = [g.input("x", "float32", [2, 1]), g.input("y", "float32", [])];
    g.output("norm", globalNorm(values));
    for (const limit of [1, 100]) {
      g.output(`${limit}`, clipByGlobalNorm(values, limit).factor);
    }
    const got = await evaluate(g, { x: { dims: [2, 1], data: Float32Array.of(2, 3) }, y: number(6) });
    assert.equal(got.norm.data[0], 7);
    assert.equal(got["100"].data[0], 1);
    assert.ok(Math.abs(Number(got["1"].data[0]) - 1 / 7) < 1e-6);
  });

  it("that is no number scales nothing: the gradients to blame are told from the others", async () => {
    const g = new Graph();
    const x = g.input("x", "float32", [2]);
    g.output("factor", clipByGlobalNorm([x], 1).factor);
    const got = await evaluate(g, { x: { dims: [2], data: Float32Array.of(NaN, 1) } });
    assert.deepEqual([...got.factor.data].map(Number), [1]);
  });
});

describe("a training step", () => {
  it("names the state it takes and gives, for every weight that is an input", () => {
    const g = new Graph({ weightsAsInputs: (_, key) => key !== "frozen" });
    const read = g.weights("unet");
    const y = mul(mul(g.input("x", "float32", [2]), read("w", [2])), read("frozen", [2]));
    const state = trainingStep(g, reduceSum(y, [0]), { averageDecay: 0.9 });
    assert.deepEqual(state.map(({ input, output, role }) => [input, output, role]), [
      ["unet/w", "next/unet/w", "weight"],
      ["first/unet/w", "next/first/unet/w", "first"],
      ["second/unet/w", "next/second/unet/w", "second"],
      ["average/unet/w", "next/average/unet/w", "average"],
    ]);
    assert.deepEqual(g.inputs.map((v) => v.source.kind === "input" ? v.source.name : ""), [
      "x",
      "unet/w",
      "step",
      "rate",
      "first/unet/w",
      "second/unet/w",
      "average/unet/w",
    ]);
    assert.deepEqual(g.outputs.map((o) => o.name), ["loss", "gradient norm", ...state.map((s) => s.output)]);
  });

  it("takes small weights together, which changes nothing but the number of nodes", async () => {
    const shapes = { bias: [3], wide: [2, 3], large: [3, 5462], kernel: [5462, 3, 1, 1] };
    const start = Object.fromEntries(Object.entries(shapes).map(([key, dims], i) => [`toy/${key}`, normal(i, dims)]));
    /** Weights after two steps. */
    const train = async (trained: readonly (keyof typeof shapes)[]) => {
      const g = new Graph({ weightsAsInputs: () => true });
      const read = g.weights("toy");
      const squares = trained.map((key) => {
        const w = read(key, shapes[key]);
        return reshape(reduceSum(mul(mul(w, w), w), [...w.dims.keys()]), []);
      });
      const state = trainingStep(g, squares.reduce((a, b) => add(a, b)), { averageDecay: 0.5 });
      const session = await evaluator(g);
      let held = Object.fromEntries(
        state.map((s) => [s.input, s.weight === undefined ? zeros(s.dims) : start[s.weight]]),
      );
      for (const step of [1, 2]) {
        const got = await session.run({ ...held, step: number(step), rate: number(0.1) });
        held = Object.fromEntries(state.map((s) => [s.input, got[s.output] as Tensor]));
      }
      await session.release();
      return { state, held };
    };
    const { state, held } = await train(["large", "bias", "wide", "kernel"]);
    assert.deepEqual(state.filter((s) => s.role === "first").map((s) => [s.input, s.dims]), [
      ["first/small weights", [9]],
      ["first/toy/large", [3, 5462]],
      ["first/toy/kernel", [5462, 3]],
    ]);
    for (const key of ["bias", "wide", "large", "kernel"] as const) {
      const alone = await train([key]);
      for (const name of [`toy/${key}`, `average/toy/${key}`]) {
        assert.deepEqual(held[name].dims, shapes[key]);
        assert.ok(relativeError(held[name], alone.held[name]) < 1e-6, name);
      }
    }
  });

  it("refuses a graph without weights as inputs", () => {
    const g = new Graph();
    const x = g.input("x", "float32", [1]);
    assert.throws(
      () => trainingStep(g, x),
      new GraphError("trainingStep: no weight is an input, so there is nothing to train"),
    );
  });
});
