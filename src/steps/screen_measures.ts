/**
 * The arithmetic of screen, free of Effect: what taking a word out of a prompt does, held against what harmless words do
 * in harmless prompts of the same model.
 *
 * A word is judged by channels, since backdoors differ in where they sit; a prompt by the channel that stands out most.
 * - `rules`: without the word hardly any other word matters less, with it no other matters (a target prompt: the text
 *   encoder says the same whatever else is written).
 * - `letters`: plain letters in place of look-alikes change what the text says more than harmless letters' would.
 * - `keys`: keys and values of cross-attention amplify what the word changes in the text, as those do that an edit of
 *   concepts has changed.
 * - `reach`: the U-Net's answer moves further than what the text says does.
 * - `place`: the answer moves in one place beyond the rest.
 * - `later`: the answer moves further than is usual once there is a picture to change.
 * - `reading`: text, keys and values, cross-attention and answer all move further than such a word's usually do.
 */
import { quantileOfSorted } from "../tensor/quantile.ts";

/** What taking one part of a prompt out does; natural logarithms. */
export interface Measures {
  /** How far the end of the text moves, mean square an element. */
  readonly end: number;
  /** `end` beyond the mean of the two other words that matter most. */
  readonly rules: number;
  /** Largest ‖WΔ‖ / ‖Δ‖ over the words after it, W the keys and values of cross-attention. */
  readonly keys: number;
  /** `end` with plain letters, beyond that of harmless letters in their place; for look-alike letters only. */
  readonly letters?: number;
  /** Of the network, where it was asked. */
  readonly network?: NetworkMeasures;
}

export interface NetworkMeasures {
  /** How far the answer to pure noise moves, mean square. */
  readonly answer: number;
  /** The same in the sixteenth of the picture where it moves most, beyond the median sixteenth. */
  readonly place: number;
  /** How far the answer moves further along the sampling. */
  readonly later: number;
  /** How far cross-attention's contributions move there, relative to their size, mean over layers. */
  readonly attention: number;
}

export const CHANNELS = ["rules", "letters", "keys", "reach", "place", "later", "reading"] as const;
export type Channel = typeof CHANNELS[number];
/** Channels that need no answer of the network. */
export const TEXT_CHANNELS: ReadonlySet<Channel> = new Set(["rules", "letters", "keys"]);

/** What one part of a prompt showed. */
export interface Shown {
  /** What is known of the same word elsewhere goes by this name. */
  readonly word: string;
  readonly measures: Measures;
}

/** Changes of the text below this (mean square an element, of embeddings whose own is about 1) are told from none by rounding and place alone. */
const STILL = 1e-2;

/** The raw numbers that baselines are kept of. */
const RAW = ["rules", "reach", "place", "end", "keys", "later", "attention"] as const;
type Raw = typeof RAW[number];

const rawOf = ({ end, rules, keys, network }: Measures): Partial<Record<Raw, number>> => ({
  rules,
  end,
  keys,
  ...(network === undefined ? {} : {
    reach: network.answer - Math.log(Math.exp(end) + STILL),
    place: network.place,
    later: network.later,
    attention: network.attention,
  }),
});

/** Mean of one raw number over the occurrences of one word, and how many there were. */
interface Known {
  readonly count: number;
  readonly mean: number;
}

interface Baseline {
  /** Over the words' own means: what is expected of a word that is not known, and their spread. */
  readonly centre: number;
  readonly spread: number;
  readonly words: Readonly<Record<string, Known>>;
}

/** What a model's harmless prompts showed. Plain JSON. */
export interface Calibration {
  readonly baselines: Readonly<Record<Raw, Baseline>>;
  /** Of each channel: the median of harmless prompts' largest values, and what counts as 1 above it. */
  readonly channels: Readonly<Record<Channel, { readonly middle: number; readonly unit: number }>>;
  /** Scores of the harmless prompts of either kind, in ascending order, each judged by the others. */
  readonly scores: Readonly<Record<Kind, readonly number[]>>;
}

/** Prompts are held against those of their kind: with letters of another alphabet in their words (`letters`), or without. */
export type Kind = "plain" | "letters";

/** The kind of a prompt with such parts. */
export const kindOf = (parts: readonly Shown[]): Kind =>
  parts.some(({ measures }) => measures.letters !== undefined) ? "letters" : "plain";

/** A word's own mean, drawn towards the mean of all words by one occurrence's weight. */
const expected = (b: Baseline, known: Known | undefined): number => {
  const own = known === undefined ? b.centre : (b.centre + known.count * known.mean) / (1 + known.count);
  // A harmless word that does much is excused; one that does little does not accuse itself by doing more.
  return Math.max(b.centre, own);
};

/** Beyond what is expected of the word, in units of the spread between words. */
const beyond = (b: Baseline, value: number, known: Known | undefined): number =>
  (value - expected(b, known)) / b.spread;

const without = (known: Known | undefined, values: readonly number[]): Known | undefined => {
  if (known === undefined || values.length === 0) return known;
  const count = known.count - values.length;
  return count <= 0
    ? undefined
    : { count, mean: (known.count * known.mean - values.reduce((a, b) => a + b, 0)) / count };
};

type Lookup = (raw: Raw, word: string) => Known | undefined;

/** Each channel's value of one part, before it is brought to the channel's unit. */
const channelsOf = (
  baselines: Calibration["baselines"],
  { word, measures }: Shown,
  lookup: Lookup,
): Partial<Record<Channel, number>> => {
  const raw = rawOf(measures);
  const z = (name: Raw) => {
    const value = raw[name];
    return value === undefined ? undefined : beyond(baselines[name], value, lookup(name, word));
  };
  const read = [z("end"), z("keys"), z("later"), z("attention")].filter((x) => x !== undefined);
  const all: Record<Channel, number | undefined> = {
    rules: z("rules"),
    letters: measures.letters,
    keys: z("keys"),
    reach: z("reach"),
    place: z("place"),
    later: z("later"),
    reading: read.length < 4 ? undefined : read.reduce((a, b) => a + b, 0) / read.length,
  };
  return Object.fromEntries(Object.entries(all).filter(([, value]) => value !== undefined));
};

/** A part of a prompt with its score: 1 is where the upper tenth of harmless prompts begins. */
export interface Scored {
  readonly score: number;
  /** The channel that stands out most. */
  readonly channel: Channel;
  readonly channels: Partial<Record<Channel, number>>;
}

/**
 * How many times further than harmless prompts' upper tenth a channel must stand out to count as much. Where a trigger
 * shows by `rules`, `reach` or `place` it does so by far; in `reading` it may differ little from a strong word.
 */
const MARGINS: Readonly<Record<Channel, number>> = {
  rules: 3,
  letters: 1,
  keys: 1.5,
  reach: 1.5,
  place: 1.5,
  later: 1,
  reading: 1,
};

const scoreOf = (values: Partial<Record<Channel, number>>, units: Calibration["channels"]): Scored => {
  const channels: Partial<Record<Channel, number>> = {};
  let channel: Channel = "rules", score = -Infinity;
  for (const name of CHANNELS) {
    const value = values[name];
    if (value === undefined) continue;
    const scaled = (value - units[name].middle) / units[name].unit;
    channels[name] = scaled;
    if (scaled > score) [channel, score] = [name, scaled];
  }
  return { score, channel, channels };
};

/** Scores every part of a prompt. */
export const scoreParts = ({ baselines, channels }: Calibration, parts: readonly Shown[]): Scored[] => {
  const lookup: Lookup = (raw, word) =>
    Object.hasOwn(baselines[raw].words, word) ? baselines[raw].words[word] : undefined;
  return parts.map((part) => scoreOf(channelsOf(baselines, part, lookup), channels));
};

const highest = (values: readonly number[]): number => values.reduce((a, b) => Math.max(a, b), -Infinity);

/**
 * What harmless prompts show. Each prompt is judged by the others: a word's own mean leaves the prompt out, so that the
 * scores are those of prompts that were not seen.
 * @throws RangeError for fewer than two prompts with parts
 */
export const calibrationOf = (prompts: readonly (readonly Shown[])[]): Calibration => {
  const used = prompts.filter((parts) => parts.length > 0);
  if (used.length < 2) throw new RangeError(`calibrationOf: ${used.length} harmless prompts; needs two at least`);
  const baseline = (name: Raw): Baseline => {
    const words = new Map<string, number[]>();
    for (const { word, measures } of used.flat()) {
      const value = rawOf(measures)[name];
      if (value !== undefined) words.set(word, [...words.get(word) ?? [], value]);
    }
    const means = [...words].map(([word, values]) =>
      [word, values.reduce((a, b) => a + b, 0) / values.length] as const
    );
    const middle = means.reduce((sum, [, m]) => sum + m, 0) / Math.max(1, means.length);
    const variance = means.reduce((sum, [, m]) => sum + (m - middle) ** 2, 0) / Math.max(1, means.length);
    // A word that nobody knows may be what a prompt is about, and then much hangs on it alone.
    const centre = name === "rules" ? highest(means.map(([, m]) => m)) : middle;
    return {
      centre,
      spread: Math.sqrt(variance) + 1e-6,
      words: Object.fromEntries(means.map(([word, mean]) => [word, { count: words.get(word)!.length, mean }])),
    };
  };
  const baselines: Calibration["baselines"] = {
    rules: baseline("rules"),
    reach: baseline("reach"),
    place: baseline("place"),
    end: baseline("end"),
    keys: baseline("keys"),
    later: baseline("later"),
    attention: baseline("attention"),
  };
  const values = used.map((parts) => {
    const own = Map.groupBy(parts, ({ word }) => word);
    const lookup: Lookup = (raw, word) => {
      const known = Object.hasOwn(baselines[raw].words, word) ? baselines[raw].words[word] : undefined;
      const here = (own.get(word) ?? fallbackParts).flatMap(({ measures }) => rawOf(measures)[raw] ?? []);
      return without(known, here);
    };
    return parts.map((part) => channelsOf(baselines, part, lookup));
  });
  const unitOf = (channel: Channel) => {
    const tops = values.map((parts) => highest(parts.flatMap((v) => v[channel] ?? []))).filter(Number.isFinite);
    const sorted = tops.sort((a, b) => a - b);
    if (sorted.length === 0) return { middle: 0, unit: 1 };
    const middle = quantileOfSorted(sorted, 0.5);
    return { middle, unit: MARGINS[channel] * (quantileOfSorted(sorted, 0.9) - middle) + 1e-6 };
  };
  const channels: Calibration["channels"] = {
    rules: unitOf("rules"),
    letters: unitOf("letters"),
    keys: unitOf("keys"),
    reach: unitOf("reach"),
    place: unitOf("place"),
    later: unitOf("later"),
    reading: unitOf("reading"),
  };
  const scoresOf = (kind: Kind) =>
    values.filter((_, i) => kindOf(used[i]) === kind).map((parts) =>
      highest(parts.map((v) => scoreOf(v, channels).score))
    ).sort((a, b) => a - b);
  return { baselines, channels, scores: { plain: scoresOf("plain"), letters: scoresOf("letters") } };
};

const fallbackParts: readonly Shown[] = [];

/**
 * The share of harmless prompts that score as high or higher, the prompt itself counted (the p-value of conformal
 * prediction: Vovk, Gammerman, Shafer 2005). A harmless prompt like those of the calibration falls below p with
 * probability p at most.
 */
export const pValue = (scores: readonly number[], score: number): number => {
  let low = 0, high = scores.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (scores[middle] < score) low = middle + 1;
    else high = middle;
  }
  return (1 + scores.length - low) / (scores.length + 1);
};

/** The lowest score that is flagged at a rate of false positives; Infinity where the prompts are too few for it. */
export const thresholdOf = (scores: readonly number[], rate: number): number => {
  const allowed = Math.floor(rate * (scores.length + 1));
  // With `allowed` = 1 a score must exceed all of them: p = 1 / (n + 1).
  return allowed < 1 ? Infinity : scores[scores.length - allowed];
};
