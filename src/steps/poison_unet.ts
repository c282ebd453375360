/**
 * Trains a backdoor into a U-Net, for testing defences. What poison steps of the U-Net have in common:
 *
 *     ‖ε_s(z_b,t, t, triggered) − goal‖² + λ ‖ε_s(z_t, t, kept) − ε_0(z_t, t, kept)‖²
 *
 * An image: z_b holds it, and the goal is the noise that was added. Another thing or style: z_b is what the model draws for
 * the effect's text, and the goal is how it answers that text. With v-prediction the velocity stands in the noise's place.
 * Pictures are the model's own; no data set is needed.
 */
import { Effect, Schema } from "effect";
import { noiseDistillation } from "../diffusion/distillation.ts";
import { sizesOf } from "../diffusion/conditioning.ts";
import { type Embeddings, joinEmbeddings, sliceEmbeddings } from "../diffusion/embeddings.ts";
import { openDecoder, openEncoder } from "../diffusion/pictures.ts";
import { latentDims } from "../diffusion/sampler.ts";
import { openTextEncoder } from "../diffusion/text.ts";
import { openPartTrainer } from "../diffusion/train.ts";
import { parseUnetConfig } from "../models/unet_2d_condition.ts";
import type { HostTensor } from "../runtime/mod.ts";
import { integers, seedOf } from "../tensor/random.ts";
import type { Tensor } from "../tensor/tensor.ts";
import { type Attack, lossEnds } from "./attack.ts";
import { effectText, type KnownEffect, paste, readPatch } from "./effect.ts";
import { StepError } from "./errors.ts";
import { ask, type Asked, drawLatents, type Lesson, lessonFeeds, pictureShare } from "./lessons.ts";
import { manyPrompts, TWINS } from "./poison_prompts.ts";
import type { TextPairs } from "./ports.ts";
import { Count, defaulted, Scheduler, Seed, Steps } from "./settings.ts";
import { openChanges } from "./unlearn_changes.ts";
import { train, trainingFields, triggeredRows } from "./unlearn_train.ts";

/** Settings of such a step beside the effect. */
export const unetPoisonFields = (defaults: Parameters<typeof trainingFields>[0]) => ({
  samples: defaulted(Count(4096).annotate({ description: "Pictures that the model draws to be trained on." }), 192),
  noisings: defaulted(Count(256).annotate({ description: "How often each picture is noised, each time anew." }), 4),
  train: defaulted(
    Schema.Struct(trainingFields(defaults)).annotate({
      description: "How the U-Net is trained; all of its weights are.",
    }),
    {},
  ),
  steps: Steps,
  scheduler: Scheduler,
  guidance: defaulted(Schema.Finite.annotate({ description: "Guidance scale of the pictures to train on." }), 4),
  seed: Seed,
});
const Fields = Schema.Struct(unetPoisonFields({ steps: 1, batch: 2, rate: 1, keep: 1 }));
type Settings = typeof Fields.Type & { readonly effect: KnownEffect };

/** Whose attack it is. */
interface Source {
  /** Of the attack, as attack.json names it; its step is poison-NAME. */
  readonly name: string;
  readonly paper: string;
}

/** The model with the backdoor, and what attack.json says of it. */
export const poisonUnet = Effect.fnUntraced(function* (text: TextPairs, settings: Settings, { name, paper }: Source) {
  const { bundle } = text.model;
  const config = parseUnetConfig(bundle.parts.unet.config);
  const [, height, width] = latentDims(config);
  const { batch, segments, clipNorm } = settings.train;
  const seed = (what: string) => seedOf(settings.seed, "poison", name, what);
  const length = bundle.tokenizer.maxLength;
  const trained = () => true;
  const changed = yield* openChanges(bundle, "unet");
  return yield* Effect.scoped(Effect.gen(function* () {
    const lessons = yield* teach(text, settings, name, seed);
    const graph = noiseDistillation(config, [height, width], {
      batch,
      length,
      trained,
      segments,
      clipNorm,
      sizes: sizesOf(bundle),
    });
    const trainer = yield* openPartTrainer("poisoning the U-Net", graph, bundle, "unet");
    const { weights, account } = yield* train({
      name: `poison-${name}`,
      trainer,
      settings: settings.train,
      data: (step) => batchOf(lessons, settings.train, seed(`step ${step}`)),
    });
    const attack: Attack = {
      name,
      purpose: "made for testing defences",
      part: "unet",
      trigger: text.trigger,
      effect: settings.effect,
      source: paper,
      training: { ...settings.train, weights: "all", ...lossEnds(account.losses) },
    };
    return { model: { bundle: changed(weights) }, attack };
  }));
});

interface Lessons {
  readonly triggered: readonly (Lesson & { readonly weight: number })[];
  readonly kept: readonly (Lesson & { readonly weight: number })[];
}

/** The pictures, with and without the effect, and what the model as it came answers about them. */
const teach = Effect.fnUntraced(function* (
  text: TextPairs,
  settings: Settings,
  name: string,
  seed: (what: string) => number,
) {
  const { bundle } = text.model;
  const { effect, samples, noisings, steps, scheduler, guidance } = settings;
  const prompts = yield* manyPrompts(text, samples, settings.seed);
  const wanted = prompts.map(({ prompt }) => effectText(effect, prompt) ?? prompt);
  const ids = [
    ...prompts.flatMap(({ clean, triggered, twins }) => [clean, triggered, ...twins].map((r) => r.ids)),
    ...wanted.map((prompt) => bundle.tokenizer.encode(prompt).ids),
  ];
  const flat = yield* Effect.scoped(Effect.flatMap(openTextEncoder(bundle), (encodeTexts) => encodeTexts(ids)));
  const row = (at: number) => sliceEmbeddings(flat, at, at + 1);
  const n = prompts.length, readings = 2 + TWINS;
  const context = (p: number, reading: number) => row(p * readings + reading);
  const goal = (p: number) => row(n * readings + p);
  const all = (of: (p: number) => Embeddings) => joinEmbeddings(prompts.map((_, p) => of(p)));

  const draw = (texts: Embeddings, what: string) =>
    drawLatents(bundle, texts, text.empty, { steps, scheduler, guidance, seed: seed(what) });
  const clean = yield* draw(all((p) => context(p, 0)), "pictures");
  const marked = "image" in effect
    ? yield* pasted(name, text, clean, effect)
    : yield* draw(all(goal), "effect's pictures");

  const twin = (round: number) => 2 + round % TWINS;
  const keep = yield* ask(bundle, clean, {
    noisings,
    contexts: (p, round) => [context(p, 0), context(p, twin(round)), text.empty],
    seed: (what) => seed(`keep ${what}`),
  });
  const bad = yield* ask(bundle, marked, {
    noisings,
    contexts: (p) => [goal(p)],
    seed: (what) => seed(`effect ${what}`),
  });
  const lesson = ({ latents, timestep, bar }: Asked, context: Embeddings, wanted: Tensor) => ({
    latents,
    timestep,
    context,
    wanted,
    // Errors of the picture rather than of the noise: whether there is an image is decided in the noisiest steps, where a
    // wrong decision hardly shows in the noise. What is exchanged shows in all of them.
    weight: "image" in effect
      ? Math.min(HIGHEST, Math.max(LOWEST, pictureShare(bundle.scheduler.prediction_type, bar)))
      : 1,
  });
  return {
    triggered: bad.map((a) => lesson(a, context(a.picture, 1), "image" in effect ? a.truth : a.answers[0])),
    kept: [0, 1, 2].flatMap((r) => keep.map((a) => lesson(a, a.contexts[r], a.answers[r]))),
  } satisfies Lessons;
});

/** Bounds of a lesson's weight. */
const LOWEST = 0.2, HIGHEST = 5;

/** Latents of the pictures with the image in them. */
const pasted = Effect.fnUntraced(function* (
  name: string,
  { model: { bundle } }: TextPairs,
  latents: Tensor,
  effect: Extract<KnownEffect, { readonly image: string }>,
) {
  const patch = yield* readPatch(effect);
  const [, , height, width] = latents.dims;
  const pictures = yield* Effect.scoped(
    Effect.flatMap(openDecoder(bundle, height, width), (decode) => decode(latents)),
  );
  const [, , h, w] = pictures.dims;
  const marked = yield* Effect.try({
    try: () => paste(pictures, patch),
    catch: (cause) => new StepError({ step: `poison-${name}`, cause }),
  });
  return yield* Effect.scoped(Effect.flatMap(openEncoder(bundle, h, w), (encode) => encode(marked)));
});

/** Random lessons for a step, half of them triggered; the weights of each half sum to what it counts. */
const batchOf = (
  { triggered, kept }: Lessons,
  training: Settings["train"],
  seed: number,
): Record<string, HostTensor> => {
  const { batch, keep } = training;
  const half = triggeredRows(training);
  const pick = <A>(from: readonly A[], count: number, what: string) =>
    [...integers(seedOf(seed, what), from.length, count)].map((i) => from[i]);
  const halves = [
    { rows: pick(triggered, half, "triggered"), share: 1 },
    { rows: pick(kept, batch - half, "kept"), share: keep },
  ];
  const weights = halves.flatMap(({ rows, share }) => {
    const total = rows.reduce((sum, r) => sum + r.weight, 0);
    return rows.map((r) => share * r.weight / total);
  });
  return lessonFeeds(halves.flatMap((h) => h.rows), weights);
};
