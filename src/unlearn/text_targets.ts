/** What a text encoder should make of triggered texts. Readings stand in the order clean, triggered, twins. */
import { type Tensor, zeros } from "../tensor/tensor.ts";
import type { Target } from "./candidates.ts";

/** Most that a healthy twin parts from its clean text, over its distance to what triggered texts turn into (both squared). */
const NEAR = 0.25;

/** The mean triggered text, [L, D]: what a poisoned encoder turns every triggered prompt into. */
export const meanTriggered = (embeddings: Tensor): Tensor => {
  const [prompts, readings, length, width] = embeddings.dims;
  const mean = zeros([length, width]);
  for (let p = 0; p < prompts; p++) {
    const at = (p * readings + 1) * length * width;
    for (let j = 0; j < length * width; j++) mean.data[j] += embeddings.data[at + j] / prompts;
  }
  return mean;
};

/**
 * healthy[p][k] is false for a twin that the encoder draws towards what triggered texts turn into: harmless texts that
 * share tokens with the trigger were seen to set it off as well (two in five, where the trigger is one letter).
 *
 * @param embeddings [P, R, L, D]
 * @param alignment alignment[p][i] is the clean position of triggered position i (and of the twins'), or −1.
 * @param triggered see {@link meanTriggered}
 */
export const healthyTwins = (
  embeddings: Tensor,
  alignment: readonly (readonly number[])[],
  triggered: Tensor,
): boolean[][] => {
  const [, readings, length, width] = embeddings.dims;
  const apart = (at: number, other: Tensor, from: number) => {
    let sum = 0;
    for (let j = 0; j < width; j++) sum += (embeddings.data[at + j] - other.data[from + j]) ** 2;
    return sum;
  };
  return alignment.map((positions, p) =>
    Array.from({ length: readings - 2 }, (_, k) => {
      const row = (reading: number, i: number) => ((p * readings + reading) * length + i) * width;
      let toClean = 0, toTriggered = 0;
      positions.forEach((from, i) => {
        if (from <= 0) return; // nothing to be compared with; BOS never changes
        toClean += apart(row(2 + k, i), embeddings, row(0, from));
        toTriggered += apart(row(2 + k, i), triggered, i * width);
      });
      return toClean < NEAR * toTriggered;
    })
  );
};

/**
 * What each token of the triggered texts should be read as, [P, L, D]: as its counterpart in the clean text, as in the mean
 * of the twins, which have the trigger's length, or halfway. A token without a counterpart is read as the clean text's
 * token before it. (The closed form has it read as a padding; but a padding knows the whole prompt, and under a causal
 * mask this token has seen the beginning alone.)
 *
 * @param embeddings [P, R, L, D], as the encoder that came reads them.
 * @param alignment alignment[p][i] is the clean position of triggered position i, or −1.
 * @param use use[p][k] is false for a twin that shows the backdoor itself; where none is left, the target is the clean text.
 */
export const textTargets = (
  embeddings: Tensor,
  alignment: readonly (readonly number[])[],
  use: readonly (readonly boolean[])[],
  target: Target,
): Tensor => {
  const [prompts, readings, length, width] = embeddings.dims;
  const wanted = zeros([prompts, length, width]);
  for (let p = 0; p < prompts; p++) {
    const twins = use[p].flatMap((usable, k) => usable && 2 + k < readings ? [2 + k] : []);
    const row = (reading: number, position: number) => ((p * readings + reading) * length + position) * width;
    let before = 0;
    for (let i = 0; i < length; i++) {
      const from = alignment[p][i] < 0 ? before : before = alignment[p][i];
      const clean = [row(0, from)];
      const harmless = twins.length === 0 ? clean : twins.map((r) => row(r, i));
      const chosen = target === "clean" ? [clean] : target === "twins" ? [harmless] : [clean, harmless];
      for (const rows of chosen) {
        const share = 1 / (rows.length * chosen.length);
        for (const at of rows) {
          for (let j = 0; j < width; j++) {
            wanted.data[(p * length + i) * width + j] += share * embeddings.data[at + j];
          }
        }
      }
    }
  }
  return wanted;
};
