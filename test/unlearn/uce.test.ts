/** Unified Concept Editing against its objective, summed straight from the rows. */
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { normal } from "../../src/tensor/random.ts";
import { applyTo } from "../../src/unlearn/closed_form.ts";
import { solveUce } from "../../src/unlearn/uce.ts";

const P = 6, R = 4, L = 5, D = 8, out = 3, lambda = 1, mu = 0.5;
const embeddings = normal(1, [P, R, L, D]), W = normal(2, [out, D]);
const last = Array.from({ length: P }, (_, p) => ({ clean: 2 + p % 2, triggered: 3 + p % 2 }));
const use = Array.from({ length: P }, (_, p) => [true, p !== 2]);

const row = (p: number, r: number, i: number) => embeddings.data.subarray(((p * R + r) * L + i) * D).subarray(0, D);
const answer = (w: ArrayLike<number>, x: Float32Array) =>
  Array.from({ length: out }, (_, o) => x.reduce((sum, v, j) => sum + w[o * D + j] * v, 0));
const apart = (a: readonly number[], b: readonly number[]) => a.reduce((sum, x, i) => sum + (x - b[i]) ** 2, 0);

const objective = (w: ArrayLike<number>): number => {
  let sum = 0;
  for (let p = 0; p < P; p++) {
    sum += apart(answer(w, row(p, 1, last[p].triggered)), answer(W.data, row(p, 0, last[p].clean)));
    const kept = [
      row(p, 0, last[p].clean),
      ...[0, 1].filter((k) => use[p][k]).map((k) => row(p, 2 + k, last[p].triggered)),
    ];
    for (const x of kept) sum += lambda * apart(answer(w, x), answer(W.data, x));
  }
  return sum + mu * Array.from(W.data).reduce((total, x, i) => total + (w[i] - x) ** 2, 0);
};

describe("unified concept editing", () => {
  it("no other weight does better on the last tokens, kept ones and the ridge", () => {
    const edited = applyTo(W, solveUce(embeddings, last, use, lambda, mu)).data;
    const least = objective(edited);
    assert.ok(least < objective(W.data));
    for (let k = 0; k < 40; k++) {
      const step = normal(100 + k, [out, D]).data;
      for (const size of [1e-2, -1e-2]) assert.ok(objective(edited.map((x, i) => x + size * step[i])) > least);
    }
  });
});
