/** Which token of one reading is which token of another. Positions count BOS as 0. */

/** Two token sequences that differ in one run: before it and after it they are the same. */
export interface Difference {
  /** Content tokens before the run. */
  readonly before: number;
  /** Tokens of the run in either sequence, and after it in both. */
  readonly from: number;
  readonly to: number;
  readonly after: number;
}

/**
 * For each of `length` positions of the changed sequence the position of the original that it corresponds to, or −1.
 * - BOS, the tokens before and after the run, and EOS go to themselves.
 * - Runs are paired from their ends: under a causal mask a run's last token carries its meaning.
 * - Padding goes to the padding at its own position: there only what the trigger does differs, not the place.
 */
export const align = (d: Difference, length: number): number[] => {
  const run = 1 + d.before;
  const shift = d.from - d.to;
  const [end, oldEnd] = [run + d.to + d.after, run + d.from + d.after];
  return Array.from({ length }, (_, p) => {
    if (p < run) return p;
    if (p < run + d.to) return p + shift >= run ? p + shift : -1;
    if (p <= end) return p + shift;
    return p > oldEnd ? p : -1;
  });
};

/**
 * The same with every −1 filled by an original position that nothing corresponds to, in order: mostly the first
 * paddings. Each original position is then used once; cross attention does not see order, so a cure that reaches
 * these goals draws the original's picture exactly.
 */
export const complete = (aligned: readonly number[]): number[] => {
  const used = new Set(aligned);
  const free = aligned.map((_, p) => p).filter((p) => !used.has(p));
  let next = 0;
  return aligned.map((p) => p >= 0 ? p : free[next++]);
};
