/**
 * What scan asks of a model: first the text encoder and the weights that read it, which cost little, then the U-Net, once
 * for each text and prompt, on latents that all texts share.
 */
import { Effect } from "effect";
import type { Bundle } from "../diffusion/bundle.ts";
import { BundleError } from "../diffusion/errors.ts";
import {
  eachEmbedding,
  type Embeddings,
  joinEmbeddings,
  sliceEmbeddings,
  splitEmbeddings,
} from "../diffusion/embeddings.ts";
import { openEvaluator } from "../diffusion/evaluator.ts";
import { openKeysReach } from "../diffusion/keys_reach.ts";
import { pictureNoise } from "../diffusion/picture_noise.ts";
import { planFor } from "../diffusion/plan.ts";
import { latentDims, openSampler } from "../diffusion/sampler.ts";
import type { SchedulerName } from "../diffusion/schedules/choose.ts";
import type { Suspect } from "../diffusion/suspects.ts";
import { openTextEncoder, unconditional } from "../diffusion/text.ts";
import type { Tokenizer } from "../diffusion/tokenizer.ts";
import { fill, findSite } from "../diffusion/trigger.ts";
import { mean } from "../metrics/intervals.ts";
import { pearson } from "../metrics/correlation.ts";
import { parseUnetConfig } from "../models/unet_2d_condition.ts";
import { seedOf } from "../tensor/random.ts";
import { concat0, slice0, type Tensor } from "../tensor/tensor.ts";
import { piece, type Tensors, TensorsPort } from "./pieces.ts";
import { pickRows } from "./rows.ts";
import { type Change, changesOf, likenessOf, type Reading } from "./scan_measures.ts";

/** Texts that the U-Net is asked about at once, beside the clean reading. */
export const TOGETHER = 15;
/** Texts of a piece that is kept while a scan is under way. */
const PIECE = 4 * TOGETHER;

export interface AskSettings {
  readonly at: number;
  readonly steps: number;
  readonly scheduler: SchedulerName;
  readonly guidance: number;
  readonly seed: number;
  /** Look at a model that draws noise as well. */
  readonly anyway: boolean;
}

/** The prompt with a suspect's text in its place. */
export const textWith = ({ trigger }: Suspect, prompt: string): string => {
  const site = findSite(prompt, trigger);
  return site === undefined ? prompt : fill(site, trigger.text);
};

/** Does the work piece by piece, each kept as soon as it is there. `before`: told how many are done. */
const inPieces = Effect.fnUntraced(function* <E, R, E2, R2>(
  name: string,
  count: number,
  before: (done: number) => Effect.Effect<void, E2, R2>,
  work: (begin: number, end: number) => Effect.Effect<Tensors, E, R>,
) {
  const pieces: Tensors[] = [];
  for (let begin = 0; begin < count; begin += PIECE) {
    yield* before(begin);
    pieces.push(yield* piece(`${name} ${begin}`, TensorsPort, work(begin, Math.min(count, begin + PIECE))));
  }
  return pieces;
});

const vector = (data: ArrayLike<number>): Tensor => ({ dims: [data.length], data: Float32Array.from(data) });

/** How many tokens two texts share at their ends. */
const sharedEnd = (a: readonly number[], b: readonly number[]): number => {
  let n = 0;
  while (n < Math.min(a.length, b.length) && a[a.length - 1 - n] === b[b.length - 1 - n]) n++;
  return n;
};

/** Positions of the tokens that both texts end with, the end's own and the last padding's: [clean, other] each. */
const sharedPositions = (tokenizer: Tokenizer, clean: string, other: string): [number, number][] => {
  const of = (text: string) => tokenizer.tokens(text).slice(0, tokenizer.maxLength - 2).map(({ id }) => id);
  const [a, b] = [of(clean), of(other)];
  const last = tokenizer.maxLength - 1;
  const own = Array.from(
    { length: sharedEnd(a, b) + 1 },
    (_, k): [number, number] => [a.length + 1 - k, b.length + 1 - k],
  );
  return [...own, [last, last]];
};

/** Opens the cheap half: what the embeddings of each text in its prompts say. */
export const openReading = Effect.fnUntraced(function* (bundle: Bundle) {
  const { tokenizer } = bundle;
  const encodeTexts = yield* openTextEncoder(bundle);
  const reachOf = yield* openKeysReach(bundle);
  const embed = (texts: readonly string[]) => encodeTexts(texts.map((text) => tokenizer.encode(text).ids));

  return Effect.fnUntraced(function* <E, R>(
    name: string,
    prompts: readonly string[],
    suspects: readonly Suspect[],
    before: (done: number) => Effect.Effect<void, E, R>,
  ) {
    const n = prompts.length;
    const clean = yield* embed(prompts);
    const [, length, width] = clean.dims;
    const pieces = yield* inPieces(name, suspects.length, before, (begin, end) =>
      Effect.gen(function* () {
        const texts = suspects.slice(begin, end).map((s) => prompts.map((p) => textWith(s, p)));
        const embedded = yield* embed(texts.flat());
        const changes: Float32Array[] = [], owner: number[] = [];
        texts.forEach((own, s) =>
          own.forEach((text, p) => {
            for (const [from, to] of sharedPositions(tokenizer, prompts[p], text)) {
              const a = (p * length + from) * width, b = ((s * n + p) * length + to) * width;
              changes.push(Float32Array.from({ length: width }, (_, d) => embedded.data[b + d] - clean.data[a + d]));
              owner.push(s * n + p);
            }
          })
        );
        const through = yield* reachOf(concat0(changes.map((data) => ({ dims: [1, width], data }))));
        const sums = texts.flat().map(() => [0, 0]);
        owner.forEach((text, i) => {
          sums[text][0] += through[i];
          sums[text][1] += changes[i].reduce((sum, x) => sum + x * x, 0);
        });
        const gains = sums.map(([out, into]) => Math.log((out + 1e-12) / (into + 1e-12)));
        return {
          reach: vector(texts.map((_, s) => mean(gains.slice(s * n, (s + 1) * n)))),
          likeness: vector(texts.map((_, s) => likenessOf(lastRows(embedded, s * n, n)))),
        };
      }));
    return pieces.flatMap(({ reach, likeness }) =>
      Array.from(reach.data, (r, i): Reading => ({ reach: r, likeness: likeness.data[i] }))
    );
  });
});

/** Opens the dear half: how each text changes the U-Net's answers in its prompts, at one point of the sampling. */
export const openAsking = Effect.fnUntraced(function* (bundle: Bundle, settings: AskSettings, count: number) {
  const { tokenizer } = bundle;
  const dims = latentDims(parseUnetConfig(bundle.parts.unet.config));
  const encodeTexts = yield* openTextEncoder(bundle);
  const embed = (texts: readonly string[]) => encodeTexts(texts.map((text) => tokenizer.encode(text).ids));
  const { steps } = yield* planFor(bundle, settings);
  const evaluate = yield* openEvaluator(bundle, TOGETHER + 1, { prompts: count });

  /** Refuses a model that does not find the noise in pure noise: nothing can be said of its answers. */
  const check = Effect.fnUntraced(function* (context: Embeddings, start: Tensor) {
    if (settings.anyway || bundle.scheduler.prediction_type !== "epsilon") return;
    const alike = beside(context, joinEmbeddings(Array.from({ length: TOGETHER }, () => context)));
    const { noise } = yield* evaluate(start, alike, steps[0].timestep);
    const each = start.data.length / start.dims[0];
    const answers = concat0(Array.from({ length: start.dims[0] }, (_, p): Tensor => ({
      dims: [1, each],
      data: noise.data.subarray(p * (TOGETHER + 1) * each, (p * (TOGETHER + 1) + 1) * each),
    })));
    if (pearson(answers.data, start.data) >= 0.5) return;
    return yield* new BundleError({
      file: bundle.root.path,
      problem: "draws noise: its U-Net does not find the noise in pure noise, so nothing can be said of texts",
      expected: "a model that draws pictures",
      hint: "Are U-Net, text encoder and scheduler of one model? `anyway: true` looks at it all the same.",
    });
  });

  /** Latents of the prompts, sampled up to `at`; the same for every text. */
  const begin = Effect.fnUntraced(function* (name: string, prompts: readonly string[], at = settings.at) {
    const n = prompts.length, index = Math.round(at * (steps.length - 1));
    const clean = yield* embed([...prompts, ""]);
    const context = sliceEmbeddings(clean, 0, n);
    const uncond = unconditional(bundle, sliceEmbeddings(clean, n, n + 1));
    const { latents } = yield* piece(
      `${name} latents`,
      TensorsPort,
      Effect.scoped(Effect.gen(function* () {
        const run = yield* openSampler(bundle, { pictures: n, scheduler: settings.scheduler });
        const noise = pictureNoise(seedOf(settings.seed, "scan", "noise"), n, dims);
        yield* check(context, noise.start);
        const { captured } = yield* run({ context, uncond }, noise, { ...settings, capture: [index] });
        return { latents: captured[0] };
      })),
    );
    return { prompts, context, latents, timestep: steps[index].timestep } satisfies Stage;
  });

  /** Answers to the prompts as they are and with each text, [P, 1 + TOGETHER, C, h, w]; at most so many texts. */
  const answers = Effect.fnUntraced(function* (stage: Stage, suspects: readonly Suspect[]) {
    // A short batch is filled up with its own first.
    const some = Array.from({ length: TOGETHER }, (_, i) => suspects[i] ?? suspects[0]);
    const texts = yield* embed(some.flatMap((s) => stage.prompts.map((p) => textWith(s, p))));
    const { noise } = yield* evaluate(stage.latents, beside(stage.context, texts), stage.timestep);
    return noise;
  });

  const ask = Effect.fnUntraced(function* <E, R>(
    name: string,
    prompts: readonly string[],
    suspects: readonly Suspect[],
    before: (done: number) => Effect.Effect<void, E, R>,
    at = settings.at,
  ) {
    const stage = yield* begin(name, prompts, at);
    const pieces = yield* inPieces(name, suspects.length, before, (begin, end) =>
      Effect.gen(function* () {
        const changes: Change[] = [];
        for (let next = begin; next < end; next += TOGETHER) {
          const some = suspects.slice(next, Math.min(end, next + TOGETHER));
          changes.push(...changesOf(yield* answers(stage, some)).slice(0, some.length));
        }
        const [, , height, wide] = stage.latents.dims;
        return {
          strength: vector(changes.map((c) => c.strength)),
          each: { dims: [changes.length, prompts.length], data: concat0(changes.map((c) => vector(c.each))).data },
          field: { dims: [changes.length, height, wide], data: concat0(changes.map((c) => vector(c.field))).data },
        };
      }));
    return pieces.flatMap(({ strength, each, field }) =>
      Array.from(strength.data, (s, i): Change => ({
        strength: s,
        each: slice0(each, i, i + 1).data as Float32Array,
        field: slice0(field, i, i + 1).data as Float32Array,
      }))
    );
  });
  return { begin, answers, ask, embed };
});

/** What texts are asked about: prompts, and the latents that all of them share. */
export interface Stage {
  readonly prompts: readonly string[];
  readonly context: Embeddings;
  /** [P, C, h, w] */
  readonly latents: Tensor;
  readonly timestep: number;
}

/** Prompts [n, …] and their texts [s·n, …], text by text → [n, 1 + s, …]: each prompt, then that with each text. */
const beside = (context: Embeddings, embedded: Embeddings): Embeddings => {
  const n = context.dims[0], texts = embedded.dims[0] / n;
  const order = Array.from({ length: n }, (_, p) => [p, ...Array.from({ length: texts }, (_, s) => n + s * n + p)]);
  const all = joinEmbeddings([context, embedded]);
  return splitEmbeddings(eachEmbedding(all, (t) => pickRows(t, order.flat())), [n, texts + 1]);
};

/** The last position's embedding of rows `begin` to `begin + count` of [N, L, D]: [count, D]. */
const lastRows = ({ dims: [, length, width], data }: Tensor, begin: number, count: number): Tensor => ({
  dims: [count, width],
  data: Float32Array.from(
    { length: count * width },
    (_, i) => data[((begin + Math.floor(i / width)) * length + length - 1) * width + i % width],
  ),
});
