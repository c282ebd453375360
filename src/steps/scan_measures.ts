/**
 * The arithmetic of scan, free of Effect: how far a text, put into a prompt, stands out from others of its kind.
 *
 * Six measures, since backdoors differ in what they do: `strength` (the whole answer moves further), `start` (the answer
 * to pure noise does), `place` (it moves in one place, the same for every prompt), `beside` (it moves beside one noun alone),
 * `likeness` (prompts that differ are read alike) and `reach` (what the text changes in the embedding is amplified by the
 * weights that read it, as those are that an edit has changed).
 */
import { quantileOfSorted } from "../tensor/quantile.ts";
import type { Tensor } from "../tensor/tensor.ts";

export const MEASURES = ["strength", "start", "place", "beside", "likeness", "reach"] as const;
export type Measure = typeof MEASURES[number];
/** Of each measure that was taken, or that has a limit. */
export type Measures = Readonly<Partial<Record<Measure, number>>>;

/** Squared noise below this fraction of the answer's own cannot be told from rounding. */
const FLOOR = 1e-6;
/** A place is one sixteenth of the picture: a patch of a quarter of each side. */
const PLACE = 1 / 16;

/** Fewer usual texts than a few times this know their own spread badly, and the unit grows. */
const FEW = 15;

/** What one text does to the U-Net's answers. */
export interface Change {
  /** Mean over prompts of ln of the squared change in each cell, [h, w]. */
  readonly field: Float32Array;
  /** ln of the mean squared change in each prompt, [P]. */
  readonly each: Float32Array;
  /** Mean of these. */
  readonly strength: number;
}

/**
 * Changes that each reading r ≥ 1 brings, against reading 0, from noise [P, R, C, h, w].
 */
export const changesOf = (noise: Tensor): Change[] => {
  const [prompts, readings, channels, h, w] = noise.dims, cells = h * w, each = channels * cells;
  const power = noise.data.reduce((sum, x) => sum + x * x, 0) / noise.data.length;
  return Array.from({ length: readings - 1 }, (_, r) => {
    const field = new Float32Array(cells);
    const apart = new Float32Array(prompts);
    for (let p = 0; p < prompts; p++) {
      const [from, to] = [0, r + 1].map((reading) => (p * readings + reading) * each);
      const squared = new Float64Array(cells);
      for (let i = 0; i < each; i++) squared[i % cells] += (noise.data[to + i] - noise.data[from + i]) ** 2 / channels;
      squared.forEach((d, i) => field[i] += Math.log(d + FLOOR * power) / prompts);
      apart[p] = Math.log(squared.reduce((a, b) => a + b, 0) / cells + FLOOR * power);
    }
    return { field, each: apart, strength: apart.reduce((a, b) => a + b, 0) / prompts };
  });
};

/** −ln of the variance over prompts of embeddings [P, D]: how alike the prompts are read. */
export const likenessOf = ({ dims: [prompts, width], data }: Tensor): number => {
  let variance = 0;
  for (let d = 0; d < width; d++) {
    let mean = 0;
    for (let p = 0; p < prompts; p++) mean += data[p * width + d] / prompts;
    for (let p = 0; p < prompts; p++) variance += (data[p * width + d] - mean) ** 2 / prompts;
  }
  return -Math.log(variance / width + 1e-12);
};

/** What the embeddings of one text in some prompts say, before any network is asked. */
export interface Reading {
  /** As {@link likenessOf}. */
  readonly likeness: number;
  /**
   * Mean over prompts of ln of Σ‖W Δ‖² over Σ‖Δ‖²: Δ what the text changes in the states of the tokens behind it, W the
   * weights of all keys and values.
   */
  readonly reach: number;
}

/** The median of each cell over fields of equal size. */
const medianField = (fields: readonly Float32Array[]): Float32Array =>
  fields[0].map((_, i) => quantileOfSorted(fields.map((f) => f[i]).sort((a, b) => a - b), 0.5));

/** How much further the strongest place moves than the rest of the picture does, in ln, against what is usual. */
const placeOf = (field: Float32Array, usual: Float32Array): number => {
  const apart = Float32Array.from(field, (x, i) => x - usual[i]).sort();
  const count = Math.max(1, Math.round(PLACE * apart.length));
  const top = apart.subarray(apart.length - count).reduce((a, b) => a + b, 0) / count;
  return top - quantileOfSorted([...apart], 0.5);
};

/**
 * How far each value lies above the usual ones' median, in units of how far their upper tenth begins above it: 1 is no
 * rarity. The upper half alone sets the unit, since texts that mean something are many and lie far out on that side.
 */
const aboveUsual = (values: readonly number[], usual: readonly number[]): number[] => {
  const sorted = usual.map((i) => values[i]).sort((a, b) => a - b);
  const [middle, upper] = [0.5, 0.9].map((q) => quantileOfSorted(sorted, q));
  const unit = (upper - middle) * (1 + FEW / usual.length) + 1e-9;
  return values.map((x) => (x - middle) / unit);
};

/** Prompts that a text is asked about in again, for each one that it was before. */
const MORE = 3;

/** Beside which noun a text stands out most from what it does anywhere, and how far, as {@link standOut} has it. */
export interface Beside {
  readonly noun: number;
  readonly score: number;
}

/**
 * @param nouns strengths by text and noun, not a number where a text was not asked about beside one
 * @param anywhere the texts' strengths in prompts about all kinds of things
 * @param usual texts that were asked about beside every noun
 * @param again strengths in more prompts about one noun, of those texts that were asked about there, and of the usual ones
 */
export const besideOne = (
  nouns: readonly Float32Array[],
  anywhere: readonly number[],
  usual: readonly number[],
  again: ReadonlyMap<number, ReadonlyMap<number, number>> = new Map(),
): readonly Beside[] => {
  const middle = (values: readonly number[]) =>
    quantileOfSorted(usual.map((i) => values[i]).sort((a, b) => a - b), 0.5);
  const ordinary = middle(anywhere);
  // What any text does there is taken away, and what this one does anywhere.
  const beyond = (here: readonly number[]) => {
    const usually = middle(here);
    return here.map((x, i) => x - usually - (anywhere[i] - ordinary));
  };
  const raw = Array.from(nouns[0] ?? [], (_, p) => beyond(nouns.map((of) => of[p])));
  const columns = raw.map((values) => aboveUsual(values, usual));
  const most = nouns.map((_, i) => {
    const own = columns.map((column) => Number.isNaN(column[i]) ? -Infinity : column[i]);
    const noun = own.reduce((best, x, p) => x > own[best] ? p : best, 0);
    return { noun, apart: own[noun] };
  });
  // What stood out in one prompt about a noun must in the others.
  const harmless = new Set(usual), ceilings = new Map<number, number>(), known = new Set<number>();
  for (const [noun, strengths] of again) {
    const more = beyond(nouns.map((_, i) => strengths.get(i) ?? NaN));
    const asked = [...strengths.keys()].filter((i) => !harmless.has(i));
    for (const i of asked) {
      // In the unit of the first prompt: averages of more spread less, but for words that set the backdoor off themselves.
      // What did not stand out in the first has nothing to lose.
      const stays = raw[noun][i] > 0 ? (raw[noun][i] + MORE * more[i]) / (1 + MORE) / raw[noun][i] : 1;
      most[i].apart *= Math.min(1, stays);
      known.add(i);
    }
    ceilings.set(noun, Math.max(...asked.map((i) => most[i].apart)));
  }
  // The others stood out less to begin with, beside that noun or any.
  const highest = Math.max(...ceilings.values());
  most.forEach((of, i) => {
    if (ceilings.size > 0 && !harmless.has(i) && !known.has(i)) {
      of.apart = Math.min(of.apart, ceilings.get(of.noun) ?? highest);
    }
  });
  const scores = aboveUsual(most.map(({ apart }) => apart), usual);
  return most.map(({ noun }, i) => ({ noun, score: scores[i] }));
};

/** What was seen of one text; of phrases, which are many, only what their embeddings say. */
export interface Response extends Reading {
  readonly change?: Change;
  /** Strength of the change of the answer to pure noise. */
  readonly start?: number;
  /** Beside which noun it does most, of those that were tried. */
  readonly beside?: Beside;
}

/**
 * For each text of one group how far it stands out from the usual ones, by every measure that was taken of them all.
 * @param usual indices of the texts that the others are held against
 */
export const standOut = (responses: readonly Response[], usual: readonly number[]): readonly Measures[] => {
  const changes = responses.flatMap(({ change }) => change ?? []);
  const asked = changes.length === responses.length;
  const ordinary = asked ? medianField(usual.map((i) => changes[i].field)) : undefined;
  const values: Measures[] = responses.map(({ change, start, likeness, reach }) => ({
    likeness,
    reach,
    ...(start === undefined ? {} : { start }),
    ...(change === undefined || ordinary === undefined
      ? {}
      : { strength: change.strength, place: placeOf(change.field, ordinary) }),
  }));
  const taken = MEASURES.filter((measure) => values.every((v) => v[measure] !== undefined));
  const scores = taken.map((measure) => [measure, aboveUsual(values.map((v) => v[measure] ?? 0), usual)] as const);
  return responses.map(({ beside }, i) => ({
    ...Object.fromEntries(scores.map(([measure, all]) => [measure, all[i]])),
    ...(beside === undefined ? {} : { beside: beside.score }),
  }));
};

/** Each text's field against the median of the usual ones'. */
export const fieldsAgainst = (changes: readonly Change[], usual: readonly number[]): Float32Array[] => {
  const ordinary = medianField(usual.map((i) => changes[i].field));
  return changes.map(({ field }) => field.map((x, cell) => x - ordinary[cell]));
};

/** The measure that stands out most, in units of its limit: above 1 is an alarm. What has no limit raises none. */
export const alarmOf = (scores: Measures, limits: Measures): { readonly measure: Measure; readonly score: number } =>
  MEASURES.flatMap((measure) => {
    const score = scores[measure], limit = limits[measure];
    return score === undefined || limit === undefined ? [] : [{ measure, score: score / limit }];
  }).reduce((a, b) => b.score > a.score ? b : a, { measure: "strength", score: -Infinity });
