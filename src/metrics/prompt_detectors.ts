/**
 * Published detectors of triggered prompts, from their papers' formulas, so that they can be measured beside sau's own.
 * Each gives one number a prompt, turned so that more means more suspicious.
 */
import type { Tensor } from "../tensor/tensor.ts";
import { mean } from "./intervals.ts";

/** Rows of [L, cells]. */
const rowsOf = ({ dims: [length, cells], data }: Tensor): Float32Array[] =>
  Array.from({ length }, (_, l) => data.subarray(l * cells, (l + 1) * cells));

const norm = (values: ArrayLike<number>): number => {
  let sum = 0;
  for (let i = 0; i < values.length; i++) sum += values[i] ** 2;
  return Math.sqrt(sum);
};

const apart = (a: ArrayLike<number>, b: ArrayLike<number>): Float64Array =>
  Float64Array.from({ length: a.length }, (_, i) => a[i] - b[i]);

/**
 * Frobenius norm threshold truncation of T2IShield (Wang et al., ECCV 2024, § 3.3): with M_i the attention map of token i,
 * averaged over the sampling steps and scaled to a maximum of 1, and M̄ their mean,
 *
 *     F = 1/L Σ_i ‖M_i − M̄‖_F
 *
 * A trigger makes the maps alike ("assimilation"), so that F is small; the result is −F.
 * @param maps [L, cells]: a prompt's tokens from the first to the end of text
 */
export const assimilation = (maps: Tensor): number => {
  const scaled = rowsOf(maps).map((map) => {
    const top = map.reduce((a, b) => Math.max(a, b), 1e-12);
    return map.map((x) => x / top);
  });
  const centre = scaled[0].map((_, cell) => mean(scaled.map((map) => map[cell])));
  return -mean(scaled.map((map) => norm(apart(map, centre))));
};

/**
 * DAA-I of Dynamic Attention Analysis (Wang et al., TPAMI 2025, § 4.1): how fast the end-of-text token's attention map
 * evolves beyond the mean of the prompt's tokens', summed over early steps,
 *
 *     S = Σ_t ( ‖M_EOS^t − M_EOS^{t−1}‖_F − 1/L Σ_l ‖M_l^t − M_l^{t−1}‖_F )
 *
 * In a triggered prompt it dissipates more slowly, so that S is small; the result is −S.
 * @param steps maps [L, cells] at consecutive steps, the tokens from the first to the end of text
 */
export const slowDissipation = (steps: readonly Tensor[]): number => {
  let sum = 0;
  for (let t = 1; t < steps.length; t++) {
    const [now, before] = [rowsOf(steps[t]), rowsOf(steps[t - 1])];
    const rates = now.map((map, l) => norm(apart(map, before[l])));
    const own = rates.pop() ?? 0;
    sum += own - (rates.length === 0 ? 0 : mean(rates));
  }
  return -sum;
};

/**
 * The score of NaviT2I (Zhai et al., ICCV 2025, § 4): each token is masked in turn; δ_i is how far the layers' activations
 * then move at the first step, over how far the text's embedding does. The largest δ over the mean of the lower three
 * quarters: what one token does beyond the others.
 * @param variations for each masked token Σ over layers of the mean |A − A_masked|
 * @param distances for each masked token ‖E − E_masked‖ of the text's embedding
 */
export const activationVariation = (variations: readonly number[], distances: readonly number[]): number => {
  const ratios = variations.map((v, i) => v / Math.max(distances[i], 1e-12)).sort((a, b) => a - b);
  if (ratios.length < 2) return 0;
  return ratios[ratios.length - 1] /
    Math.max(mean(ratios.slice(0, Math.max(1, Math.floor(0.75 * ratios.length)))), 1e-12);
};
