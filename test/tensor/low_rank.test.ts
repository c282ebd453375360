import assert from "node:assert/strict";
import { describe, it } from "node:test";
import fc from "fast-check";
import { matmul } from "../../src/tensor/linalg.ts";
import { lowRank } from "../../src/tensor/low_rank.ts";
import { normal } from "../../src/tensor/random.ts";
import type { Tensor } from "../../src/tensor/tensor.ts";

const D = 12;
/** Matrices whose rows all lie in one space of `rank` dimensions, plus noise. */
const planted = (seed: number, outs: readonly number[], rank: number, noise: number): Tensor[] => {
  const space = normal(seed, [rank, D]).data;
  return outs.map((out, i) => {
    const own = normal(seed + 10 + i, [out, rank]).data, rest = normal(seed + 50 + i, [out, D]).data;
    const product = matmul(own, space, out, rank, D);
    return { dims: [out, D], data: Float32Array.from(product, (x, j) => x + noise * rest[j]) };
  });
};
const square = (a: ArrayLike<number>) => Array.from(a).reduce((sum, x) => sum + x * x, 0);
const errorOf = (matrices: readonly Tensor[], tolerance: number) => {
  const { up, down } = lowRank(matrices, tolerance);
  const apart = matrices.map(({ data, dims: [out] }, i) => {
    const product = matmul(up[i].data, down.data, out, down.dims[0], D);
    return square(data.map((x, j) => x - product[j]));
  });
  return {
    rank: down.dims[0],
    error: apart.reduce((a, b) => a + b, 0) / matrices.reduce((n, m) => n + square(m.data), 0),
  };
};

describe("low rank", () => {
  it("finds the rank that was planted, and the matrices come back", () => {
    fc.assert(fc.property(fc.integer({ min: 1, max: 1e6 }), fc.integer({ min: 1, max: 5 }), (seed, rank) => {
      const { rank: found, error } = errorOf(planted(seed, [7, 9, 20], rank, 0), 1e-4);
      assert.ok(found <= rank && error < 1e-7, `rank ${found} of ${rank}, error ${error}`);
    }));
  });

  it("keeps the tolerance, with no rank more than that takes", () => {
    for (const tolerance of [0.05, 0.2, 0.5]) {
      const matrices = planted(3, [8, 30], 3, 0.05);
      const { rank, error } = errorOf(matrices, tolerance);
      assert.ok(error <= tolerance ** 2 * 1.0001 && rank < D, `rank ${rank}, error ${error}`);
      const { rank: less } = errorOf(matrices, Math.sqrt(error) * 1.01);
      assert.equal(less, rank);
    }
  });

  it("of nothing is of rank 0, and matrices of different widths are refused", () => {
    assert.deepEqual(lowRank([{ dims: [3, 2], data: new Float32Array(6) }], 0.01).down.dims, [0, 2]);
    const other = { dims: [3, 4], data: new Float32Array(12) };
    assert.throws(
      () => lowRank([{ dims: [3, 2], data: new Float32Array(6) }, other], 0.01),
      /\[3, 2\], \[3, 4\] differ/,
    );
  });
});
