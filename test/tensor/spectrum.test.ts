import assert from "node:assert/strict";
import { describe, it } from "node:test";
import fc from "fast-check";
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { addDifference, noDifference, roundingVariance } from "../../src/tensor/difference.ts";
import { matmul } from "../../src/tensor/linalg.ts";
import { addValues, noMoments, rmsOf } from "../../src/tensor/moments.ts";
import { normal } from "../../src/tensor/random.ts";
import { rankFor, spectrum } from "../../src/tensor/spectrum.ts";

interface Golden {
  readonly exact: ReadonlyArray<{ readonly m: number; readonly n: number; readonly energies: readonly number[] }>;
  readonly decaying: ReadonlyArray<
    {
      readonly m: number;
      readonly n: number;
      readonly count: number;
      readonly base: number;
      readonly energies: readonly number[];
    }
  >;
}
const golden: Golden = JSON.parse(
  readFileSync(fileURLToPath(new URL("../golden/inspect.json", import.meta.url)), "utf8"),
);

// The matrices of test/golden/make_inspect.py.
const pattern = (m: number, n: number): Float32Array =>
  Float32Array.from({ length: m * n }, (_, at) => {
    const [i, j] = [Math.floor(at / n), at % n];
    return (i * 31 + j * 17 + i * j * 7 + i * i * 3) % 101 - 50;
  });
const decaying = (m: number, n: number, count: number, base: number): Float32Array => {
  const out = new Float64Array(m * n);
  for (let k = 0; k < count; k++) {
    for (let i = 0; i < m; i++) {
      const u = ((i * (2 * k + 3) + k) % 97 - 48) / 48 * base ** -k;
      for (let j = 0; j < n; j++) out[i * n + j] += u * ((j * (2 * k + 5) + 3 * k) % 89 - 44) / 44;
    }
  }
  return new Float32Array(out);
};

/** A random matrix of a rank, with noise. */
const planted = (seed: number, m: number, n: number, rank: number, noise: number): Float32Array => {
  const left = normal(seed, [m, rank]).data,
    right = normal(seed + 1, [rank, n]).data,
    rest = normal(seed + 2, [m, n]).data;
  return Float32Array.from(matmul(left, right, m, rank, n), (x, i) => x + noise * rest[i]);
};

describe("spectrum", () => {
  it("all singular values of small matrices are numpy's", () => {
    for (const { m, n, energies } of golden.exact) {
      const found = spectrum(pattern(m, n), m, n);
      assert.ok(found.exact);
      assert.equal(found.energies.length, Math.min(m, n));
      energies.forEach((e, i) => assert.ok(Math.abs(found.energies[i] - e) <= 1e-9 * energies[0], `${m}×${n} ${i}`));
    }
  });

  it("the largest singular values of large ones are numpy's, by a sketch", () => {
    for (const { m, n, count, base, energies } of golden.decaying) {
      const found = spectrum(decaying(m, n, count, base), m, n);
      assert.ok(!found.exact);
      assert.ok(Math.abs(found.total / energies.reduce((a, b) => a + b, 0) - 1) < 1e-3);
      for (let i = 0; i < Math.min(6, found.energies.length); i++) {
        assert.ok(
          Math.abs(found.energies[i] / energies[i] - 1) < 1e-5,
          `${m}×${n} ${i}: ${found.energies[i]} ${energies[i]}`,
        );
      }
      for (const share of [0.9, 0.99]) {
        let held = 0;
        const goal = share * energies.reduce((a, b) => a + b, 0);
        const rank = energies.findIndex((e) => (held += e) >= goal) + 1;
        assert.equal(rankFor(found, share), rank, `${m}×${n}, ${share}`);
      }
    }
  });

  it("finds the rank that was planted, exactly and by a sketch, and calls noise beyond it noise", () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 1e6 }),
        fc.integer({ min: 1, max: 20 }),
        fc.constantFrom([40, 30] as const, [200, 230] as const, [230, 200] as const),
        (seed, rank, [m, n]) => {
          assert.equal(rankFor(spectrum(planted(seed, m, n, rank, 0), m, n, [0.9999999]), 0.9999999), rank);
          const noise = 0.02;
          const noisy = spectrum(planted(seed, m, n, rank, noise), m, n, [0.9999], noise * noise * m * n);
          const found = rankFor(noisy, 0.9999, noise * noise * m * n);
          assert.ok(found !== undefined && found <= rank, `${found} of ${rank}`);
        },
      ),
      { numRuns: 12 },
    );
  });

  it("says that a rank is out of reach where many directions are needed", () => {
    const full = spectrum(normal(3, [300, 400]).data, 300, 400);
    assert.equal(full.exact, false);
    assert.equal(rankFor(full, 0.99), undefined);
    // The quick sketch was enough to know.
    assert.equal(full.energies.length, 0);
  });

  it("is not put off by a flat tail: the few directions that matter are counted", () => {
    const [m, n] = [400, 500];
    for (const rank of [5, 40]) {
      const signal = planted(7, m, n, rank, 0), noise = normal(8, [m, n]).data;
      const size = (x: Float32Array) => x.reduce((sum, v) => sum + v * v, 0);
      // 0.5 % of the whole is noise of full rank: 99 % can be had in few directions, 99.99 % cannot.
      const scale = Math.sqrt(0.005 * size(signal) / size(noise));
      const found = spectrum(signal.map((x, i) => x + scale * noise[i]), m, n);
      assert.ok((rankFor(found, 0.99) ?? Infinity) <= rank, `${rankFor(found, 0.99)} of ${rank}`);
      assert.equal(rankFor(found, 0.9999), undefined);
    }
  });

  it("of nothing is empty, and what is no matrix or not finite is refused", () => {
    const nothing = spectrum(new Float32Array(12), 3, 4);
    assert.equal(rankFor(nothing, 0.99), 0);
    assert.throws(() => spectrum(new Float32Array(5), 2, 3), /no matrix \[2, 3\]/);
    assert.throws(() => spectrum(Float32Array.of(1, NaN, 2, 3), 2, 2), /NaN or infinite/);
  });
});

describe("difference", () => {
  it("what float16 does to float32 values is rounding, a change of the size of a step is not", () => {
    fc.assert(fc.property(fc.integer(), fc.constantFrom(1e-3, 1, 300), (seed, size) => {
      const a = normal(seed, [3000]).data.map((x) => x * size);
      const rounded = noDifference();
      addDifference(rounded, a, new Float32Array(new Float16Array(a)), roundingVariance("F16"));
      const ratio = rounded.squares / rounded.rounding;
      assert.ok(ratio > 0.8 && ratio < 1.25, `${ratio}`);
      const half = new Float32Array(new Float16Array(a));
      const moved = noDifference();
      addDifference(
        moved,
        half,
        new Float32Array(new Float16Array(half.map((x) => x * 1.003))),
        roundingVariance("F16"),
      );
      assert.ok(moved.squares > 3 * moved.rounding);
    }));
  });

  it("leaves b − a behind and counts what is not finite apart", () => {
    const sums = noDifference();
    const b = Float32Array.of(2, 2, NaN, Infinity, 5);
    addDifference(sums, Float32Array.of(1, 2, 3, 4, 7), b, roundingVariance("F32"));
    assert.deepEqual([...b], [1, 0, 0, 0, -2]);
    assert.deepEqual([sums.count, sums.changed, sums.unknown, sums.squares, sums.base], [5, 2, 2, 5, 54]);
  });
});

describe("moments", () => {
  it("are the same in pieces and in one, and leave out what is not finite", () => {
    const values = [3, -4, 0, NaN, Infinity, -Infinity, 5, 0];
    fc.assert(fc.property(fc.integer({ min: 0, max: 8 }), (cut) => {
      const m = noMoments();
      addValues(m, Float32Array.from(values.slice(0, cut)));
      addValues(m, Float32Array.from(values.slice(cut)));
      assert.deepEqual(m, { count: 8, nan: 1, infinite: 2, zeros: 2, min: -4, max: 5, sum: 4, squares: 50 });
      assert.equal(rmsOf(m), Math.sqrt(10));
    }));
  });
});
