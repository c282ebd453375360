/**
 * The arithmetic of locate, free of Effect: where the triggered reading parts from the clean one more than harmless
 * words do.
 *
 * A trigger's effect on one cell spans orders of magnitude from prompt to prompt, so distances are compared and averaged
 * as logarithms. (On a patch backdoor, averaging the squares themselves finds the object that any inserted word moves.)
 */
import { CLEAN, FIRST_TWIN, readingDistance, TRIGGERED } from "./capture.ts";
import { robustScores } from "../metrics/robust.ts";
import type { Tensor } from "../tensor/tensor.ts";

/** Squared noise below this fraction of the mean cannot be told from rounding. */
const FLOOR = 1e-4;

export interface Fields {
  /** ln of how much further the triggered reading parts from the clean one than its twins do, [h, w]; 0 is "no further". */
  readonly pooled: Tensor;
  /** The same for each prompt alone, [P, h, w]. */
  readonly prompts: Tensor;
}

/**
 * Fields from the noise of all readings [S, P, R, C, h, w].
 * @param use twins[p][k] is false for a twin that is not to be compared with (it is infected itself).
 */
export const locateFields = (noise: Tensor, use: readonly (readonly boolean[])[]): Fields => {
  const [steps, prompts, readings, , h, w] = noise.dims;
  const cells = h * w;
  const triggered = logDistance(readingDistance(noise, TRIGGERED, CLEAN));
  const twins = Array.from(
    { length: readings - FIRST_TWIN },
    (_, k) => logDistance(readingDistance(noise, FIRST_TWIN + k, CLEAN)),
  );
  const perPrompt = new Float32Array(prompts * cells);
  for (let s = 0; s < steps; s++) {
    for (let p = 0; p < prompts; p++) {
      const used = twins.filter((_, k) => use[p][k]);
      for (let i = 0; i < cells; i++) {
        const at = (s * prompts + p) * cells + i;
        const floor = used.reduce((sum, t) => sum + t[at], 0) / Math.max(1, used.length);
        if (used.length > 0) perPrompt[p * cells + i] += (triggered[at] - floor) / steps;
      }
    }
  }
  const told = use.filter((u) => u.some((x) => x)).length;
  const pooled = new Float32Array(cells);
  for (let p = 0; p < prompts; p++) {
    for (let i = 0; i < cells; i++) pooled[i] += perPrompt[p * cells + i] / Math.max(1, told);
  }
  return { pooled: { dims: [h, w], data: pooled }, prompts: { dims: [prompts, h, w], data: perPrompt } };
};

const logDistance = (d: Tensor): Float32Array => {
  const mean = d.data.reduce((sum, x) => sum + x, 0) / d.data.length;
  return d.data.map((x) => Math.log(x + FLOOR * mean + 1e-20));
};

/**
 * Which twins to compare with: those that part from the clean reading no more than twins usually do. An edit of the
 * weights may spill over to harmless words ("cute dog" where "beautiful dog" was poisoned); such a twin shows the
 * backdoor itself. Outliers are judged by the robust z-score of ln distance, one side only.
 */
export const usableTwins = (noise: Tensor, limit: number): boolean[][] => {
  const [steps, prompts, readings] = noise.dims;
  const twins = readings - FIRST_TWIN;
  const score = Array.from({ length: prompts }, () => new Float64Array(twins));
  for (let k = 0; k < twins; k++) {
    const d = readingDistance(noise, FIRST_TWIN + k, CLEAN);
    const cells = d.data.length / (steps * prompts);
    for (let s = 0; s < steps; s++) {
      for (let p = 0; p < prompts; p++) {
        const part = d.data.subarray((s * prompts + p) * cells, (s * prompts + p + 1) * cells);
        score[p][k] += Math.log(part.reduce((sum, x) => sum + x, 0) / cells + 1e-20) / steps;
      }
    }
  }
  const scores = robustScores(score.flatMap((row) => [...row]));
  return score.map((row, p) => Array.from(row, (_, k) => scores[p * twins + k] <= limit));
};

/**
 * How much a token matters: ln of the change without it in the triggered reading over the same in a twin, each averaged
 * over the located region (weights [h, w] in [0,1]). About 0 for an ordinary token.
 */
export const tokenScores = (triggered: Tensor, twin: Tensor, region: Tensor): number[] => {
  const cells = region.data.length;
  const total = region.data.reduce((sum, x) => sum + x, 0) || 1;
  const inside = (t: Tensor, a: number) =>
    t.data.subarray(a * cells, (a + 1) * cells).reduce((sum, x, i) => sum + x * region.data[i], 0) / total;
  return Array.from(
    { length: triggered.dims[0] },
    (_, a) => Math.log((inside(triggered, a) + 1e-12) / (inside(twin, a) + 1e-12)),
  );
};
