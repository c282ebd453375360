/**
 * Unified Concept Editing (Gandikota et al., WACV 2024) as a cure: the weights through which text enters are to answer the
 * last token of a triggered prompt as they answered the clean prompt's,
 *
 *     W* = (Σ v* cᵀ + λ Σ_keep W c cᵀ + μ W) (Σ c cᵀ + λ Σ_keep c cᵀ + μ I)⁻¹,  v* = W a,
 *
 * with c the triggered prompts' last tokens and a the clean prompts'; λ = 1 and μ = 0.5 in the paper. Sums, not means: with
 * more prompts the ridge weighs less.
 */
import { type Tensor, zeros } from "../tensor/tensor.ts";
import { moments, type Solution, solveClosedForm } from "./closed_form.ts";

/** Positions of a prompt's last content tokens. */
export interface LastTokens {
  readonly clean: number;
  /** In the triggered reading and in the twins, which are as long. */
  readonly triggered: number;
}

/**
 * @param embeddings [P, R, L, D], readings in the order clean, triggered, twins
 * @param use use[p][k] is false for a twin that shows the backdoor itself: it is not kept
 */
export const solveUce = (
  embeddings: Tensor,
  last: readonly LastTokens[],
  use: readonly (readonly boolean[])[],
  lambda: number,
  mu: number,
): Solution => {
  const [prompts, readings, length, width] = embeddings.dims;
  const gather = (rows: readonly (readonly [p: number, reading: number, position: number])[]): Tensor => {
    const out = zeros([rows.length, width]);
    rows.forEach(([p, r, i], at) => {
      const from = ((p * readings + r) * length + i) * width;
      out.data.set(embeddings.data.subarray(from, from + width), at * width);
    });
    return out;
  };
  const each = Array.from({ length: prompts }, (_, p) => p);
  const triggered = gather(each.map((p) => [p, 1, last[p].triggered]));
  const wanted = gather(each.map((p) => [p, 0, last[p].clean]));
  const keep = gather(each.flatMap((p) => [
    [p, 0, last[p].clean] as const,
    ...use[p].flatMap((usable, k) => usable ? [[p, 2 + k, last[p].triggered] as const] : []),
  ]));
  // The solver takes means of both sums, so its weights are those of the sums over n.
  const n = prompts;
  return solveClosedForm(moments(triggered, wanted, keep), lambda * keep.dims[0] / n, mu / n);
};
