/** The loop of the strategies that train, with steps and checks that are written down: which weights it takes, and when it ends. */
import assert from "node:assert/strict";
import { Effect } from "effect";
import { describe, it } from "node:test";
import { NotFinite, RuntimeError } from "../../src/runtime/mod.ts";
import { explainTraining, train } from "../../src/steps/unlearn_train.ts";

const settings = {
  steps: 6,
  batch: 2,
  rate: 1e-3,
  decay: "constant",
  clipNorm: 1,
  keep: 1,
  segments: 1,
} as const;

/** A check after every second step; `left` is what is left of the trigger at each of them. */
const trained = (
  left: readonly number[],
  broken = Infinity,
  error: typeof NotFinite | typeof RuntimeError = NotFinite,
  all = 6,
  rates: number[] = [],
  last = false,
) => {
  let steps = 0, checks = 0;
  const weights = () => new Map([["w", { dims: [1], data: Float32Array.of(steps) }]]);
  return train({
    name: "unlearn",
    settings: { ...settings, steps: all },
    data: () => ({}),
    trainer: {
      start: weights(),
      own: weights(),
      memory: { weights: 0, values: 0, peak: 0 } as never,
      step: (rate) => {
        rates.push(rate);
        return steps + 1 === broken
          ? Effect.fail(new error({ model: "toy", message: `toy: the loss is NaN at step ${broken}` }))
          : Effect.sync(() => ({ step: ++steps, loss: 1 / steps, gradientNorm: 1 }));
      },
      read: () => Effect.sync(weights),
    },
    checks: {
      every: 2,
      trusted: true,
      last,
      draw: () => {
        const outside = left[checks++];
        return Effect.succeed({ outside, shown: 0, excess: outside, left: outside, drift: 0 });
      },
    },
  });
};

describe("training", () => {
  it("takes the weights of the best check", async () => {
    const { weights, account } = await Effect.runPromise(trained([0.9, 0.3, 0.6]));
    assert.equal(account.taken, 4);
    assert.deepEqual([...weights.get("w")!.data], [4]);
    assert.equal(account.losses.length, 6);
  });

  it("when two checks in a row hold, the rate falls to nothing, and it ends", async () => {
    const rates: number[] = [];
    const { account } = await Effect.runPromise(trained([0.02, 0.02, 0.01], Infinity, NotFinite, 12, rates));
    assert.equal(account.stopped, true);
    assert.equal(account.losses.length, 6);
    assert.equal(account.taken, 6);
    assert.deepEqual(rates.map((r) => r / settings.rate), [1, 1, 1, 1, 2 / 3, 1 / 3]);
  });

  it("keeps what held before where the last check is worse", async () => {
    const { account } = await Effect.runPromise(trained([0.01, 0.01, 0.9], Infinity, NotFinite, 12));
    assert.equal(account.losses.length, 6);
    assert.equal(account.taken, 4);
  });

  it("takes the last weights where these are asked for, be earlier ones better by a few pictures", async () => {
    const { account } = await Effect.runPromise(trained([0.2, 0.1, 0.3], Infinity, NotFinite, 6, [], true));
    assert.equal(account.taken, 6);
  });

  it("does not go beyond its steps for that", async () => {
    const { account } = await Effect.runPromise(trained([0.9, 0.01, 0.01, 0.01]));
    assert.equal(account.losses.length, 6);
    assert.equal(account.stopped, true);
  });

  it("a step that is no number ends it with the best weights until then, and it says so", async () => {
    const { weights, account } = await Effect.runPromise(trained([0.9, 0.3], 6));
    assert.deepEqual([...weights.get("w")!.data], [4]);
    assert.equal(account.losses.length, 5);
    assert.match(explainTraining(account), /broke off after 5 of 6 steps \(toy: the loss is NaN at step 6\)/);
  });

  it("a device that fails is no reason to go on with them", async () => {
    const error = await Effect.runPromise(Effect.flip(trained([0.9, 0.3], 6, RuntimeError)));
    assert.match(error.message, /step "unlearn" failed/);
  });

  it("where no check was made before, it fails", async () => {
    const error = await Effect.runPromise(Effect.flip(trained([], 2)));
    assert.match(error.message, /step "unlearn" failed: .*NaN at step 2/);
  });
});
