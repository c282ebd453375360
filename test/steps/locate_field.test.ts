import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { normal } from "../../src/tensor/random.ts";
import type { Tensor } from "../../src/tensor/tensor.ts";
import { readingDistance } from "../../src/steps/capture.ts";
import { locateFields, tokenScores, usableTwins } from "../../src/steps/locate_field.ts";

const [S, P, R, C, H, W] = [2, 6, 5, 4, 8, 8];
const every = Array.from({ length: P }, () => [true, true, true]);

/** Noise of readings that differ at random by 0.1; the triggered one by `effect` more in the top left 2 × 2 cells. */
const planted = (effect: number): Tensor => {
  const base = normal(1, [S, P, 1, C, H, W]).data;
  const own = normal(2, [S, P, R, C, H, W]).data;
  const size = C * H * W;
  const data = own.map((x, i) => {
    const sp = Math.floor(i / (R * size)), reading = Math.floor(i / size) % R, cell = i % (H * W);
    const inside = cell % W < 2 && Math.floor(cell / W) < 2;
    return base[sp * size + (i % size)] + (reading === 0 ? 0 : 0.1 * x) + (reading === 1 && inside ? effect : 0);
  });
  return { dims: [S, P, R, C, H, W], data };
};

describe("locating", () => {
  it("a planted effect stands out where it was planted, and nowhere else", () => {
    const { pooled, prompts } = locateFields(planted(1), every);
    pooled.data.forEach((x, i) => {
      const inside = i % W < 2 && Math.floor(i / W) < 2;
      assert.equal(x > 2, inside, `cell ${i}: ${x}`);
    });
    assert.deepEqual(prompts.dims, [P, H, W]);
  });

  it("without a trigger the field is near 0 everywhere", () => {
    for (const x of locateFields(planted(0), every).pooled.data) assert.ok(Math.abs(x) < 1.2, `${x}`);
  });

  it("the order of prompts does not matter", () => {
    const noise = planted(1);
    const size = R * C * H * W;
    const turned = noise.data.slice();
    for (let s = 0; s < S; s++) {
      for (let p = 0; p < P; p++) {
        turned.set(noise.data.subarray((s * P + p) * size, (s * P + p + 1) * size), (s * P + P - 1 - p) * size);
      }
    }
    const [a, b] = [locateFields(noise, every).pooled, locateFields({ dims: noise.dims, data: turned }, every).pooled];
    a.data.forEach((x, i) => assert.ok(Math.abs(x - b.data[i]) < 1e-4));
  });

  it("distances are 0 for a reading and itself, and the same both ways", () => {
    const noise = planted(1);
    assert.ok(readingDistance(noise, 2, 2).data.every((x) => x === 0));
    assert.deepEqual(readingDistance(noise, 1, 2).data, readingDistance(noise, 2, 1).data);
  });
});

describe("twins that show the backdoor themselves", () => {
  it("are left out, and only they", () => {
    const noise = planted(0);
    const size = C * H * W;
    // Twin 1 of prompt 4 parts from its clean reading by ten times what twins do.
    for (let s = 0; s < S; s++) {
      const at = ((s * P + 4) * R + 3) * size;
      for (let i = 0; i < size; i++) noise.data[at + i] += 1;
    }
    const use = usableTwins(noise, 3.5);
    assert.deepEqual(use.map((row, p) => row.map((x, k) => x === !(p === 4 && k === 1))).flat().every((x) => x), true);
  });
});

describe("token scores", () => {
  it("compare the change inside the region alone", () => {
    const region: Tensor = { dims: [1, 2], data: Float32Array.of(1, 0) };
    const triggered: Tensor = { dims: [2, 1, 2], data: Float32Array.of(8, 1, 1, 9) };
    const twin: Tensor = { dims: [2, 1, 2], data: Float32Array.of(1, 1, 1, 1) };
    const [first, second] = tokenScores(triggered, twin, region);
    assert.ok(Math.abs(first - Math.log(8)) < 1e-6);
    assert.ok(Math.abs(second) < 1e-6);
  });
});
