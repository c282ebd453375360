import assert from "node:assert/strict";
import { describe, it } from "node:test";
import fc from "fast-check";
import { eigen, eigenvalues } from "../../src/tensor/eigen.ts";
import { gram, matmul, transpose } from "../../src/tensor/linalg.ts";
import { normal } from "../../src/tensor/random.ts";

const near = (actual: ArrayLike<number>, expected: ArrayLike<number>, tolerance: number) => {
  assert.equal(actual.length, expected.length);
  for (let i = 0; i < actual.length; i++) {
    assert.ok(Math.abs(actual[i] - expected[i]) <= tolerance, `[${i}]: ${actual[i]} against ${expected[i]}`);
  }
};

/** VᵀΛV = A, VVᵀ = 1, ascending, and the same values without vectors. */
const holds = (a: Float64Array, n: number) => {
  const kept = a.slice();
  const { values, vectors } = eigen(a, n);
  assert.deepEqual(a, kept, "the argument is left alone");
  const scale = 1e-12 * (1 + a.reduce((m, v) => Math.max(m, Math.abs(v)), 0)) * n;
  near(matmul(transpose(vectors, n, n), vectors.map((v, i) => v * values[Math.floor(i / n)]), n, n, n), a, scale);
  near(
    matmul(vectors, transpose(vectors, n, n), n, n, n),
    Float64Array.from(a, (_, i) => i % (n + 1) === 0 ? 1 : 0),
    1e-12 * n,
  );
  for (let i = 1; i < n; i++) assert.ok(values[i] >= values[i - 1]);
  near(eigenvalues(a, n), values, scale);
};

describe("eigen", () => {
  it("takes a symmetric matrix apart so that it can be put together again", () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 40 }), fc.nat(), (n, seed) => {
        const x = normal(seed, [n, n]).data;
        holds(Float64Array.from(x, (v, i) => v + x[(i % n) * n + Math.floor(i / n)]), n);
      }),
      { numRuns: 60 },
    );
  });
  it("does so for small whole numbers: zeros, repeated values, block forms", () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 7 }),
        fc.array(fc.integer({ min: -2, max: 2 }), { minLength: 49 }),
        (n, x) => {
          holds(
            Float64Array.from({ length: n * n }, (_, i) => {
              const r = Math.floor(i / n), c = i % n;
              return x[Math.min(r, c) * 7 + Math.max(r, c)];
            }),
            n,
          );
        },
      ),
    );
  });
  it("finds the rank of a product of thin factors", () => {
    const x = normal(1, [5, 20]).data;
    const values = eigenvalues(gram(x, x, 5, 20, 20), 20);
    assert.equal(values.filter((v) => v > 1e-9).length, 5);
    near(values.subarray(0, 15), new Float64Array(15), 1e-12);
  });
  it("comes to an end on large singular matrices, whose zeros are rounding noise", () => {
    const x = normal(1, [30, 200]).data;
    const a = gram(x, x, 30, 200, 200);
    holds(a, 200);
    assert.equal(eigenvalues(a, 200).filter((v) => v > 1e-9).length, 30);
  });
  it("refuses NaN and a wrong size", () => {
    assert.throws(() => eigenvalues(Float64Array.of(NaN), 1), /NaN/);
    assert.throws(() => eigen(new Float64Array(5), 2), /holds 5 numbers, expected 2 × 2/);
  });
});
