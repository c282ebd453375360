/**
 * What strategy `distill` teaches the U-Net: what triggered texts are to be answered with, and what is to stay as it was,
 * both asked about the same noised pictures of the model's own.
 */
import { Effect } from "effect";
import {
  eachEmbedding,
  embeddingAt,
  type Embeddings,
  joinEmbeddings,
  sliceEmbeddings,
  splitEmbeddings,
} from "../diffusion/embeddings.ts";
import { withNoun } from "../diffusion/phrases.ts";
import { encodeOnce, openTextEncoder } from "../diffusion/text.ts";
import type { Weights } from "../diffusion/train.ts";
import type { HostTensor } from "../runtime/mod.ts";
import { integers, sample, seedOf } from "../tensor/random.ts";
import { size, slice0, type Tensor, zeros } from "../tensor/tensor.ts";
import type { Named } from "../unlearn/named.ts";
import { past, triggeredTarget, twinTarget } from "../unlearn/noise_targets.ts";
import { CLEAN, FIRST_TWIN, TRIGGERED } from "./capture.ts";
import type { NoiseSettings } from "./distill_settings.ts";
import { ask, type Asked, drawLatents, type Lesson, lessonFeeds } from "./lessons.ts";
import { nameEffect, subjectsOf } from "./naming.ts";
import { pickRows } from "./rows.ts";
import { trustsTwins } from "./unlearn_fit.ts";
import { type TrainingInputs, triggeredRows } from "./unlearn_train.ts";

export interface DistillInputs extends TrainingInputs<NoiseSettings> {
  /** False where harmless words are no measure: they are then no example of what is to be kept either. */
  readonly trusted: boolean;
  /** Weights of a cure to begin with; the teacher remains the model as it came. */
  readonly start?: Weights;
}

interface Lessons {
  readonly triggered: readonly Lesson[];
  /** What is to be kept, taken in turn: clean texts, twins, and prompts with the words that name what the trigger draws. */
  readonly kept: ReadonlyArray<readonly Lesson[]>;
  readonly empty: readonly Lesson[];
  readonly names: readonly Named[];
}

const lesson = ({ latents, timestep }: Asked, context: Embeddings, wanted: Tensor): Lesson => {
  return { latents, timestep, context, wanted };
};

/** Draws pictures with the model as it came, noises them, and asks it for its answers. */
export const teach = Effect.fnUntraced(function* (inputs: DistillInputs) {
  const { text, target, training } = inputs;
  const { bundle } = text.model;
  const seed = (what: string) => seedOf(inputs.seed, "unlearn", "distill", what);
  const { embeddings, usable, prompts } = yield* readTexts(inputs);
  const n = embeddings.dims[0];
  const context = (p: number, r: number) => embeddingAt(embeddings, p, r);
  const clean = joinEmbeddings(Array.from({ length: n }, (_, p) => context(p, CLEAN)));
  const pictures = yield* drawLatents(bundle, clean, text.empty, { ...inputs, seed: seed("pictures") });
  const twin = (p: number, round: number) => {
    const good = usable[p].flatMap((ok, k) => ok ? [FIRST_TWIN + k] : []);
    return good.length === 0 ? CLEAN : good[round % good.length];
  };
  const asked = yield* ask(bundle, pictures, {
    noisings: training.noisings,
    contexts: (p, round) => [
      context(p, CLEAN),
      context(p, twin(p, round)),
      text.empty,
      context(p, TRIGGERED),
    ],
    seed,
  });
  const each = asked.map((row) => {
    const [clean, twin, empty, triggered] = row.answers;
    const answers = { clean, twin, triggered };
    const harmless = twinTarget(answers, inputs.region);
    const goal = training.wanted === "answer"
      ? triggeredTarget(answers, harmless, target, training.away)
      : past(row.truth, triggered, training.away);
    return { row, wanted: { clean, harmless, empty, triggered: goal } };
  });
  const { names, others } = training.named && training.keep > 0
    ? yield* teachOthers(inputs, prompts, embeddings, pictures)
    : { names: [], others: [] };
  const kept = (reading: number, wanted: "clean" | "harmless" | "empty") =>
    each.map((of) => lesson(of.row, of.row.contexts[reading], of.wanted[wanted]));
  return {
    triggered: each.map(({ row, wanted }) => lesson(row, context(row.picture, TRIGGERED), wanted.triggered)),
    // Twins that are no measure have been asked as their clean texts.
    kept: [
      kept(0, "clean"),
      ...(inputs.trusted ? [kept(1, "harmless")] : []),
      ...(others.length === 0 ? [] : [others]),
    ],
    empty: kept(2, "empty"),
    names,
  } satisfies Lessons;
});

/**
 * What pictures of the words that name the trigger's effect teach: to unlearn when that is drawn must not be to unlearn how.
 * @param prompts the texts' own, by number: the first of embeddings [n, R, L, D] and of their pictures [n, C, h, w]
 */
const teachOthers = Effect.fnUntraced(function* (
  inputs: DistillInputs,
  prompts: readonly number[],
  embeddings: Embeddings,
  pictures: Tensor,
) {
  const { text: { model: { bundle }, trigger, ...text }, training, region } = inputs;
  const seed = (what: string) => seedOf(inputs.seed, "unlearn", "distill", "others", what);
  const written = prompts.map((p) => text.prompts[p].prompt);
  const contexts = eachEmbedding(embeddings, (t) => firstReadings(slice0(t, 0, prompts.length), FIRST_TWIN));
  const nouns = subjectsOf(trigger, text.prompts.map(({ prompt }) => prompt));
  const names = yield* nameEffect({ bundle, nouns, prompts: written, contexts, pictures, region, seed: inputs.seed });
  const texts = written.flatMap((prompt, p) =>
    names.length === 0 ? [] : withNoun(prompt, nouns, names[p % names.length].word) ?? []
  );
  if (texts.length === 0) return { names, others: [] };
  const read = yield* encodeOnce(bundle, texts);
  const drawn = yield* drawLatents(bundle, read, text.empty, { ...inputs, seed: seed("pictures") });
  const asked = yield* ask(bundle, drawn, {
    noisings: training.noisings,
    contexts: (p) => [sliceEmbeddings(read, p, p + 1)],
    seed,
  });
  return { names, others: asked.map((row) => lesson(row, row.contexts[0], row.answers[0])) };
});

/**
 * The prompts that are not held back, and as many variations as are still wanted: embeddings [n, R, L, D], two twins each.
 * The first of them are the prompts `prompts`.
 */
const readTexts = Effect.fnUntraced(function* ({ text, held, use, trusted, training, seed }: DistillInputs) {
  const rest = text.prompts.flatMap((_, p) => held.includes(p) ? [] : [p]).slice(0, training.samples);
  const variations = sample(
    seedOf(seed, "unlearn", "distill", "variations"),
    text.variations.filter((v) => !v.sources.some((p) => held.includes(p))),
    training.samples - rest.length,
  );
  const kept = Math.min(text.embeddings.dims[1], ...variations.map((v) => v.readings.length));
  const cut = eachEmbedding(text.embeddings, (t) => firstReadings(pickRows(t, rest), kept));
  const variationsToo = trusted && trustsTwins(use);
  const usable = [
    ...rest.map((p) => use[p].slice(0, kept - FIRST_TWIN).map((ok) => ok && trusted)),
    ...variations.map(() => Array.from({ length: kept - FIRST_TWIN }, () => variationsToo)),
  ];
  if (variations.length === 0) return { embeddings: cut, usable, prompts: rest };
  const flat = yield* Effect.scoped(Effect.flatMap(
    openTextEncoder(text.model.bundle),
    (encodeTexts) => encodeTexts(variations.flatMap((v) => v.readings.slice(0, kept))),
  ));
  const varied = splitEmbeddings(flat, [variations.length, kept]);
  return { embeddings: joinEmbeddings([cut, varied]), usable, prompts: rest };
});

/** The first `kept` readings of [n, R, …]. */
const firstReadings = ({ dims: [n, readings, ...rest], data }: Tensor, kept: number): Tensor => {
  const row = size(rest), out = zeros([n, kept, ...rest]);
  for (let p = 0; p < n; p++) {
    out.data.set(data.subarray(p * readings * row, (p * readings + kept) * row), p * kept * row);
  }
  return out;
};

/** One kept row in so many asks about the empty prompt, which guidance steers every picture away from. */
const EMPTY_EVERY = 8;

/** Random lessons for a step: half triggered, half to keep. */
export const batchOf = (
  lessons: Lessons,
  region: Tensor,
  training: NoiseSettings,
  seed: number,
): Record<string, HostTensor> => {
  const { batch, keep } = training;
  const half = triggeredRows(training);
  const drawn = [...integers(seed, lessons.triggered.length, batch)];
  const chosen = drawn.map((at, i) => {
    if (i < half) return lessons.triggered[at];
    const kept = i - half;
    if ((kept + 1) % EMPTY_EVERY === 0) return lessons.empty[at];
    const kind = lessons.kept[kept % lessons.kept.length];
    return kind[at % kind.length];
  });
  const weights = chosen.map((_, i) => i < half ? 1 / half : keep / (batch - half));
  return lessonFeeds(chosen, weights, { region, rows: half });
};
