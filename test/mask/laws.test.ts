/** Our own masks under the laws that "sau/testing" exports for everybody's. */
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { combine, complement, intersection, scale, union } from "../../src/mask/algebra.ts";
import { blend } from "../../src/mask/blend.ts";
import { gaussianBlur } from "../../src/mask/blur.ts";
import { sigmoidEdge, stretch } from "../../src/mask/edge.ts";
import { mapCells } from "../../src/mask/field.ts";
import { resize } from "../../src/mask/resize.ts";
import { softMask } from "../../src/mask/soft_mask.ts";
import { aboveThreshold } from "../../src/mask/threshold.ts";
import { tensor } from "../../src/tensor/tensor.ts";
import {
  checkBlendLaws,
  checkCombineLaws,
  checkEdgeLaws,
  checkMaskLaws,
  checkResizeLaws,
  checkUnionLaws,
} from "../../src/testing/mod.ts";

describe("mask functions keep the laws", () => {
  it("threshold alone", () => checkMaskLaws((field, value) => aboveThreshold(field, { value })));
  it("threshold, blur and edge", () =>
    checkMaskLaws((field, value) => softMask(field, { threshold: { value }, blur: 1, edge: 12 }), { reach: 3 }));
  it("threshold at a quantile", () =>
    checkMaskLaws((field, quantile) => softMask(field, { threshold: { quantile }, blur: 0.5 }), {
      reach: 2,
      values: { min: 0, max: 1 },
    }));
  it("Otsu, whose threshold is its own", () => checkMaskLaws((field) => aboveThreshold(field, "otsu")));
  it("a sigmoid edge at the threshold, on the stretched and blurred field", () =>
    checkMaskLaws((field, centre) => sigmoidEdge(gaussianBlur(stretch(field), 2, 2), { centre, steepness: 12 }), {
      reach: 2,
      values: { min: 0, max: 1 },
    }));
  it("the complement turns the order round: it breaks the law of the threshold and no other", () => {
    const mask = (field: Parameters<typeof complement>[0], value: number) =>
      complement(aboveThreshold(field, { value }));
    assert.throws(() => checkMaskLaws(mask), /breaks the law "a higher threshold raises no cell"/);
    checkMaskLaws(mask, { except: ["a higher threshold raises no cell"] });
  });
});

describe("the algebra keeps the laws", () => {
  it("union", () => checkUnionLaws(union));
  it("union, as the complement of the intersection of the complements", () => {
    const byDeMorgan: typeof union = (a, b) => complement(intersection(complement(a), complement(b)));
    // 1 − (1 − a) loses an a too small to be told from 0 beside 1: the reason why union is written otherwise.
    checkUnionLaws(byDeMorgan, { except: ["the empty mask is a union's identity"] });
  });
  it("primary and secondary", () => checkCombineLaws(combine));
  it("primary and secondary take the values of M = 1 − (1 − m_p)(1 − ½ m_s)", () => {
    const p = tensor(Float32Array.of(0, 0, 1, 1, 0.5), [1, 5]), s = tensor(Float32Array.of(0, 1, 0, 1, 0.5), [1, 5]);
    assert.deepEqual(combine(p, s).data, Float32Array.of(0, 0.5, 1, 1, 0.625));
  });
  it("blend", () => checkBlendLaws(blend));
  it("resize, by area and bilinear", () => {
    checkResizeLaws((field, size) => resize(field, size, "area"));
    checkResizeLaws((field, size) => resize(field, size, "bilinear"));
  });
  it("sigmoid edge", () => checkEdgeLaws((field) => sigmoidEdge(field)));
  it("stretch", () => checkEdgeLaws(stretch));
});

describe("what does not fit is refused", () => {
  const a = tensor(new Float32Array(4), [2, 2]), b = tensor(new Float32Array(6), [2, 3]);
  it("masks of different cells", () => assert.throws(() => union(a, b), /\[2, 2\] and \[2, 3\]/));
  it("a scale that would leave the range", () => assert.throws(() => scale(a, 1.5), /1\.5 is not within 0 and 1/));
  it("an edge that would turn the order round", () => assert.throws(() => sigmoidEdge(a, { steepness: -1 }), /-1/));
  it("a mask beside the latents", () => {
    const latents = tensor(new Float32Array(12), [3, 2, 2]);
    assert.throws(() => blend(latents, latents, b), /\[2, 3\] does not fit latents \[3, 2, 2\]/);
  });
  it("a batch of masks acts item by item, on all channels", () => {
    const poisoned = tensor(new Float32Array(2 * 3 * 2), [2, 3, 1, 2]);
    const clean = mapCells(poisoned, () => 1);
    const mask = tensor(Float32Array.of(1, 0, 0, 0.5), [2, 1, 2]);
    assert.deepEqual(blend(poisoned, clean, mask).data, Float32Array.of(1, 0, 1, 0, 1, 0, 0, 0.5, 0, 0.5, 0, 0.5));
  });
});
