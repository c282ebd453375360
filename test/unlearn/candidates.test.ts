import * as fc from "fast-check";
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { normal } from "../../src/tensor/random.ts";
import type { Tensor } from "../../src/tensor/tensor.ts";
import { closedFormRows, judge, pareto, spreadOf, textShift } from "../../src/unlearn/candidates.ts";

const [P, R, L, D] = [3, 4, 5, 6];
const embeddings = normal(7, [P, R, L, D]);
const straight = Array.from({ length: P }, () => Array.from({ length: L }, (_, i) => i));
const all = Array.from({ length: P }, () => [true, true]);
const at = (
  p: number,
  r: number,
  i: number,
) => [...embeddings.data.subarray(((p * R + r) * L + i) * D, ((p * R + r) * L + i + 1) * D)];

describe("rows of the closed form", () => {
  it("targets are the aligned clean rows, the mean of the usable twins, or halfway", () => {
    const shifted = straight.map((row) => row.map((i) => i === 1 ? -1 : Math.max(0, i - 1)));
    const clean = closedFormRows(embeddings, shifted, all, [1], "clean");
    assert.deepEqual([...clean.wanted.data.subarray(2 * D, 3 * D)], at(1, 0, 1));
    assert.deepEqual(
      [...clean.wanted.data.subarray(D, 2 * D)],
      at(1, 0, L - 1),
      "a trigger token takes the last padding",
    );
    const twins = closedFormRows(embeddings, straight, [[true, true], [false, true], [true, true]], [1], "twins");
    twins.wanted.data.subarray(0, D).forEach((x, j) => assert.ok(Math.abs(x - at(1, 3, 0)[j]) < 1e-6));
    const both = closedFormRows(embeddings, straight, [[true, true], [false, true], [true, true]], [1], "both");
    both.wanted.data.subarray(0, D).forEach((x, j) =>
      assert.ok(Math.abs(x - (at(1, 3, 0)[j] + at(1, 0, 0)[j]) / 2) < 1e-6)
    );
  });

  it("a twin that shows the backdoor is neither aimed at nor kept", () => {
    const rows = closedFormRows(embeddings, straight, [[false, false], [true, true], [true, true]], [0], "twins");
    assert.equal(rows.keep.dims[0], L);
    assert.deepEqual([...rows.wanted.data.subarray(0, D)], at(0, 0, 0), "without a twin the clean reading is the aim");
  });
});

describe("judging a candidate", () => {
  const dims = [4, 3, 2, 4, 4];
  const before = normal(9, dims);
  const region: Tensor = { dims: [4, 4], data: Float32Array.from({ length: 16 }, (_, i) => i < 4 ? 1 : 0) };

  it("an unchanged model has no drift, and the trigger's effect is that of its readings", () => {
    const { drift, trigger } = judge(before, before, region);
    assert.equal(drift < 1e-12, true);
    assert.ok(trigger > 0);
  });

  it("drawing for the trigger what was drawn for the clean reading leaves no trace of it", () => {
    const after: Tensor = { dims, data: before.data.slice() };
    const size = 2 * 16;
    for (let p = 0; p < 4; p++) {
      after.data.set(before.data.subarray(p * 3 * size, p * 3 * size + size), (p * 3 + 1) * size);
    }
    assert.ok(judge(before, after, region).trigger < 1e-12);
  });

  it("the Pareto front holds what no other candidate beats in both", () => {
    const of = (trigger: number, drift: number) => ({ judgement: { trigger, drift } });
    const [a, b, c, d] = [of(5, 0.1), of(2, 0.2), of(3, 0.3), of(1, 0.9)];
    assert.deepEqual(pareto([d, c, b, a]), [a, b, d]);
  });

  it("as many are drawn as are wanted, each once: the ends of a long front, and the next fronts after a short one", () => {
    const candidate = fc.record({ trigger: fc.double({ min: 0, max: 9, noNaN: true }), drift: fc.nat(20) });
    fc.assert(fc.property(fc.array(candidate, { maxLength: 30 }), fc.integer({ min: 2, max: 6 }), (all, wanted) => {
      const candidates = all.map((judgement) => ({ judgement }));
      const chosen = spreadOf(candidates, wanted);
      assert.equal(new Set(chosen).size, Math.min(wanted, candidates.length));
      const front = pareto(candidates);
      if (front.length > wanted) {
        assert.ok(chosen.every((c) => front.includes(c)));
        assert.deepEqual([chosen[0], chosen.at(-1)], [front[0], front.at(-1)]);
      } else for (const c of front) assert.ok(chosen.includes(c));
    }));
  });
});

describe("where the backdoor sits", () => {
  it("a trigger that moves the embeddings no further than words do has shift 1", () => {
    const same: Tensor = { dims: [P, 3, L, D], data: new Float32Array(P * 3 * L * D) };
    const [noise, clean] = [normal(1, [P, L, D]).data, normal(2, [P, L, D]).data];
    for (let p = 0; p < P; p++) {
      for (let i = 0; i < L * D; i++) {
        const [c, x] = [clean[p * L * D + i], noise[p * L * D + i]];
        same.data[(p * 3) * L * D + i] = c;
        same.data[(p * 3 + 1) * L * D + i] = c + x;
        same.data[(p * 3 + 2) * L * D + i] = c - x;
      }
    }
    const use = Array.from({ length: P }, () => [true]);
    assert.ok(Math.abs(textShift(same, straight, use).shift - 1) < 1e-5);
  });

  it("a trigger that turns every prompt into one has no spread", () => {
    const collapsed: Tensor = { dims: embeddings.dims, data: embeddings.data.slice() };
    for (let p = 0; p < P; p++) collapsed.data.fill(0.5, (p * R + 1) * L * D, (p * R + 2) * L * D);
    assert.ok(textShift(collapsed, straight, all).spread < 1e-6);
  });

  it("a trigger that moves every prompt alike, however far, loses nothing of what they say", () => {
    const moved: Tensor = { dims: embeddings.dims, data: embeddings.data.slice() };
    for (let p = 0; p < P; p++) {
      for (let r = 1; r < R; r++) {
        for (let i = 0; i < L * D; i++) {
          moved.data[(p * R + r) * L * D + i] = embeddings.data[p * R * L * D + i] + (r === 1 ? 5 : 0);
        }
      }
    }
    assert.ok(Math.abs(textShift(moved, straight, all).spread - 1) < 1e-3);
  });
});
