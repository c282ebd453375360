import assert from "node:assert/strict";
import { describe, it } from "node:test";
import fc from "fast-check";
import { evenBatch } from "../../src/diffusion/networks.ts";

describe("batches", () => {
  it("hold no more than they may, fill every lane, and waste less than a batch a lane", () => {
    const count = fc.integer({ min: 1, max: 400 });
    fc.assert(fc.property(count, fc.integer({ min: 1, max: 16 }), fc.integer({ min: 1, max: 8 }), (n, most, lanes) => {
      const batch = evenBatch(n, most, lanes);
      assert.ok(Number.isInteger(batch) && batch >= 1 && batch <= most);
      const batches = Math.ceil(n / batch);
      // No lane computes longer than with full batches.
      assert.ok(Math.ceil(batches / lanes) * batch <= Math.ceil(n / most / lanes) * most);
      assert.ok(batches >= Math.min(n, lanes) || batches * batch - n < lanes, `${n} in ${batches} of ${batch}`);
    }));
  });

  it("of one lane come out even: six rows where five fit are two threes", () => {
    assert.equal(evenBatch(6, 5, 1), 3);
    assert.equal(evenBatch(8, 8, 2), 4);
  });
});
