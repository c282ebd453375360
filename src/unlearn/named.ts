/** Which words do what a trigger does, from what a U-Net answers to each. Free of Effect. */
import type { Tensor } from "../tensor/tensor.ts";

/** A word, and how alike it and the trigger move the U-Net's answers in the place where the trigger acts: 1 is the same. */
export interface Named {
  readonly word: string;
  readonly alike: number;
}

/** A word that moves answers less like the trigger than this says nothing of what the trigger draws; */
const ALIKE = 0.5;
/** nor does one that comes less near than this share of the nearest. */
const NEAR = 0.9;
/** Words that are named at the most. */
const MOST = 4;

/**
 * Cosine of (word − clean) and (triggered − clean), of answers [1, C, h, w] about the same latents.
 * @param region weights [h, w] in [0,1]
 */
export const alike = (clean: Tensor, triggered: Tensor, word: Tensor, region: Tensor): number => {
  const cells = region.data.length;
  let both = 0, ours = 0, theirs = 0;
  for (let i = 0; i < clean.data.length; i++) {
    const weight = region.data[i % cells];
    const [a, b] = [triggered.data[i] - clean.data[i], word.data[i] - clean.data[i]];
    both += weight * a * b;
    ours += weight * a * a;
    theirs += weight * b * b;
  }
  return ours === 0 || theirs === 0 ? 0 : both / Math.sqrt(ours * theirs);
};

/** The words that name what the trigger draws, the nearest first; none where no word comes near. */
export const namesOf = (words: readonly Named[]): Named[] => {
  const sorted = [...words].sort((a, b) => b.alike - a.alike), least = Math.max(ALIKE, NEAR * (sorted[0]?.alike ?? 0));
  return sorted.filter((w) => w.alike >= least).slice(0, MOST);
};
