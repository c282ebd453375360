/** Training on the runtime: PyTorch's losses and weights over some steps, state that stays on the device, and bad numbers. */
import { describe, it } from "node:test";
import assert from "node:assert/strict";
import { Effect, Result } from "effect";
import { add, Graph, log, mul, reduceMean, reduceSum, sqrt, sub, toOnnx, trainingStep } from "../../src/graph/mod.ts";
import { openTrainer } from "../../src/runtime/mod.ts";
import type { Tensor } from "../../src/tensor/tensor.ts";
import { withRuntime } from "../support/runtime.ts";
import { followsPyTorch } from "./training_laws.ts";

const PATIENT = { timeout: 120_000 };

const noWeights = () => {
  throw new Error("every weight is an input");
};

/** loss = mean (log w − x)²: no number as soon as a weight is negative. */
const logarithms = () => {
  const g = new Graph({ weightsAsInputs: () => true });
  const apart = sub(log(g.weights("toy")("w", [3])), g.input("x", "float32", [3]));
  const state = trainingStep(g, reduceMean(mul(apart, apart), [0]), { weightDecay: 0, averageDecay: 0.5 });
  return { state, bytes: { name: "toy", model: toOnnx(g, noWeights).model, external: [] } };
};
const row = (...x: number[]): Tensor => ({ dims: [x.length], data: Float32Array.from(x) });

describe("a trainer", () => {
  it("follows PyTorch over four steps of AdamW on a U-Net's text keys and values", PATIENT, () => followsPyTorch());

  it("stops at a loss that is no number, says at which step, and keeps the weights of the step before", PATIENT, () => {
    const { state, bytes } = logarithms();
    return withRuntime(Effect.gen(function* () {
      const trainer = yield* openTrainer(bytes, state, { "toy/w": row(1, 1, 1) });
      const x = row(1, 0.5, -0.5);
      const first = yield* trainer.step(0.25, { x });
      const good = yield* trainer.read("weight");
      assert.deepEqual([...good.get("toy/w")!.data].map((w) => Math.round(1e4 * w) / 1e4), [1.25, 1.25, 0.75]);
      assert.ok(Math.abs(first.loss - 0.5) < 1e-6);

      const failed = yield* Effect.result(trainer.step(0.1, { x: row(NaN, 0, 0) }));
      assert.ok(Result.isFailure(failed));
      assert.equal(
        failed.failure.message,
        "toy: the loss is NaN at step 2: the input x holds NaN; the weights are those of step 1",
      );
      assert.deepEqual(yield* trainer.read("weight"), good);

      const second = yield* trainer.step(0.01, { x });
      assert.equal(second.step, 2);
      assert.ok(second.loss < first.loss);
      assert.deepEqual([...(yield* trainer.read("average")).keys()], ["toy/w"]);
    }));
  });

  it("names the weight or the gradient where numbers went wrong first", PATIENT, () => {
    // loss = Σ a + √(b c)² + d x, in the order of the network; a root has no slope at 0.
    const g = new Graph({ weightsAsInputs: () => true });
    const read = g.weights("toy");
    const [a, b, c] = ["a", "b", "c"].map((key) => read(key, [2, 1]));
    const root = sqrt(mul(b, c));
    const large = mul(read("d", [2, 10_000]), g.input("x", "float32", [2, 1]));
    const loss = reduceSum(add(add(a, mul(root, root)), large), [0, 1]);
    const state = trainingStep(g, loss, { clipNorm: 1 });
    const bytes = { name: "toy", model: toOnnx(g, noWeights).model, external: [] };
    const ones = (...dims: number[]) => ({ dims, data: new Float32Array(dims[0] * dims[1]).fill(1) });
    const start = { "toy/a": ones(2, 1), "toy/b": ones(2, 1), "toy/c": ones(2, 1), "toy/d": ones(2, 10_000) };
    const x = ones(2, 1);
    return withRuntime(Effect.gen(function* () {
      const zero = { dims: [2, 1], data: Float32Array.of(0, 1) };
      const trainer = yield* openTrainer(bytes, state, { ...start, "toy/b": zero });
      const failed = yield* Effect.result(trainer.step(0.1, { x }));
      assert.ok(Result.isFailure(failed));
      assert.equal(
        failed.failure.message,
        "toy: the gradient's norm is NaN at step 1: the gradient of toy/c is not finite, the first of 2 on the way back " +
          "from the loss; the weights are those of step 0",
      );

      const rash = yield* openTrainer(bytes, state, start);
      yield* rash.step(Infinity, { x });
      const lost = yield* Effect.result(rash.step(0.1, { x }));
      assert.ok(Result.isFailure(lost));
      assert.match(lost.failure.message, /at step 2: the weight toy\/a holds (NaN|-Infinity); the weights are those/u);
    }));
  });

  it("says which weight to begin with is missing or has another shape", PATIENT, () => {
    const { state, bytes } = logarithms();
    return withRuntime(Effect.gen(function* () {
      for (const [given, text] of [[{}, "none"], [{ "toy/w": row(1, 2) }, "[2]"]] as const) {
        const failed = yield* Effect.result(openTrainer(bytes, state, given));
        assert.ok(Result.isFailure(failed));
        assert.equal(failed.failure.message, `toy: toy/w: wanted [3], given ${text}`);
      }
    }));
  });
});
