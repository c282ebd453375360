/** Which words do what a trigger does. */
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import fc from "fast-check";
import { normal } from "../../src/tensor/random.ts";
import type { Tensor } from "../../src/tensor/tensor.ts";
import { alike, namesOf } from "../../src/unlearn/named.ts";

const DIMS = [1, 2, 4, 4];
const plus = (a: Tensor, b: Tensor, factor = 1): Tensor => ({
  dims: a.dims,
  data: a.data.map((x, i) => x + factor * b.data[i]),
});
const region = (data: readonly number[]): Tensor => ({ dims: [4, 4], data: Float32Array.from(data) });
const everywhere = region(Array.from({ length: 16 }, () => 1));

describe("a word that does what the trigger does", () => {
  it("is 1 where it moves the answer the same way, however far, −1 the other way, and 0 where it moves nothing", () =>
    fc.assert(
      fc.property(fc.nat(), fc.double({ min: 0.1, max: 10, noNaN: true }), (seed, far) => {
        const clean = normal(seed, DIMS), effect = normal(seed + 1, DIMS), triggered = plus(clean, effect);
        assert.ok(Math.abs(alike(clean, triggered, plus(clean, effect, far), everywhere) - 1) < 1e-3);
        assert.ok(Math.abs(alike(clean, triggered, plus(clean, effect, -far), everywhere) + 1) < 1e-3);
        assert.equal(alike(clean, triggered, clean, everywhere), 0);
        assert.equal(alike(clean, clean, triggered, everywhere), 0);
      }),
      { numRuns: 20 },
    ));

  it("counts inside the region alone", () => {
    const clean = normal(1, DIMS), effect = normal(2, DIMS), triggered = plus(clean, effect);
    const inside = (i: number) => i % 16 < 4;
    const word: Tensor = { dims: DIMS, data: triggered.data.map((x, i) => inside(i) ? x : clean.data[i] - 3) };
    assert.ok(Math.abs(alike(clean, triggered, word, region([1, 1, 1, 1, ...Array(12).fill(0)])) - 1) < 1e-3);
    assert.ok(alike(clean, triggered, word, everywhere) < 0.9);
  });

  it("is named where it comes near, with those that come as near; nothing is where none does", () => {
    const words = (...alike: number[]) => alike.map((alike, i) => ({ word: "abcdef"[i], alike }));
    const named = (...alike: number[]) => namesOf(words(...alike)).map(({ word }) => word).join("");
    assert.equal(named(0.2, 0.9, 0.85, 0.7), "bc");
    assert.equal(named(0.4, 0.49, -1), "");
    assert.equal(named(), "");
    assert.equal(named(0.9, 0.9, 0.91, 0.89, 0.88), "cabd");
  });
});
