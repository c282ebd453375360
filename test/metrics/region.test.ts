import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { regionDistance } from "../../src/metrics/region.ts";
import { normal } from "../../src/tensor/random.ts";
import type { Tensor } from "../../src/tensor/tensor.ts";

const [a, b] = [normal(1, [3, 2, 2, 4]), normal(2, [3, 2, 2, 4])];
const region = (...data: number[]): Tensor => ({ dims: [2, 4], data: Float32Array.from(data) });

describe("distance inside a region", () => {
  it("of the whole is the mean absolute difference of each row", () => {
    const got = regionDistance(a, b, region(1, 1, 1, 1, 1, 1, 1, 1));
    for (const [j, value] of got.entries()) {
      let sum = 0;
      for (let i = 16 * j; i < 16 * (j + 1); i++) sum += Math.abs(a.data[i] - b.data[i]);
      assert.ok(Math.abs(value - sum / 16) < 1e-6, `row ${j}`);
    }
  });

  it("sees its cells alone, in every channel, as much as each weighs", () => {
    const [value] = regionDistance(a, b, region(0, 0, 1, 0, 0, 0.5, 0, 0));
    const apart = (i: number) => Math.abs(a.data[i] - b.data[i]);
    assert.ok(Math.abs(value - (apart(2) + apart(10) + 0.5 * (apart(5) + apart(13))) / 3) < 1e-6);
  });

  it("is the same both ways, and 0 for equal pictures", () => {
    const r = region(1, 0, 0, 0, 0, 0, 0, 1);
    assert.deepEqual(regionDistance(a, b, r), regionDistance(b, a, r));
    assert.deepEqual(regionDistance(a, a, r), [0, 0, 0]);
  });
});
