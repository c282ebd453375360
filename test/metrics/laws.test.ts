/** What holds of the metrics whatever the values. */
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import fc from "fast-check";
import { pearson } from "../../src/metrics/correlation.ts";
import { auroc, detection } from "../../src/metrics/detection.ts";
import { bootstrap, wilson } from "../../src/metrics/intervals.ts";
import { boxIou, maskIou } from "../../src/metrics/iou.ts";
import { normalQuantile } from "../../src/metrics/normal.ts";
import { ssim } from "../../src/metrics/ssim.ts";
import { integers, normal } from "../../src/tensor/random.ts";
import { tensor } from "../../src/tensor/tensor.ts";
import { fieldsArbitrary, masksArbitrary } from "../../src/testing/mod.ts";

const near = (a: number, b: number, tolerance = 1e-9) => assert.ok(Math.abs(a - b) <= tolerance, `${a} against ${b}`);
const box = fc.record({
  x: fc.integer({ min: 0, max: 8 }),
  y: fc.integer({ min: 0, max: 8 }),
  width: fc.integer({ min: 1, max: 8 }),
  height: fc.integer({ min: 1, max: 8 }),
});

describe("overlap", () => {
  it("boxIou is maskIou of the boxes drawn", () => {
    const draw = ({ x, y, width, height }: { x: number; y: number; width: number; height: number }) =>
      tensor(
        Float32Array.from({ length: 256 }, (_, i) => {
          const cx = i % 16, cy = Math.floor(i / 16);
          return cx >= x && cx < x + width && cy >= y && cy < y + height ? 1 : 0;
        }),
        [16, 16],
      );
    fc.assert(fc.property(box, box, (a, b) => near(boxIou(a, b), maskIou(draw(a), draw(b)))));
  });
  it("is symmetric, within 0 and 1, and 1 with itself, empty or not", () => {
    fc.assert(fc.property(masksArbitrary(2), ([a, b]) => {
      const iou = maskIou(a, b);
      assert.equal(iou, maskIou(b, a));
      assert.ok(iou >= 0 && iou <= 1);
      assert.equal(maskIou(a, a), 1);
    }));
  });
});

describe("detection", () => {
  const scores = fc.array(fc.integer({ min: 0, max: 9 }), { minLength: 1, maxLength: 30 });
  it("auroc is the part of pairs in the right order, ties half", () => {
    fc.assert(fc.property(scores, scores, (up, down) => {
      let wins = 0;
      for (const p of up) for (const n of down) wins += p > n ? 1 : p === n ? 0.5 : 0;
      near(auroc(up, down), wins / (up.length * down.length));
      near(auroc(up, down) + auroc(down, up), 1);
    }));
  });
  it("f1 lies between precision and recall", () => {
    fc.assert(fc.property(fc.array(fc.tuple(fc.boolean(), fc.boolean())), (cases) => {
      const { precision, recall, f1 } = detection(cases.map(([f]) => f), cases.map(([, t]) => t));
      assert.ok(f1 >= Math.min(precision, recall) - 1e-12 && f1 <= Math.max(precision, recall) + 1e-12);
    }));
  });
});

describe("intervals", () => {
  it("wilson of the opposite is the mirror image", () => {
    fc.assert(fc.property(fc.integer({ min: 1, max: 500 }), fc.nat(), (n, k) => {
      const successes = k % (n + 1);
      near(wilson(successes, n).low, 1 - wilson(n - successes, n).high);
    }));
  });
  it("a 90 % bootstrap interval of a mean holds it about nine times in ten", () => {
    let holds = 0;
    const runs = 400;
    for (let run = 0; run < runs; run++) {
      const { low, high } = bootstrap(normal(run, [40]).data, { confidence: 0.9, resamples: 300, seed: run });
      if (low <= 0 && 0 <= high) holds++;
    }
    assert.ok(Math.abs(holds / runs - 0.9) < 0.06, `${holds / runs}`); // the percentile method is a little narrow
  });
  it("a 95 % Wilson interval of a rate holds it about nineteen times in twenty", () => {
    let holds = 0;
    const runs = 1000;
    for (let run = 0; run < runs; run++) {
      const successes = integers(run, 10, 60).filter((v) => v < 3).length;
      const { low, high } = wilson(successes, 60);
      if (low <= 0.3 && 0.3 <= high) holds++;
    }
    assert.ok(Math.abs(holds / runs - 0.95) < 0.03, `${holds / runs}`);
  });
  it("normalQuantile is odd and rises", () => {
    const p = fc.double({ min: 1e-9, max: 0.5, noNaN: true });
    fc.assert(fc.property(p, p, (a, b) => {
      near(normalQuantile(a), -normalQuantile(1 - a), 1e-6);
      if (a < b) assert.ok(normalQuantile(a) <= normalQuantile(b));
    }));
  });
});

describe("likeness", () => {
  it("ssim is symmetric, at most 1, and 1 with itself", () => {
    fc.assert(
      fc.property(fieldsArbitrary(2, { batch: [1], h: 12, w: 11, min: 0, max: 1 }), ([a, b]) => {
        near(ssim(a, b)[0], ssim(b, a)[0]);
        assert.ok(ssim(a, b)[0] <= 1 + 1e-9);
        near(ssim(a, a)[0], 1);
      }),
      { numRuns: 40 },
    );
  });
  it("pearson does not depend on scale, offset or order", () => {
    fc.assert(fc.property(fc.nat(), fc.integer({ min: 2, max: 30 }), (seed, n) => {
      const x = normal(seed, [n]).data, y = normal(seed + 1, [n]).data;
      const r = pearson(x, y);
      near(pearson(Float64Array.from(x, (v) => 3 * v - 7), y), r);
      near(pearson(x, Float64Array.from(y, (v) => -v)), -r);
      near(pearson(x.slice().reverse(), y.slice().reverse()), r);
      assert.ok(Math.abs(r) <= 1 + 1e-12);
    }));
  });
});
