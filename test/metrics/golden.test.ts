/** Every metric against its reference implementation (values made by test/golden/make_metrics.py). */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { describe, it } from "node:test";
import { patchCorrelation, pearson } from "../../src/metrics/correlation.ts";
import { auroc, detection } from "../../src/metrics/detection.ts";
import { clipScores, featureDistances } from "../../src/metrics/features.ts";
import { frechetDistance } from "../../src/metrics/frechet.ts";
import { bootstrap, wilson } from "../../src/metrics/intervals.ts";
import { maskIou } from "../../src/metrics/iou.ts";
import { normalQuantile } from "../../src/metrics/normal.ts";
import { psnr } from "../../src/metrics/psnr.ts";
import { quantile } from "../../src/metrics/quantile.ts";
import { ssim } from "../../src/metrics/ssim.ts";
import { eigenvalues } from "../../src/tensor/eigen.ts";
import { concat0, type Tensor, tensor } from "../../src/tensor/tensor.ts";

interface Golden {
  pictures: { dims: number[]; a: number[]; b: number[]; ssim: number; psnr: number }[];
  frechet: { dims: [number, number, number]; a: number[]; b: number[]; expected: number }[];
  eigen: { n: number; a: number[]; values: number[] };
  wilson: { successes: number; trials: number; confidence: number; low: number; high: number }[];
  scores: {
    truth: number[];
    scores: number[];
    cut: number;
    auroc: number;
    f1: number;
    precision: number;
    recall: number;
    iou: number;
  }[];
  statistics: {
    x: number[];
    y: number[];
    pearson: number;
    cosine: number;
    quantiles: [number, number][];
    bootstrap: [number, number];
    normalQuantile: [number, number][];
  };
  patches: {
    dims: number[];
    picture: number[];
    patchDims: number[];
    patch: number[];
    x: number;
    y: number;
    expected: number[];
  };
}
const golden: Golden = JSON.parse(readFileSync(new URL("../golden/metrics.json", import.meta.url), "utf8"));

const near = (actual: number, expected: number, tolerance: number) =>
  assert.ok(Math.abs(actual - expected) <= tolerance, `${actual} against ${expected}`);
const f32 = (values: readonly number[], dims: readonly number[]): Tensor => tensor(Float32Array.from(values), dims);

describe("picture metrics", () => {
  for (const { dims, a, b, ...expected } of golden.pictures) {
    it(`ssim and psnr are scikit-image's: ${dims}`, () => {
      near(ssim(f32(a, dims), f32(b, dims))[0], expected.ssim, 1e-6);
      near(psnr(f32(a, dims), f32(b, dims))[0], expected.psnr, 1e-5);
    });
    it(`a batch gives each picture its own figure: ${dims}`, () => {
      const one = f32(a, [1, ...dims]), other = f32(b, [1, ...dims]);
      const [first, second] = ssim(concat0([one, one]), concat0([other, one]));
      near(first, expected.ssim, 1e-6);
      assert.equal(second, 1);
      assert.equal(psnr(concat0([one, one]), concat0([other, one]))[1], Infinity);
    });
    it(`the range is a unit: 255-fold pictures have the same figures: ${dims}`, () => {
      const large = (values: number[]) => f32(values.map((v) => v * 255), dims);
      near(ssim(large(a), large(b), 255)[0], expected.ssim, 1e-6);
      near(psnr(large(a), large(b), 255)[0], expected.psnr, 1e-5);
    });
  }
  it("patchCorrelation is Pearson's r of the region with the patch", () => {
    const { dims, picture, patchDims, patch, x, y, expected } = golden.patches;
    const found = patchCorrelation(f32(picture, dims), f32(patch, patchDims), { x, y });
    expected.forEach((value, i) => near(found[i], value, 1e-6));
    assert.ok(found[1] > 0.9, "a pale patch correlates");
  });
  it("a patch that leaves the picture is refused, with the place", () => {
    const picture = f32(Array(16).fill(0), [1, 4, 4]), patch = f32([1, 2, 3, 4], [1, 2, 2]);
    assert.throws(() => patchCorrelation(picture, patch, { x: 3, y: 0 }), /at column 3, row 0 does not lie within/);
  });
  it("pictures below the window's size are refused", () => {
    const small = f32(Array(100).fill(0), [1, 10, 10]);
    assert.throws(() => ssim(small, small), /10 × 10 are smaller/);
  });
});

describe("features", () => {
  const { x, y, cosine } = golden.statistics;
  it("clip scores and feature distances are cosines, row by row", () => {
    const a = f32([...x, ...x], [2, 48]), b = f32([...y, ...x], [2, 48]);
    near(clipScores(a, b)[0], cosine, 1e-6);
    near(clipScores(a, b)[1], 1, 1e-12);
    near(featureDistances(a, b)[0], 1 - cosine, 1e-6);
  });
  it("length does not matter; a row of zeros has cosine 0", () => {
    const [scaled, none] = clipScores(
      f32([...x, ...x], [2, 48]),
      f32([...y.map((v) => 3 * v), ...Array(48).fill(0)], [2, 48]),
    );
    near(scaled, cosine, 1e-6);
    assert.equal(none, 0);
  });
  it("dims that differ are refused", () => {
    assert.throws(() => clipScores(f32(x, [1, 48]), f32(y, [2, 24])), /\[1, 48\] and \[2, 24\]/);
  });
  for (const { dims: [n, m, d], a, b, expected } of golden.frechet) {
    it(`frechetDistance is that of scipy's sqrtm: ${n} and ${m} rows of ${d}`, () => {
      const first = f32(a, [n, d]), second = f32(b, [m, d]);
      near(frechetDistance(first, second), expected, 1e-5 * expected);
      near(frechetDistance(second, first), expected, 1e-5 * expected);
      near(frechetDistance(first, first), 0, 1e-5);
    });
  }
  it("of two normals with one variable it is (μ₁ − μ₂)² + (σ₁ − σ₂)²", () => {
    near(frechetDistance(f32([-1, 1], [2, 1]), f32([1, 7], [2, 1])), 16 + (3 * Math.SQRT2 - Math.SQRT2) ** 2, 1e-9);
  });
  it("one row has no covariance", () => {
    assert.throws(() => frechetDistance(f32([1], [1, 1]), f32([1, 2], [2, 1])), /n, m ≥ 2/);
  });
  it("eigenvalues are numpy's", () => {
    const { n, a, values } = golden.eigen;
    eigenvalues(Float64Array.from(a), n).forEach((v, i) => near(v, values[i], 1e-12));
  });
});

describe("intervals", () => {
  for (const { successes, trials, confidence, low, high } of golden.wilson) {
    it(`wilson is scipy's: ${successes} of ${trials} at ${confidence}`, () => {
      const interval = wilson(successes, trials, confidence);
      near(interval.low, low, 1e-12);
      near(interval.high, high, 1e-12);
      assert.equal(interval.estimate, successes / trials);
      assert.ok(interval.low <= interval.estimate && interval.estimate <= interval.high);
    });
  }
  it("a rate that is none is refused", () => {
    for (const [k, n] of [[1, 0], [3, 2], [-1, 2], [0.5, 2]]) assert.throws(() => wilson(k, n), /no rate/);
  });
  it("bootstrap agrees with scipy's percentile interval, and is the same for the same seed", () => {
    const { y, bootstrap: [low, high] } = golden.statistics;
    const options = { confidence: 0.9, resamples: 20_000, seed: 1 };
    const interval = bootstrap(y, options);
    near(interval.low, low, 0.01); // Monte Carlo error; the interval is 0.6 wide
    near(interval.high, high, 0.01);
    assert.deepEqual(bootstrap(y, options), interval);
    assert.notDeepEqual(bootstrap(y, { ...options, seed: 2 }), interval);
  });
  it("bootstrap of another statistic, and of nothing", () => {
    const { estimate, low, high } = bootstrap([1, 2, 3, 4, 100], { statistic: (sample) => quantile(sample, 0.5) });
    assert.equal(estimate, 3);
    assert.ok(low >= 1 && high <= 100 && low < high);
    assert.throws(() => bootstrap([]), /no values/);
  });
  it("normalQuantile is scipy's norm.ppf", () => {
    for (const [p, expected] of golden.statistics.normalQuantile) {
      near(normalQuantile(p), expected, 1e-14 * Math.max(1, Math.abs(expected)) * 10);
    }
    assert.throws(() => normalQuantile(1), /between 0 and 1/);
  });
  it("quantile is numpy's default", () => {
    for (const [q, expected] of golden.statistics.quantiles) near(quantile(golden.statistics.x, q), expected, 1e-12);
    assert.throws(() => quantile([], 0.5), /no values/);
    assert.throws(() => quantile([1], 1.1), /1\.1/);
  });
});

describe("detection", () => {
  for (const { truth, scores, cut, ...expected } of golden.scores) {
    const isTrue = truth.map((t) => t === 1);
    it(`auroc, f1, precision, recall and IoU are scikit-learn's: ${truth.length} cases with ties`, () => {
      const of = (kind: boolean) => scores.filter((_, i) => isTrue[i] === kind);
      near(auroc(of(true), of(false)), expected.auroc, 1e-12);
      const found = detection(scores.map((s) => s > cut), isTrue);
      near(found.f1, expected.f1, 1e-12);
      near(found.precision, expected.precision, 1e-12);
      near(found.recall, expected.recall, 1e-12);
      assert.equal(
        found.truePositives + found.falsePositives + found.falseNegatives + found.trueNegatives,
        truth.length,
      );
      const n = truth.length;
      near(maskIou(f32(scores.map((s) => s > cut ? 1 : 0), [1, n]), f32(truth, [1, n])), expected.iou, 1e-12);
    });
  }
  it("pearson is scipy's, and 0 for a constant", () => {
    near(pearson(golden.statistics.x, golden.statistics.y), golden.statistics.pearson, 1e-12);
    assert.equal(pearson([1, 1, 1], [1, 2, 3]), 0);
  });
  it("auroc needs both kinds", () => assert.throws(() => auroc([], [1]), /0 positive/));
});
