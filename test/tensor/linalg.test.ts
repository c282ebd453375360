import assert from "node:assert/strict";
import { describe, it } from "node:test";
import fc from "fast-check";
import { cholesky, gram, matmul, NotPositiveDefinite, solve, transpose } from "../../src/tensor/linalg.ts";
import { normal } from "../../src/tensor/random.ts";

/** The definition, term by term. */
const naive = (a: ArrayLike<number>, b: ArrayLike<number>, m: number, k: number, n: number): number[] =>
  Array.from({ length: m * n }, (_, at) => {
    const i = Math.floor(at / n), j = at % n;
    let sum = 0;
    for (let p = 0; p < k; p++) sum += a[i * k + p] * b[p * n + j];
    return sum;
  });

const near = (actual: ArrayLike<number>, expected: ArrayLike<number>, tolerance: number) => {
  assert.equal(actual.length, expected.length);
  for (let i = 0; i < actual.length; i++) {
    assert.ok(Math.abs(actual[i] - expected[i]) <= tolerance, `[${i}]: ${actual[i]} against ${expected[i]}`);
  }
};

const side = fc.integer({ min: 1, max: 70 }); // beyond two blocks, and every remainder of the tiles

describe("matmul, gram, transpose", () => {
  it("matmul is the sum of products, in float64, for float32 and float64 input", () => {
    fc.assert(
      fc.property(side, side, side, fc.boolean(), (m, k, n, double) => {
        const a = normal(1, [m, k]).data, b = normal(2, [k, n]).data;
        near(matmul(double ? new Float64Array(a) : a, b, m, k, n), naive(a, b, m, k, n), 1e-12);
      }),
      { numRuns: 60 },
    );
  });
  it("of matrices beyond every block of the kernel, to the last row and column", () => {
    for (const [m, k, n] of [[3, 1300, 5], [131, 517, 7], [5, 259, 1030], [65, 257, 513]]) {
      const a = normal(1, [m, k]).data, b = normal(2, [k, n]).data;
      near(matmul(a, b, m, k, n), naive(a, b, m, k, n), 1e-10);
      near(gram(a, a, m, k, k), naive(transpose(a, m, k), a, k, m, k), 1e-10);
    }
  });
  it("gram(A, B) = AᵀB", () => {
    fc.assert(
      fc.property(side, side, side, (rows, n, k) => {
        const a = normal(1, [rows, n]).data, b = normal(2, [rows, k]).data;
        near(gram(a, b, rows, n, k), naive(transpose(a, rows, n), b, n, rows, k), 1e-12);
        near(gram(a, a, rows, n, n), naive(transpose(a, rows, n), a, n, rows, n), 1e-12);
      }),
      { numRuns: 60 },
    );
  });
  it("says which sizes do not fit", () => {
    assert.throws(() => matmul(new Float64Array(5), new Float64Array(6), 2, 3, 2), /left factor holds 5 .* 2 × 3/);
  });
});

describe("cholesky and solve", () => {
  it("A = LLᵀ with L lower, and A·solve(B) = B", () => {
    fc.assert(
      fc.property(side, fc.integer({ min: 1, max: 9 }), fc.nat(), (n, columns, seed) => {
        const x = normal(seed, [n + 5, n]).data;
        const a = gram(x, x, n + 5, n, n);
        for (let i = 0; i < n; i++) a[i * n + i] += 1; // well conditioned
        const l = cholesky(a, n);
        for (let i = 0; i < n; i++) for (let j = i + 1; j < n; j++) assert.equal(l[i * n + j], 0);
        near(matmul(l, transpose(l, n, n), n, n, n), a, 1e-10);
        const b = normal(seed + 1, [n, columns]).data;
        const kept = b.slice();
        near(matmul(a, solve(l, n, b, columns), n, n, columns), b, 1e-8);
        assert.deepEqual(b, kept);
      }),
      { numRuns: 60 },
    );
  });
  it("names the row when the matrix is not positive definite, and finds NaN", () => {
    const indefinite = Float64Array.of(4, 2, 2, 1); // singular: the second pivot is 0
    assert.throws(
      () => cholesky(indefinite, 2),
      (e) => e instanceof NotPositiveDefinite && e.row === 1 && e.pivot === 0,
    );
    assert.throws(() => cholesky(Float64Array.of(-1), 1), /row 0 is -1/);
    assert.throws(() => cholesky(Float64Array.of(NaN), 1), /NaN/);
    assert.throws(() => cholesky(Float64Array.of(1, 2, 3), 2), /holds 3 numbers, expected 2 × 2/);
  });
});
