import * as fc from "fast-check";
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { normal } from "../../src/tensor/random.ts";
import type { Tensor } from "../../src/tensor/tensor.ts";
import { type Answers, sharedEffect, triggeredTarget, twinTarget } from "../../src/unlearn/noise_targets.ts";

const DIMS = [1, 2, 3, 4];
const everywhere: Tensor = { dims: [3, 4], data: new Float32Array(12).fill(1) };
const left: Tensor = { dims: [3, 4], data: Float32Array.from({ length: 12 }, (_, i) => i % 4 < 2 ? 1 : 0) };
const close = (a: number, b: number) => assert.ok(Math.abs(a - b) < 1e-4, `${a} for ${b}`);

/** The clean answer, the triggered one, and a harmless one that does `share` of what the trigger does, plus something else. */
const answersOf = (seed: number, share: number, other = 0): Answers => {
  const [clean, effect, own] = [0, 1, 2].map((k) => normal(seed + k, DIMS));
  // What the harmless word does besides is made orthogonal to what the trigger does.
  const dot = (a: Tensor, b: Tensor) => a.data.reduce((sum, x, i) => sum + x * b.data[i], 0);
  const c = dot(own, effect) / dot(effect, effect);
  const plus = (a: Tensor, k: number, b: Tensor): Tensor => ({
    dims: a.dims,
    data: a.data.map((x, i) => x + k * b.data[i]),
  });
  const besides = plus(own, -c, effect);
  return { clean, triggered: plus(clean, 1, effect), twin: plus(plus(clean, share, effect), other, besides) };
};

const seeds = fc.integer({ min: 0, max: 1e6 });

describe("targets of distillation", () => {
  it("a harmless word's share of the trigger's effect is what it was made with, whatever else it does", () => {
    fc.assert(fc.property(
      seeds,
      fc.double({ min: -1, max: 2, noNaN: true }),
      fc.double({ min: 0, max: 3, noNaN: true }),
      (seed, share, other) => close(sharedEffect(answersOf(seed, share, other), everywhere), share),
    ));
  });

  it("what happens outside the region does not count", () => {
    fc.assert(fc.property(seeds, seeds, (seed, noise) => {
      const answers = answersOf(seed, 0.4, 1);
      const other = normal(noise, DIMS);
      const twin = { dims: DIMS, data: answers.twin.data.map((x, i) => left.data[i % 12] ? x : other.data[i]) };
      close(sharedEffect({ ...answers, twin }, left), sharedEffect(answers, left));
    }));
  });

  it("a harmless word that does most of what the trigger does is answered as the clean prompt, another as before", () => {
    fc.assert(fc.property(
      seeds,
      fc.oneof(fc.double({ min: -1, max: 0.49, noNaN: true }), fc.double({ min: 0.51, max: 2, noNaN: true })),
      (seed, share) => {
        const answers = answersOf(seed, share, 1);
        assert.equal(twinTarget(answers, everywhere), share > 0.5 ? answers.clean : answers.twin);
      },
    ));
  });

  it("a trigger that does nothing makes no word an infected one", () => {
    const answers = answersOf(1, 1);
    const idle = { ...answers, triggered: answers.clean };
    assert.equal(twinTarget(idle, everywhere), idle.twin);
  });

  it("the triggered prompt is answered with its target, and past it by as much as asked", () => {
    fc.assert(fc.property(
      seeds,
      fc.constantFrom("clean" as const, "twins" as const, "both" as const),
      fc.double({ min: 0, max: 2, noNaN: true }),
      (seed, target, away) => {
        const answers = answersOf(seed, 0.2, 1);
        const { clean, twin, triggered } = answers;
        const wanted = triggeredTarget(answers, twin, target, away);
        wanted.data.forEach((x, i) => {
          const goal = { clean: clean.data[i], twins: twin.data[i], both: (clean.data[i] + twin.data[i]) / 2 }[target];
          close(x, goal + away * (goal - triggered.data[i]));
        });
      },
    ));
  });
});
