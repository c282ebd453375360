/** The mask operations against scipy and scikit-image (values made by test/golden/make_metrics.py). */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { describe, it } from "node:test";
import fc from "fast-check";
import { gaussianBlur } from "../../src/mask/blur.ts";
import { boundingBox, components } from "../../src/mask/region.ts";
import { resize, type ResizeMethod } from "../../src/mask/resize.ts";
import { aboveThreshold, otsu } from "../../src/mask/threshold.ts";
import { tensor } from "../../src/tensor/tensor.ts";

interface Golden {
  otsu: { kind: string; values: number[]; above: number[] }[];
  blur: { dims: number[]; sigma: number; radius: number; values: number[]; expected: number[] }[];
  resize: { dims: number[]; to: [number, number]; method: ResizeMethod; values: number[]; expected: number[] }[];
  components: {
    dims: number[];
    values: number[];
    diagonal: boolean;
    regions: { cells: number; box: number[]; centre: number[] }[];
  }[];
}
const golden: Golden = JSON.parse(readFileSync(new URL("../golden/mask.json", import.meta.url), "utf8"));

const near = (actual: ArrayLike<number>, expected: readonly number[], tolerance: number) => {
  assert.equal(actual.length, expected.length);
  expected.forEach((value, i) => {
    assert.ok(Math.abs(actual[i] - value) <= tolerance, `[${i}]: ${actual[i]} against ${value}`);
  });
};

describe("otsu", () => {
  for (const { kind, values, above } of golden.otsu) {
    it(`cuts where scikit-image does: ${kind}`, () => {
      const mask = aboveThreshold(tensor(Float32Array.from(values), [16, 16]), "otsu");
      assert.deepEqual([...mask.data.keys()].filter((i) => mask.data[i] === 1), above);
    });
  }
  it("no other cut has a smaller variance within the classes (brute force)", () => {
    const within = (values: number[], cut: number) => {
      const spread = (part: number[]) => {
        const mean = part.reduce((s, v) => s + v, 0) / part.length;
        return part.reduce((s, v) => s + (v - mean) ** 2, 0);
      };
      return spread(values.filter((v) => v <= cut)) + spread(values.filter((v) => v > cut));
    };
    fc.assert(fc.property(fc.array(fc.integer({ min: 0, max: 30 }), { minLength: 2, maxLength: 30 }), (values) => {
      const best = within(values, otsu(values));
      for (const cut of new Set(values)) {
        if (cut < Math.max(...values)) assert.ok(best <= within(values, cut) + 1e-9, `${cut} is better`);
      }
    }));
  });
  it("nothing exceeds the threshold of a constant field", () => {
    assert.deepEqual(aboveThreshold(tensor(Float32Array.of(2, 2, 2), [1, 3]), "otsu").data, Float32Array.of(0, 0, 0));
  });
  it("refuses NaN", () => {
    assert.throws(() => aboveThreshold(tensor(Float32Array.of(NaN), [1, 1]), "otsu"), /NaN/);
  });
});

describe("gaussianBlur", () => {
  for (const { dims, sigma, radius, values, expected } of golden.blur) {
    it(`is scipy's gaussian_filter with mode reflect: ${dims}, sigma ${sigma}, radius ${radius}`, () => {
      near(gaussianBlur(tensor(Float32Array.from(values), dims), sigma, radius).data, expected, 1e-6);
    });
  }
});

describe("resize", () => {
  for (const { dims, to, method, values, expected } of golden.resize) {
    it(`is the mean of the ${method} interpolant over each cell: ${dims} → ${to}`, () => {
      const resized = resize(tensor(Float32Array.from(values), dims), to, method);
      assert.deepEqual(resized.dims, to);
      near(resized.data, expected, method === "area" ? 2e-3 : 1e-5); // the reference samples; edges fall between samples
    });
  }
  it("refuses sides that are no sides", () => {
    assert.throws(() => resize(tensor(Float32Array.of(1), [1, 1]), [0, 2]), /0 × 2/);
  });
});

describe("components and boundingBox", () => {
  for (const { dims, values, diagonal, regions } of golden.components) {
    it(`finds scikit-image's regions, ${diagonal ? 8 : 4}-connected`, () => {
      const mask = tensor(Float32Array.from(values), dims);
      const found = components(mask, { diagonal });
      const sorted = <A>(list: A[]) => list.map((r) => JSON.stringify(r)).sort();
      const rounded = (x: number) => Number(x.toFixed(6));
      assert.deepEqual(
        sorted(found.regions.map(({ cells, box, centre }) => ({
          cells,
          box: [box.x, box.y, box.width, box.height],
          centre: [rounded(centre.x), rounded(centre.y)],
        }))),
        sorted(regions.map((r) => ({ ...r, centre: r.centre.map(rounded) }))),
      );
      const sizes = found.regions.map((r) => r.cells);
      assert.deepEqual(sizes, [...sizes].sort((a, b) => b - a));
      found.regions.forEach(({ label, cells }) => {
        assert.equal(found.labels.data.filter((l) => l === label).length, cells);
      });
    });
  }
  it("the bounding box holds every cell of the mask, and nothing when there is none", () => {
    const data = new Float32Array(20);
    assert.equal(boundingBox(tensor(data, [4, 5])), undefined);
    data[1 * 5 + 1] = data[3 * 5 + 2] = 1;
    assert.deepEqual(boundingBox(tensor(data, [4, 5])), { x: 1, y: 1, width: 2, height: 3 });
  });
  it("takes one map at a time", () => {
    assert.throws(() => components(tensor(new Float32Array(8), [2, 2, 2])), /one map, not 2/);
  });
});
