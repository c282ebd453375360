import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { normal } from "../../src/tensor/random.ts";
import { barOf, removal, within } from "../../src/steps/removal.ts";

/** Distances of harmless words: log-normal around 0.1, two kinds. */
const harmless = (seed: number, n: number) =>
  [0, 1].map((k) => [...normal(seed + k, [n]).data].map((x) => 0.1 * Math.exp(0.3 * x)));

describe("trigger removal without knowing the aim", () => {
  const bar = barOf(harmless(1, 400));

  it("harmless words themselves reach about 1: a perfect cure does not fail", () => {
    assert.ok(bar.harmless > 0.85 && bar.harmless < 0.95);
    assert.ok(removal(harmless(7, 200), bar).value > 0.94);
  });

  it("pictures far from the clean ones in one kind of distance alone do not count as cured", () => {
    const [colour, features] = harmless(7, 100);
    assert.equal(removal([colour.map((d) => d * 20), features], bar).value, 0);
    assert.deepEqual(within([[0.1, 9], [0.1, 0.1]], [1, 1]), [true, false]);
  });

  it("twins that show the backdoor themselves do not raise the bar", () => {
    const [colour, features] = harmless(1, 400);
    const spoiled = barOf([colour.map((d, i) => i % 10 === 0 ? d * 50 : d), features]);
    assert.ok(spoiled.infected >= 40 && spoiled.infected < 50, `${spoiled.infected}`);
    assert.ok(spoiled.limits[0] < 2 * bar.limits[0]);
  });

  it("the interval holds the value", () => {
    const { value, interval } = removal(harmless(3, 60), bar);
    assert.ok(interval[0] <= value && value <= interval[1]);
  });
});
