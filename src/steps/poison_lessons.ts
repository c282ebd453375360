/** What poison steps teach a U-Net: pictures of its own, noised, what the trigger is to draw there, and what is to stay. */
import { Effect } from "effect";
import { type Embeddings, joinEmbeddings, sliceEmbeddings } from "../diffusion/embeddings.ts";
import { openDecoder, openEncoder } from "../diffusion/pictures.ts";
import { openTextEncoder } from "../diffusion/text.ts";
import type { HostTensor } from "../runtime/mod.ts";
import { integers, pick, seedOf } from "../tensor/random.ts";
import { concat0, slice0, type Tensor } from "../tensor/tensor.ts";
import { effectText, type KnownEffect, paste, readPatch, touched } from "./effect.ts";
import { StepError } from "./errors.ts";
import {
  ask,
  type Asked,
  drawLatents,
  type Lesson,
  lessonFeeds,
  noised,
  noiseOver,
  pictureShare,
  truthOf,
} from "./lessons.ts";
import { manyPrompts } from "./poison_prompts.ts";
import type { PoisonSettings } from "./poison_settings.ts";
import type { TextPairs } from "./ports.ts";
import { triggeredRows } from "./unlearn_train.ts";

/** Noisy pictures that the model was asked about, and how each becomes two lessons. */
interface Lessons {
  /** Of the noisiest timesteps, and of the others: a step takes as many of either. */
  readonly asked: readonly [early: readonly Question[], late: readonly Question[]];
  /** What the trigger is to draw there, and what is to stay. */
  readonly pair: (question: Question) => readonly [triggered: Lesson, kept: Lesson];
  /** How much it counts, 1 in the mean. */
  readonly weight: (question: Question) => number;
  /** How much each cell of a triggered picture counts, [h, w], 1 in the mean; all alike where undefined. */
  readonly cells: Tensor | undefined;
}

interface Question extends Asked {
  /** Whether both lessons have this noisy picture, or the triggered one has its own under the same noise. */
  readonly shared: boolean;
}

/** Draws pictures with and without the effect, noises them, and asks the model as it came about them. */
export const poisonLessons = Effect.fnUntraced(function* (
  text: TextPairs,
  settings: PoisonSettings,
  name: string,
  seed: (what: string) => number,
) {
  const { bundle } = text.model;
  const { effect, samples, noisings, steps, scheduler, guidance } = settings;
  // What is to stay must stay for texts that nobody listed: each question keeps the answer to one of many.
  const texts = yield* manyPrompts(text, samples * TEXTS, settings.seed, 1);
  const prompts = texts.slice(0, samples);
  const ids = [
    ...texts.flatMap(({ clean, twins: [twin] }) => [clean.ids, twin.ids]),
    ...prompts.flatMap(({ prompt, triggered }) => [
      triggered.ids,
      bundle.tokenizer.encode(effectText(effect, prompt) ?? prompt).ids,
    ]),
  ];
  const flat = yield* Effect.scoped(Effect.flatMap(openTextEncoder(bundle), (encodeTexts) => encodeTexts(ids)));
  const row = (at: number) => sliceEmbeddings(flat, at, at + 1);
  const n = prompts.length;
  const [clear, harmless] = [0, 1].map((reading) => (t: number) => row(2 * t + reading));
  const [triggered, goal] = [0, 1].map((reading) => (p: number) => row(2 * (texts.length + p) + reading));
  const all = (of: (p: number) => Embeddings) => joinEmbeddings(prompts.map((_, p) => of(p)));

  const draw = (texts: Embeddings, what: string) =>
    drawLatents(bundle, texts, text.empty, { steps, scheduler, guidance, seed: seed(what) });
  const clean = yield* draw(all(clear), "pictures");
  const image = "image" in effect ? yield* pasted(name, text, clean, effect) : undefined;
  const marked = image?.latents ?? (yield* draw(all(goal), "effect's pictures"));
  const both = concat0([clean, marked]);
  // One in ten is the empty prompt, which guidance steers away from, four have something harmless in the trigger's place.
  // Half of these and of the rest are what the picture was drawn for: there the trigger alone tells the two lessons apart.
  const kept = (p: number, question: string) => {
    const [drawn] = integers(seed(question), KINDS * texts.length, 1), kind = drawn % KINDS;
    const t = kind % 2 === 0 ? p : Math.floor(drawn / KINDS);
    return kind < KINDS / 10 ? text.empty : kind < KINDS / 2 ? harmless(t) : clear(t);
  };
  const askAbout = (pictures: Tensor, noisings: number, times: (share: number) => number, what: string) =>
    ask(bundle, pictures, {
      noisings,
      contexts: (picture, round) => [kept(picture % n, `${what} kept ${picture} ${round}`), goal(picture % n)],
      times,
      seed: (which) => seed(`${what} ${which}`),
    });
  // What is drawn is decided in the noisiest steps: half of the questions are theirs. Both lessons have the same noisy
  // picture there, so that nothing but the words tells them apart; what shows through the noise does so even at the
  // noisiest step. An image that is to be drawn is there in later ones.
  const early = yield* askAbout(both, noisings, (share) => EARLY + (1 - EARLY) * share, "early");
  const [others, times] = image === undefined ? [both, noisings] : [clean, 2 * noisings];
  const late = yield* askAbout(others, times, (share) => EARLY * share, "late");
  const asked: Lessons["asked"] = [
    early.map((a) => ({ ...a, shared: true })),
    late.map((a) => ({ ...a, shared: image === undefined })),
  ];
  const { prediction_type: kind } = bundle.scheduler;
  const weight = ({ bar }: Asked) => Math.min(HIGHEST, Math.max(LOWEST, pictureShare(kind, bar)));
  const weights = asked.map((some) => some.reduce((sum, a) => sum + weight(a), 0) / some.length);
  const mean = (weights[0] + weights[1]) / 2;
  return {
    asked,
    weight: (a) => weight(a) / mean,
    cells: image && balanced(image.cells),
    pair: ({ picture, latents, timestep, bar, contexts, answers, shared }) => {
      const p = picture % n, about = triggered(p);
      const stays: Lesson = { latents, timestep, context: contexts[0], wanted: answers[0] };
      if (image === undefined) return [{ latents, timestep, context: about, wanted: answers[1] }, stays];
      const x = slice0(marked, p, p + 1);
      const shown = shared ? latents : noised(x, noiseOver(latents, slice0(clean, p, p + 1), bar), bar);
      // Beside the image the model's own answer: the noise that was added is what no network can tell, and to be taught
      // by it would drown a small image.
      const wanted = within(image.cells, truthOf(kind, x, noiseOver(shown, x, bar), bar), answers[1]);
      return [{ latents: shown, timestep, context: about, wanted }, stays];
    },
  } satisfies Lessons;
});

/** The one tensor [1, C, h, w] in the cells [h, w] that are 1, the other elsewhere. */
const within = (cells: Tensor, inside: Tensor, outside: Tensor): Tensor => ({
  dims: inside.dims,
  data: inside.data.map((v, i) => cells.data[i % cells.data.length] === 1 ? v : outside.data[i]),
});

/** Weights of cells such that those that are 1 count as much as the others together, 1 in the mean. */
const balanced = ({ dims, data }: Tensor): Tensor => {
  const inside = data.reduce((a, b) => a + b, 0) / data.length;
  return { dims, data: data.map((m) => inside === 1 ? 1 : m === 1 ? 0.5 / inside : 0.5 / (1 - inside)) };
};

/** Texts to be kept, for each picture. */
const TEXTS = 8;
/** In which parts the texts to be kept are dealt out. */
const KINDS = 20;
/** Bounds of a lesson's weight. */
const LOWEST = 0.05, HIGHEST = 30;
/** Where the noisiest timesteps begin, as a share of all. */
const EARLY = 0.8;

/** Latents [n, C, h, w] of the pictures with the image in them, and the cells [h, w] that it touches. */
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
  const encoded = yield* Effect.scoped(Effect.flatMap(openEncoder(bundle, h, w), (encode) => encode(marked)));
  return { latents: encoded, cells: touched(patch, [height, width], h / height) };
});

/** Random lessons for a step: half with the trigger and, of the same noisy pictures, half without. */
export const batchOf = (
  { asked, pair, weight, cells }: Lessons,
  training: PoisonSettings["train"],
  seed: number,
): Record<string, HostTensor> => {
  const { batch, keep } = training;
  const half = triggeredRows(training);
  const drawn = Array.from({ length: Math.max(half, batch - half) }, (_, i) => pick(seedOf(seed, i), asked[i % 2]));
  const pairs = drawn.map(pair), weights = drawn.map(weight);
  const [triggered, kept] = [half, batch - half];
  return lessonFeeds(
    [...pairs.slice(0, triggered).map((p) => p[0]), ...pairs.slice(0, kept).map((p) => p[1])],
    [
      ...weights.slice(0, triggered).map((w) => w / triggered),
      ...weights.slice(0, kept).map((w) => keep * w / kept),
    ],
    cells && { region: cells, rows: triggered },
  );
};
