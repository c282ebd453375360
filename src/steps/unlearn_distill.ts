/**
 * Strategy `distill`: masked self-distillation of the U-Net. On latents of the model's own pictures, noised again, it is
 * to answer triggered texts inside the mask as it answered their target when it came, and other texts as before, but for
 * harmless words that set the backdoor off themselves:
 *
 *     ‖M ⊙ (ε_s(x_t, t, triggered) − target)‖² / ‖M‖₁ + λ ‖ε_s(x_t, t, keep) − ε_0(x_t, t, keep)‖²
 *     target = ε_0(x_t, t, wanted) + a (ε_0(x_t, t, wanted) − ε_0(x_t, t, triggered))
 *
 * With a > 0 it is drawn past what is wanted, away from the trigger (as ESD steers away from a concept: Gandikota et al.,
 * ICCV 2023, eq. 6): of use where the backdoor spilled over to the prompts without the trigger, whose answers then lean
 * towards the trigger's themselves. Where words name what the trigger draws, prompts with these are kept as well.
 */
import { Effect, Schema } from "effect";
import { noiseDistillation } from "../diffusion/distillation.ts";
import { sizesOf } from "../diffusion/conditioning.ts";
import {
  eachEmbedding,
  embeddingAt,
  type Embeddings,
  joinEmbeddings,
  sliceEmbeddings,
  splitEmbeddings,
} from "../diffusion/embeddings.ts";
import { latentDims } from "../diffusion/sampler.ts";
import { withNoun } from "../diffusion/phrases.ts";
import { encodeOnce, openTextEncoder } from "../diffusion/text.ts";
import { openPartTrainer, type Weights } from "../diffusion/train.ts";
import { weightInput } from "../graph/mod.ts";
import { parseUnetConfig } from "../models/unet_2d_condition.ts";
import type { HostTensor } from "../runtime/mod.ts";
import { integers, sample, seedOf } from "../tensor/random.ts";
import { size, slice0, type Tensor, zeros } from "../tensor/tensor.ts";
import { isTextWeight } from "../unlearn/closed_form.ts";
import type { Named } from "../unlearn/named.ts";
import { past, triggeredTarget, twinTarget } from "../unlearn/noise_targets.ts";
import { CLEAN, FIRST_TWIN, TRIGGERED } from "./capture.ts";
import { openDrawing } from "./drawing.ts";
import { ask, type Asked, drawLatents, type Lesson, lessonFeeds } from "./lessons.ts";
import { nameEffect, subjectsOf } from "./naming.ts";
import { pickRows, repeated } from "./rows.ts";
import { Count, defaulted } from "./settings.ts";
import { changesOf, loraWeights, openChanges } from "./unlearn_changes.ts";
import { trustsTwins } from "./unlearn_fit.ts";
import { checkFields, train, trainingFields, type TrainingInputs, triggeredRows } from "./unlearn_train.ts";

/** Weights of the U-Net that may be trained, by the setting's words. */
const CHOICES = {
  attn2: isTextWeight,
  attention: (key: string) => /\.attn[12]\./.test(key),
  all: () => true,
} as const;

export const NoiseTraining = Schema.Struct({
  ...trainingFields({ steps: 240, batch: 16, rate: 3e-4, keep: 1 }),
  ...checkFields(60),
  weights: defaulted(
    Schema.Literals(["auto", "attn2", "attention", "all"]).annotate({
      description:
        "attn2: the keys and values through which text enters; attention: all of both attentions; all: all; " +
        "auto: all, but of a model with one LoRA the layers that it changes, so that the cure fits into it.",
    }),
    "auto",
  ),
  masked: defaulted(
    Schema.Boolean.annotate({
      description: "Whether triggered answers count where the trigger acts alone (the located mask), or everywhere.",
    }),
    true,
  ),
  wanted: defaulted(
    Schema.Literals(["answer", "noise"]).annotate({
      description:
        "What triggered texts are to be answered with: as the model that came answers the target, or the noise that was " +
        "added to its clean picture (or the velocity, for v-prediction), as in ordinary training.",
    }),
    "answer",
  ),
  away: defaulted(
    Schema.Finite.check(Schema.isBetween({ minimum: 0, maximum: 10 })).annotate({
      description:
        "How far past that answer, away from the one that the trigger had: 0.3 adds three tenths of what parts the two.",
    }),
    0,
  ),
  named: defaulted(
    Schema.Boolean.annotate({
      description: "Whether pictures of the words that name what the trigger draws are kept as well, if there are any.",
    }),
    true,
  ),
  samples: defaulted(
    Count(4096).annotate({ description: "Pictures that the model draws to be trained on; no data set is needed." }),
    96,
  ),
  noisings: defaulted(Count(256).annotate({ description: "How often each picture is noised, each time anew." }), 8),
}).annotate({ description: "distill: how the U-Net is trained." });
type NoiseSettings = typeof NoiseTraining.Type;

interface DistillInputs extends TrainingInputs<NoiseSettings> {
  /** False where harmless words are no measure: they are then no example of what is to be kept either. */
  readonly trusted: boolean;
  /** Weights of a cure to begin with; the teacher remains the model as it came. */
  readonly start?: Weights;
}

/** The model with a distilled U-Net, and what became of its weights. */
export const distilNoise = Effect.fnUntraced(function* (inputs: DistillInputs) {
  const { text, held, use, region, training, seed, steps, scheduler, guidance } = inputs;
  const { bundle } = text.model;
  const config = parseUnetConfig(bundle.parts.unet.config);
  const [, height, width] = latentDims(config);
  const { batch, segments, clipNorm } = training;
  const trained = training.weights === "auto"
    ? (yield* loraWeights(bundle, "unet")) ?? CHOICES.all
    : CHOICES[training.weights];
  const shape = { batch, length: bundle.tokenizer.maxLength, trained, segments, clipNorm };
  const changed = yield* openChanges(bundle, "unet");

  return yield* Effect.scoped(Effect.gen(function* () {
    const lessons = yield* teach(inputs);
    const everywhere = { dims: region.dims, data: new Float32Array(region.data.length).fill(1) };
    const masked = training.masked ? region : everywhere;
    const graph = noiseDistillation(config, [height, width], { ...shape, sizes: sizesOf(bundle) });
    const trainer = yield* openPartTrainer("training the U-Net", graph, bundle, "unet", inputs.start);
    const original = trainer.own;
    const drawing = yield* openDrawing({
      bundle,
      texts: text,
      held: repeated(held, training.pictures),
      use,
      region,
      steps,
      scheduler,
      guidance,
      seed,
      weightsAsInputs: trained,
      original: feedsOf(original),
    });
    const check = (weights: Weights) => drawing.judge({ weights: feedsOf(weights) });
    const begin = inputs.start && (yield* check(trainer.start));
    const { weights, account } = yield* train({
      name: "unlearn",
      trainer,
      settings: training,
      data: (step) => batchOf(lessons, masked, training, seedOf(seed, "unlearn", "distill", step)),
      checks: {
        every: training.check,
        draw: check,
        trusted: inputs.trusted,
        ...(begin === undefined ? {} : { begin }),
      },
    });
    const told = lessons.names.length === 0 ? account : { ...account, named: lessons.names };
    return { bundle: changed(weights), weights: changesOf(original, weights), training: told };
  }));
});

const feedsOf = (weights: Weights): Record<string, Tensor> =>
  Object.fromEntries([...weights].map(([key, value]) => [weightInput("unet", key), value]));

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
const teach = Effect.fnUntraced(function* (inputs: DistillInputs) {
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
const batchOf = (
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
