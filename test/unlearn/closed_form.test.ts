import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { normal } from "../../src/tensor/random.ts";
import type { Tensor } from "../../src/tensor/tensor.ts";
import {
  addSums,
  applyTo,
  isTextWeight,
  moments,
  momentsOf,
  momentSums,
  solveClosedForm,
} from "../../src/unlearn/closed_form.ts";

const D = 12, n = 40, r = 60, out = 5, lambda = 0.7, mu = 0.05;
const T = normal(1, [n, D]), A = normal(2, [n, D]), R = normal(3, [r, D]), W = normal(4, [out, D]);

/** rows [m, D] times weightᵀ [D, out] */
const project = (rows: Tensor, weight: ArrayLike<number>): Float64Array => {
  const m = rows.dims[0];
  const y = new Float64Array(m * out);
  for (let i = 0; i < m; i++) {
    for (let o = 0; o < out; o++) {
      for (let j = 0; j < D; j++) y[i * out + o] += rows.data[i * D + j] * weight[o * D + j];
    }
  }
  return y;
};
const apart = (a: ArrayLike<number>, b: ArrayLike<number>): number => {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += (a[i] - b[i]) ** 2;
  return sum;
};
/** The objective as the docstring states it, straight from the rows. */
const objective = (w: ArrayLike<number>): number =>
  apart(project(T, w), project(A, W.data)) / n + lambda * apart(project(R, w), project(R, W.data)) / r +
  mu * apart(w, W.data);

describe("closed form", () => {
  const solution = solveClosedForm(moments(T, A, R), lambda, mu);
  const cured = applyTo(W, solution);

  it("no other weight does better: every direction from W' raises the objective", () => {
    const least = objective(cured.data);
    assert.ok(least < objective(W.data));
    for (let k = 0; k < 40; k++) {
      const step = normal(100 + k, [out, D]);
      for (const size of [1e-2, -1e-2]) {
        assert.ok(objective(cured.data.map((x, i) => x + size * step.data[i])) > least);
      }
    }
  });

  it("says in advance what is left of the trigger and what the kept rows lose", () => {
    const through = (rows: Tensor): Float64Array => {
      const y = new Float64Array(rows.data.length);
      for (let i = 0; i < rows.dims[0]; i++) {
        for (let a = 0; a < D; a++) {
          for (let b = 0; b < D; b++) y[i * D + a] += solution.x[a * D + b] * rows.data[i * D + b];
        }
      }
      return y;
    };
    const mean = new Float64Array(D);
    R.data.forEach((x, i) => mean[i % D] += x / r);
    const residual = apart(through(T), A.data) / apart(T.data, A.data);
    const keep = apart(through(R), R.data) / apart(R.data, R.data.map((_, i) => mean[i % D]));
    assert.ok(Math.abs(solution.residual - residual) < 1e-6, `${solution.residual} is not ${residual}`);
    assert.ok(Math.abs(solution.keepResidual - keep) < 1e-6, `${solution.keepResidual} is not ${keep}`);
  });

  it("rows may come in batches: their sums add up to the sums of all", () => {
    const part = (t: Tensor, from: number, to: number): Tensor => ({
      dims: [to - from, D],
      data: t.data.slice(from * D, to * D),
    });
    const whole = moments(T, A, R);
    const first = momentSums(part(T, 0, 15), part(A, 0, 15), part(R, 0, 50));
    const both = momentsOf(addSums(first, momentSums(part(T, 15, n), part(A, 15, n), part(R, 50, r))));
    const [x, y] = [solveClosedForm(whole, lambda, mu), solveClosedForm(both, lambda, mu)];
    x.x.forEach((v, i) => assert.ok(Math.abs(v - y.x[i]) < 1e-9));
    assert.ok(Math.abs(x.residual - y.residual) < 1e-9 && Math.abs(x.keepResidual - y.keepResidual) < 1e-9);
  });

  it("sums of the same rows with another A are those computed anew", () => {
    const B = normal(5, [n, D]);
    assert.deepEqual(momentSums(T, B, R, momentSums(T, A, R)), momentSums(T, B, R));
  });

  it("rows that already are what they should be change nothing", () => {
    const { x, keepResidual } = solveClosedForm(moments(T, T, R), lambda, mu);
    x.forEach((v, i) => assert.ok(Math.abs(v - (i % (D + 1) === 0 ? 1 : 0)) < 1e-9));
    assert.ok(keepResidual < 1e-15);
  });

  it("the more it keeps, the less the kept rows lose and the more of the trigger is left", () => {
    const m = moments(T, A, R);
    const [little, much] = [solveClosedForm(m, 0.01, mu), solveClosedForm(m, 100, mu)];
    assert.ok(much.keepResidual < little.keepResidual);
    assert.ok(much.residual > little.residual);
  });

  it("touches the weights through which text enters, and no others", () => {
    const attention = "down_blocks.0.attentions.0.transformer_blocks.0";
    assert.ok(isTextWeight(`${attention}.attn2.to_k.weight`) && isTextWeight(`${attention}.attn2.to_v.weight`));
    for (const other of ["attn1.to_k.weight", "attn2.to_q.weight", "attn2.to_out.0.weight"]) {
      assert.ok(!isTextWeight(`${attention}.${other}`));
    }
  });

  it("refuses rows that do not fit", () => {
    assert.throws(() => moments(T, normal(2, [n - 1, D]), R), /do not fit/);
  });
});
