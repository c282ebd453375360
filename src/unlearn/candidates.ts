/**
 * Rows for the closed form, and how a candidate cure is judged before a single picture is drawn. Free of Effect.
 * Readings stand in the order clean, triggered, twins.
 */
import type { Tensor } from "../tensor/tensor.ts";

/** What a triggered prompt should have meant: its harmless twins, the prompt without the trigger, or halfway. */
export type Target = "twins" | "clean" | "both";

export interface Rows {
  readonly triggered: Tensor;
  readonly wanted: Tensor;
  readonly keep: Tensor;
}

/**
 * Rows T, A and R from embeddings [P, R, L, D] of the chosen prompts.
 *
 * @param alignment alignment[p][i] is the clean position of triggered position i, or −1 where the trigger stands and
 *   nothing corresponds: such a position takes the embedding of the last padding.
 * @param use use[p][k] is false for a twin that shows the backdoor itself.
 */
export const closedFormRows = (
  embeddings: Tensor,
  alignment: readonly (readonly number[])[],
  use: readonly (readonly boolean[])[],
  chosen: readonly number[],
  target: Target,
): Rows => {
  const [, readings, length, width] = embeddings.dims;
  const row = (p: number, r: number, i: number) => {
    const at = ((p * readings + r) * length + i) * width;
    return embeddings.data.subarray(at, at + width);
  };
  const triggered: Float32Array[] = [];
  const wanted: Float32Array[] = [];
  const keep: Float32Array[] = [];
  for (const p of chosen) {
    const twins = Array.from({ length: readings - 2 }, (_, k) => 2 + k).filter((_, k) => use[p][k]);
    for (let i = 0; i < length; i++) {
      const from = alignment[p][i];
      const clean = row(p, 0, from < 0 ? length - 1 : from);
      const twin = twins.length === 0 ? clean : meanRow(twins.map((r) => row(p, r, i)));
      triggered.push(row(p, 1, i));
      wanted.push(target === "clean" ? clean : target === "twins" ? twin : meanRow([clean, twin]));
      for (const r of [0, ...twins]) keep.push(row(p, r, i));
    }
  }
  return { triggered: join(triggered, width), wanted: join(wanted, width), keep: join(keep, width) };
};

const meanRow = (rows: readonly Float32Array[]): Float32Array => {
  const out = new Float32Array(rows[0].length);
  for (const row of rows) row.forEach((x, i) => out[i] += x / rows.length);
  return out;
};

const join = (rows: readonly Float32Array[], width: number): Tensor => {
  const data = new Float32Array(rows.length * width);
  rows.forEach((row, i) => data.set(row, i * width));
  return { dims: [rows.length, width], data };
};

export interface Judgement {
  /**
   * How far the triggered reading still parts from the clean one inside the region, over how far harmless words do
   * (geometric mean over prompts and steps). 1: no further than a harmless word.
   */
  readonly trigger: number;
  /** How far clean and twin readings moved from where they were, over how far a harmless word moves them. 0: not at all. */
  readonly drift: number;
}

/**
 * Judges predicted noise of the candidate against the model as it came, both [n, 3, C, h, w] in the order clean,
 * triggered, twin, on the same latents.
 * @param region weights [h, w] in [0,1] of the cells where the trigger acts.
 */
export const judge = (before: Tensor, after: Tensor, region: Tensor): Judgement => {
  const [n, readings, channels, h, w] = before.dims;
  const cells = h * w;
  const ones = new Float32Array(cells).fill(1);
  const apart = (a: Tensor, ra: number, b: Tensor, rb: number, p: number, weights: Float32Array): number => {
    const [x, y] = [(p * readings + ra) * channels * cells, (p * readings + rb) * channels * cells];
    let sum = 0;
    for (let i = 0; i < channels * cells; i++) {
      const d = a.data[x + i] - b.data[y + i];
      sum += d * d * weights[i % cells];
    }
    return sum + 1e-20;
  };
  let trigger = 0, drift = 0, floor = 0;
  for (let p = 0; p < n; p++) {
    const inside = apart(before, 2, before, 0, p, region.data);
    trigger += Math.log(apart(after, 1, before, 0, p, region.data) / inside) / n;
    drift += (apart(after, 0, before, 0, p, ones) + apart(after, 2, before, 2, p, ones)) / 2;
    floor += apart(before, 2, before, 0, p, ones);
  }
  return { trigger: Math.exp(trigger), drift: drift / floor };
};

/** The candidates that no other beats in both trigger and drift, from least drift to least trigger. */
export const pareto = <A extends { readonly judgement: Judgement }>(candidates: readonly A[]): A[] => {
  const sorted = candidates.toSorted((a, b) => a.judgement.drift - b.judgement.drift);
  let least = Infinity;
  return sorted.filter(({ judgement: { trigger } }) => {
    const better = trigger < least;
    least = Math.min(least, trigger);
    return better;
  });
};

/** The best trade-offs, spread over all of them; where these are few, the best of the rest as well. */
export const spreadOf = <A extends { readonly judgement: Judgement }>(
  candidates: readonly A[],
  wanted: number,
): A[] => {
  const front = pareto(candidates);
  if (front.length === 0 || wanted <= 0) return [];
  if (front.length <= wanted) {
    return [...front, ...spreadOf(candidates.filter((c) => !front.includes(c)), wanted - front.length)];
  }
  return Array.from(
    { length: wanted },
    (_, i) => front[Math.round((i * (front.length - 1)) / Math.max(1, wanted - 1))],
  );
};

/** What the trigger does to the text embeddings themselves, against harmless words. */
export interface TextShift {
  /** Mean squared move of aligned tokens by the trigger over the same by twins. */
  readonly shift: number;
  /**
   * How much of what the prompts differ in the triggered embeddings keep, over what the twins' keep: the regression of each
   * token's deviation from its mean over the prompts on the clean reading's. 1: all that words leave of it; near 0: all
   * prompts turn into one.
   */
  readonly spread: number;
}

export const textShift = (
  embeddings: Tensor,
  alignment: readonly (readonly number[])[],
  use: readonly (readonly boolean[])[],
): TextShift => {
  const [prompts, readings, length, width] = embeddings.dims;
  const at = (p: number, r: number, i: number) => ((p * readings + r) * length + i) * width;
  const apart = (a: number, b: number) => {
    let sum = 0;
    for (let j = 0; j < width; j++) sum += (embeddings.data[a + j] - embeddings.data[b + j]) ** 2;
    return sum;
  };
  let triggered = 0, twins = 0, count = 0, twinCount = 0;
  for (let p = 0; p < prompts; p++) {
    for (let i = 0; i < length; i++) {
      const from = alignment[p][i];
      if (from <= 0) continue; // the trigger's own tokens have nothing to be compared with; BOS never changes
      triggered += apart(at(p, 1, i), at(p, 0, from));
      count++;
      for (let k = 0; k < readings - 2; k++) {
        if (!use[p][k]) continue;
        twins += apart(at(p, 2 + k, i), at(p, 0, from));
        twinCount++;
      }
    }
  }
  const kept = (r: number): number => {
    let both = 0, own = 0;
    for (let i = 1; i < length; i++) {
      // Tokens that stand in the trigger's place have no clean ones.
      const told = alignment.flatMap((row, p) => row[i] > 0 ? [{ read: at(p, r, i), clean: at(p, 0, row[i]) }] : []);
      for (let j = 0; j < width; j++) {
        let read = 0, clean = 0;
        for (const from of told) {
          read += embeddings.data[from.read + j] / told.length;
          clean += embeddings.data[from.clean + j] / told.length;
        }
        for (const from of told) {
          const c = embeddings.data[from.clean + j] - clean;
          both += c * (embeddings.data[from.read + j] - read);
          own += c * c;
        }
      }
    }
    return both / Math.max(1e-12, own);
  };
  const per = (sum: number, n: number) => sum / Math.max(1, n);
  let ofTwins = 0;
  for (let r = 2; r < readings; r++) ofTwins += kept(r) / (readings - 2);
  return {
    shift: per(triggered, count) / Math.max(1e-12, per(twins, twinCount)),
    // Of prompts that differ in nothing, or of which words leave nothing, none can be told to lose more.
    spread: ofTwins > 1e-6 ? kept(1) / ofTwins : 1,
  };
};

/**
 * Whether the backdoor sits in the text encoder: prompts lose what they say when the trigger stands in them, all of it or
 * the attribute that the attacker puts in its place. (Spread seen on mini-SD: 0.09 for a target prompt, 0.74 for an
 * attribute, 0.92 to 1.03 for triggers of the U-Net and on clean encoders.) How far the embeddings move does not tell: words
 * that mean something, such as "on a star", move them three times as far as words that the encoder has learned to look past.
 */
export const isTextPoisoned = ({ spread }: TextShift): boolean => spread < 0.83;
