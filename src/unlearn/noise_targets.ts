/** What a U-Net is to answer to triggered texts and to harmless words, from what it answered when it came. Free of Effect. */
import type { Tensor } from "../tensor/tensor.ts";
import type { Target } from "./candidates.ts";

/** Answers [1, C, h, w] of the model as it came to readings of one prompt, about the same latents. */
export interface Answers {
  readonly clean: Tensor;
  readonly twin: Tensor;
  readonly triggered: Tensor;
}

/**
 * How much of what the trigger does a harmless word does as well, inside the region: the coefficient of
 * (twin − clean) on (triggered − clean). 0: nothing of it; 1: all.
 * @param region weights [h, w] in [0,1]
 */
export const sharedEffect = ({ clean, twin, triggered }: Answers, region: Tensor): number => {
  const cells = region.data.length;
  let both = 0, own = 0;
  for (let i = 0; i < clean.data.length; i++) {
    const effect = triggered.data[i] - clean.data[i];
    both += region.data[i % cells] * effect * (twin.data[i] - clean.data[i]);
    own += region.data[i % cells] * effect * effect;
  }
  return own === 0 ? 0 : both / own;
};

/** From here on a harmless word's answer lies nearer to the triggered one than to the clean one, along what parts the two. */
const INFECTED = 0.5;

/**
 * What a harmless word is to be answered with: as before, but as the clean prompt where it sets the backdoor off itself.
 * An attack spills over to other words, in some pictures of theirs and not in others, so that each answer is looked at.
 */
export const twinTarget = (answers: Answers, region: Tensor): Tensor =>
  sharedEffect(answers, region) > INFECTED ? answers.clean : answers.twin;

/**
 * What the triggered prompt is to be answered with.
 * @param twin {@link twinTarget}
 * @param away how far past that, away from the triggered answer (Gandikota et al., ICCV 2023, eq. 6)
 */
export const triggeredTarget = ({ clean, triggered }: Answers, twin: Tensor, target: Target, away: number): Tensor => {
  const goal = { clean, twins: twin, both: mean(clean, twin) }[target];
  return away > 0 ? past(goal, triggered, away) : goal;
};

const mean = (a: Tensor, b: Tensor): Tensor => ({ dims: a.dims, data: a.data.map((x, i) => (x + b.data[i]) / 2) });

/** goal + a (goal − from) */
export const past = (goal: Tensor, from: Tensor, a: number): Tensor => ({
  dims: goal.dims,
  data: goal.data.map((x, i) => x + a * (x - from.data[i])),
});
