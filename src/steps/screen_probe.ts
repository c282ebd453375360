/**
 * Asks a model what each part of a prompt does: first its text encoder, then, where that is not enough, its U-Net at two
 * timesteps. Nothing is sampled: the first answer to pure noise also says where the second timestep is looked at from.
 */
import { Effect } from "effect";
import type { Bundle } from "../diffusion/bundle.ts";
import { BundleError } from "../diffusion/errors.ts";
import { openEvaluator } from "../diffusion/evaluator.ts";
import { openKeysReach } from "../diffusion/keys_reach.ts";
import type { ReadPrompt, Removal } from "../diffusion/removals.ts";
import { latentDims } from "../diffusion/sampler.ts";
import { planFor } from "../diffusion/plan.ts";
import { alphaBars, type SchedulerConfig } from "../diffusion/scheduler.ts";
import { openTextEncoder } from "../diffusion/text.ts";
import type { Tokenizer } from "../diffusion/tokenizer.ts";
import { parseUnetConfig } from "../models/unet_2d_condition.ts";
import { normal, seedOf } from "../tensor/random.ts";
import { slice0, type Tensor, zeros } from "../tensor/tensor.ts";
import type { Measures, NetworkMeasures, Shown } from "./screen_measures.ts";

/** Readings that share their latents in one evaluation: the whole prompt and seven without a part each. */
const READINGS = 8;
/** Sampling steps of the schedule that the timesteps are taken from, and the second of them: a third of the way. */
const STEPS = 12, LATER = 4;
/** The picture's sixteenths: cells of a grid of this side. */
const GRID = 4;
/** Changes this small, relative to the answer's own power, cannot be told from rounding. */
const ROUNDING = 2e-5;
/** Embeddings move by this part of their own length at least before their gain is looked at. */
const LEAST = 0.05;
/** Logarithms begin here. */
const EPSILON = 1e-9;

const ln = (x: number, least = EPSILON): number => Math.log(Math.max(x, least));

/** A prompt whose parts' texts were encoded. */
export interface Encoded {
  readonly prompt: ReadPrompt;
  /** Measures of the text alone, one for each removal. */
  readonly text: readonly Omit<Measures, "network">[];
  /** Embeddings of the whole prompt, then without each part, [1 + n, L, D]. */
  readonly embeddings: Tensor;
}

/** The name by which what harmless prompts show of a word is kept. */
export const wordOf = ({ kind, text }: Removal): string => kind === "letters" ? " letters" : text.toLowerCase();

/** Prompt, parts and measures brought together. */
export const shownOf = (
  { prompt, text }: Encoded,
  network?: readonly NetworkMeasures[],
): Shown[] =>
  prompt.removals.map((removal, i) => ({
    word: wordOf(removal),
    measures: { ...text[i], ...(network === undefined ? {} : { network: network[i] }) },
  }));

/** BOS, the content, EOS and padding. */
const idsOf = ({ bos, eos, pad, maxLength }: Tokenizer, content: readonly number[]): number[] => {
  const ids = [bos, ...content.slice(0, maxLength - 2), eos];
  while (ids.length < maxLength) ids.push(pad);
  return ids;
};

/** Mean square an element between position p of row i and position q of row j. */
const apart = ({ dims: [, length, width], data }: Tensor, i: number, p: number, j: number, q: number): number => {
  const [a, b] = [(i * length + p) * width, (j * length + q) * width];
  let sum = 0;
  for (let k = 0; k < width; k++) sum += (data[a + k] - data[b + k]) ** 2;
  return sum / width;
};

/** How far the end of the text moves: EOS against EOS, and the padding behind both; halves of one mean. */
const endOf = (rows: Tensor, i: number, from: number, j: number, to: number): number => {
  const length = rows.dims[1];
  const eos = apart(rows, i, from + 1, j, to + 1);
  let padding = 0, count = 0;
  for (let p = Math.max(from, to) + 2; p < length; p++, count++) padding += apart(rows, i, p, j, p);
  return count === 0 ? eos : (eos + padding / count) / 2;
};

/** ε and x₀ from the network's output at ᾱ = bar, then x at ᾱ = to: one deterministic step of any length. */
const jump = (
  kind: SchedulerConfig["prediction_type"],
  bar: number,
  to: number,
  x: Float32Array,
  out: Float32Array,
) => {
  const [s, n] = [Math.sqrt(bar), Math.sqrt(1 - bar)];
  const [a, b] = [Math.sqrt(to), Math.sqrt(1 - to)];
  return x.map((v, i) => {
    const [clean, noise] = kind === "epsilon"
      ? [(v - n * out[i]) / Math.max(s, 1e-4), out[i]]
      : kind === "v_prediction"
      ? [s * v - n * out[i], s * out[i] + n * v]
      : [out[i], (v - s * out[i]) / Math.max(n, 1e-4)];
    return a * clean + b * noise;
  });
};

const correlation = (a: Float32Array, b: Float32Array): number => {
  let [ab, aa, bb] = [0, 0, 0];
  for (let i = 0; i < a.length; i++) {
    ab += a[i] * b[i];
    aa += a[i] * a[i];
    bb += b[i] * b[i];
  }
  return ab / Math.sqrt(aa * bb + 1e-30);
};

/** Mean square by sixteenth of the picture, of rows `row` and 0 of one group. */
const sixteenths = (noise: Tensor, group: number, row: number): Float64Array => {
  const [, readings, channels, h, w] = noise.dims, cells = h * w, size = channels * cells;
  const [whole, part] = [0, row].map((r) => (group * readings + r) * size);
  const sums = new Float64Array(GRID * GRID), counts = new Float64Array(GRID * GRID);
  for (let i = 0; i < size; i++) {
    const cell = i % cells, y = Math.floor(cell / w), x = cell % w;
    const block = Math.floor(y * GRID / h) * GRID + Math.floor(x * GRID / w);
    sums[block] += (noise.data[part + i] - noise.data[whole + i]) ** 2;
    counts[block]++;
  }
  return sums.map((sum, i) => counts[i] === 0 ? NaN : sum / counts[i]).filter((v) => !Number.isNaN(v));
};

/** U-Net evaluations that a prompt with so many parts takes: whole and parts, at two timesteps. */
export const evaluationsFor = (parts: number): number => 2 * (parts + Math.ceil(parts / (READINGS - 1)));

export interface ProbeOptions {
  readonly seed: number;
  /** Looks at a model that draws noise as well. */
  readonly anyway: boolean;
}

/** Opens a model for questions about prompts. */
export const openProbe = Effect.fnUntraced(function* (bundle: Bundle, options: ProbeOptions) {
  const { tokenizer, scheduler } = bundle;
  if (bundle.parts.text_encoder_2 !== undefined) {
    return yield* new BundleError({
      file: bundle.root.path,
      problem: "has two text encoders (SDXL), for which screening is not built",
      expected: "a model with one text encoder, such as Stable Diffusion 1.x or 2.x",
    });
  }
  const dims = latentDims(parseUnetConfig(bundle.parts.unet.config));
  const size = dims.reduce((a, b) => a * b, 1);
  const encodeTexts = yield* openTextEncoder(bundle);
  const keysReach = yield* openKeysReach(bundle);
  const evaluate = yield* openEvaluator(bundle, READINGS, { attention: true });
  const steps = Math.min(STEPS, scheduler.num_train_timesteps);
  const timesteps = (yield* planFor(bundle, { steps, scheduler: "ddim" })).steps.map(({ timestep }) => timestep);
  const [first, later] = [timesteps[0], timesteps[Math.min(LATER, timesteps.length - 1)]];
  const bars = alphaBars(scheduler);
  const start = normal(seedOf(options.seed, "screen", "noise"), [1, ...dims]);
  const broken = (problem: string) =>
    new BundleError({
      file: bundle.root.path,
      problem,
      expected: "a U-Net that predicts the noise it is given",
      hint:
        "What such a model draws is noise whatever the prompt says, so no word can be judged by it. Are U-Net, text " +
        "encoder and scheduler of one model? `anyway: true` looks at it all the same.",
    });
  let evaluations = 0;

  /** Texts of prompts and of their parts. */
  const encode = Effect.fnUntraced(function* (prompts: readonly ReadPrompt[]) {
    const texts = prompts.map(({ content, removals }) => [
      content.map(({ id }) => id),
      ...removals.map(({ rest }) => rest),
      ...removals.flatMap(({ twins }) => twins),
    ]);
    if (prompts.length === 0) return [];
    const all = yield* encodeTexts(texts.flat().map((content) => idsOf(tokenizer, content)));
    const [, length, width] = all.dims;
    let at = 0;
    const found: { readonly encoded: Encoded; readonly changes: readonly Float32Array[][] }[] = [];
    for (const [p, prompt] of prompts.entries()) {
      const { removals } = prompt;
      const own = slice0(all, at, at + texts[p].length);
      at += texts[p].length;
      const lengths = texts[p].map((content) => Math.min(content.length, length - 2));
      let twin = 1 + removals.length;
      const ends = removals.map((_, r) => endOf(own, 0, lengths[0], r + 1, lengths[r + 1]));
      const text = removals.map((removal, r): Omit<Measures, "network"> => {
        const mine = new Set(removal.tokens);
        const others = ends.filter((_, o) => o !== r && !removals[o].tokens.some((t) => mine.has(t)))
          .map((x) => ln(x, 1e-4)).sort((a, b) => b - a).slice(0, 2);
        const end = ln(ends[r], 1e-4);
        const spelled = removal.twins.map(() => {
          const value = endOf(own, twin, lengths[twin], r + 1, lengths[r + 1]);
          twin++;
          return ln(value, 1e-4);
        });
        return {
          end,
          rules: others.length < 2 ? 0 : end - (others[0] + others[1]) / 2,
          keys: 0,
          ...(spelled.length === 0 ? {} : { letters: end - spelled.reduce((a, b) => a + b, 0) / spelled.length }),
        };
      });
      // Tokens behind the last one taken out stand that much further to the left without it.
      const changes = removals.map(({ tokens }, r) => {
        const after = (tokens.at(-1) ?? -1) + 1, shift = lengths[r + 1] - lengths[0];
        return Array.from({ length: Math.max(0, lengths[0] + 2 - (after + 1)) }, (_, k) => {
          const position = after + 1 + k;
          const [a, b] = [position * width, ((r + 1) * length + position + shift) * width];
          return Float32Array.from({ length: width }, (_, i) => own.data[a + i] - own.data[b + i]);
        });
      });
      found.push({ encoded: { prompt, text, embeddings: slice0(own, 0, 1 + removals.length) }, changes });
    }
    const flat = found.flatMap(({ changes }) => changes.flat());
    const moved = zeros([Math.max(1, flat.length), width]);
    flat.forEach((change, i) => moved.data.set(change, i * width));
    const reach = yield* keysReach(moved);
    // The usual length of an embedding, over what was read just now.
    let power = 0;
    for (const x of all.data) power += x * x;
    const floor = LEAST * Math.sqrt(power * width / all.data.length);
    let next = 0;
    return found.map(({ encoded, changes }): Encoded => ({
      ...encoded,
      text: encoded.text.map((text, r) => {
        let most = 0;
        for (const change of changes[r]) {
          const norm = Math.sqrt(change.reduce((sum, x) => sum + x * x, 0));
          most = Math.max(most, Math.sqrt(reach[next++]) / (norm + floor));
        }
        return { ...text, keys: ln(most, 1e-3) };
      }),
    }));
  });

  /** The network's answers for every part of the prompts. */
  const ask = Effect.fnUntraced(function* (prompts: readonly Encoded[]) {
    const groups = prompts.flatMap(({ prompt: { removals } }, p) =>
      Array.from({ length: Math.ceil(removals.length / (READINGS - 1)) }, (_, g) => {
        const begin = g * (READINGS - 1);
        return { p, begin, count: Math.min(READINGS - 1, removals.length - begin) };
      })
    );
    if (groups.length === 0) return prompts.map((): NetworkMeasures[] => []);
    const [, length, width] = prompts[0].embeddings.dims, row = length * width;
    const contexts = zeros([groups.length, READINGS, length, width]);
    for (const [g, { p, begin, count }] of groups.entries()) {
      for (let r = 0; r < READINGS; r++) {
        // Row 0 is the whole prompt; a short group is filled up with it.
        const from = r === 0 || r > count ? 0 : begin + r;
        contexts.data.set(prompts[p].embeddings.data.subarray(from * row, (from + 1) * row), (g * READINGS + r) * row);
      }
    }
    const at = zeros([groups.length, ...dims]);
    groups.forEach((_, g) => at.data.set(start.data, g * size));
    const early = (yield* evaluate(at, contexts, first)).noise;
    if (!early.data.every(Number.isFinite)) return yield* broken("answers with numbers that are not finite");
    const whole = (g: number) => early.data.subarray(g * READINGS * size, (g * READINGS + 1) * size);
    if (!options.anyway && scheduler.prediction_type === "epsilon" && correlation(whole(0), start.data) < 0.5) {
      return yield* broken("does not find the noise in pure noise");
    }
    const power = early.data.reduce((sum, x) => sum + x * x, 0) / early.data.length;
    groups.forEach((_, g) =>
      at.data.set(jump(scheduler.prediction_type, bars[first], bars[later], start.data, whole(g)), g * size)
    );
    const then = yield* evaluate(at, contexts, later);
    evaluations += prompts.reduce((sum, { prompt }) => sum + evaluationsFor(prompt.removals.length), 0);
    const results = prompts.map((): NetworkMeasures[] => []);
    for (const [g, { p, count }] of groups.entries()) {
      for (let r = 1; r <= count; r++) {
        const blocks = sixteenths(early, g, r).sort();
        const mean = blocks.reduce((a, b) => a + b, 0) / blocks.length;
        const moved = sixteenths(then.noise, g, r);
        const floor = ROUNDING * power;
        results[p].push({
          answer: ln(mean, floor * 1e-2),
          place: ln(blocks[blocks.length - 1], floor * 0.05) - Math.log(blocks[blocks.length >> 1] + floor),
          later: ln(moved.reduce((a, b) => a + b, 0) / moved.length, floor * 1e-2),
          attention: then.layers.reduce((sum, { response }) => sum + ln(response.data[g * READINGS + r], 1e-6), 0) /
            Math.max(1, then.layers.length),
        });
      }
    }
    return results;
  });

  return { encode, ask, evaluations: () => evaluations };
});
export type Probe = Effect.Success<ReturnType<typeof openProbe>>;
