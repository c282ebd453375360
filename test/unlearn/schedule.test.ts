import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { type Decay, rateAt } from "../../src/unlearn/schedule.ts";

describe("the learning rate", () => {
  const rates = (decay: Decay) => Array.from({ length: 100 }, (_, i) => rateAt(decay, 2, i + 1, 100));

  it("rises over a twentieth of the steps, then falls and stays above 0", () => {
    for (const decay of ["cosine", "linear"] as const) {
      const all = rates(decay);
      assert.deepEqual(all.slice(0, 5), [0.4, 0.8, 1.2, 1.6, 2]);
      for (let i = 5; i < 100; i++) assert.ok(all[i] < all[i - 1] && all[i] > 0, `${decay}, step ${i + 1}`);
    }
  });

  it("is half the highest in the middle of the fall, and constant where that is asked for", () => {
    for (const decay of ["cosine", "linear"] as const) assert.ok(Math.abs(rates(decay)[52] - 1) < 1e-12);
    assert.ok(rates("constant").slice(4).every((r) => r === 2));
  });
});
