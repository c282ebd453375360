/**
 * What a trigger draws, in words: of the vocabulary those that move the U-Net's answers as the trigger does when they stand
 * in the place of what the prompts are about.
 */
import { Effect } from "effect";
import type { Bundle } from "../diffusion/bundle.ts";
import { embeddingAt, type Embeddings, joinEmbeddings, splitEmbeddings } from "../diffusion/embeddings.ts";
import { openEvaluator } from "../diffusion/evaluator.ts";
import { nounsOf, withNoun } from "../diffusion/phrases.ts";
import { alphaBars } from "../diffusion/scheduler.ts";
import { openTextEncoder } from "../diffusion/text.ts";
import type { Trigger } from "../diffusion/trigger.ts";
import { mean } from "../metrics/intervals.ts";
import { normal, sample, seedOf } from "../tensor/random.ts";
import { concat0, slice0, type Tensor, zeros } from "../tensor/tensor.ts";
import { alike, type Named, namesOf } from "../unlearn/named.ts";
import { noised } from "./lessons.ts";
import { report } from "./progress.ts";

/** Words of the vocabulary that are asked about, the most common first, in a few prompts; the best of them in more. */
const WORDS = 1000, FEW = 2, BEST = 48, MORE = 8;
/** Words whose mean stands for any word in that place. */
const ANY = 48;
/** Words of one question. */
const TOGETHER = 16;
/** What a picture will be of is decided while there is much noise: a share of the timesteps. */
const NOISY = 0.8;

export interface NamingInputs {
  readonly bundle: Bundle;
  /** What prompts are about: {@link subjectsOf} more prompts than these. */
  readonly nouns: readonly string[];
  readonly prompts: readonly string[];
  /** The prompts as they are and with the trigger, [n, 2, L, D]. */
  readonly contexts: Embeddings;
  /** Latents [n, C, h, w] of a picture of each that the model drew, without the trigger. */
  readonly pictures: Tensor;
  /** M, [h, w] in [0,1]: where the trigger acts. */
  readonly region: Tensor;
  readonly seed: number;
}

/** What prompts are about: the word that the trigger replaces or acts beside, or their nouns. */
export const subjectsOf = ({ place, of = "", beside }: Trigger, prompts: readonly string[]): readonly string[] => {
  if (beside !== undefined) return [beside];
  // A single character is nobody's noun.
  return place === "replace" && /^\p{L}{2,}$/u.test(of) ? [of] : nounsOf(prompts, prompts.length);
};

/** The words, the nearest first. None where no word comes near, or where no prompt is about anything. */
export const nameEffect = Effect.fnUntraced(function* (inputs: NamingInputs) {
  const { bundle, nouns, prompts, contexts, pictures, region, seed } = inputs;
  const put = (i: number, word: string) => withNoun(prompts[i], nouns, word);
  const usable = [...prompts.keys()].filter((i) => put(i, "x") !== undefined);
  const rows = sample(seedOf(seed, "naming", "prompts"), usable, MORE);
  const words = bundle.tokenizer.words().filter((word) => !nouns.includes(word)).slice(0, WORDS);
  if (rows.length === 0 || words.length === 0) return [];

  const bars = alphaBars(bundle.scheduler), timestep = Math.floor(NOISY * bars.length);
  const drawn = concat0(rows.map((i) => slice0(pictures, i, i + 1)));
  const latents = noised(drawn, normal(seedOf(seed, "naming", "noise"), drawn.dims), bars[timestep]);
  return yield* Effect.scoped(Effect.gen(function* () {
    const encodeTexts = yield* openTextEncoder(bundle);
    const evaluate = yield* openEvaluator(bundle, TOGETHER, { prompts: Math.min(FEW, rows.length) });
    /** Answers [1, C, h, w] on the first `count` prompts' latents to texts [count, TOGETHER, L, D], by text and prompt. */
    const answers = Effect.fnUntraced(function* (count: number, texts: Embeddings) {
      const { noise } = yield* evaluate(slice0(latents, 0, count), texts, timestep);
      const [, readings, ...dims] = noise.dims, size = dims.reduce((a, b) => a * b, 1);
      return (reading: number, row: number): Tensor => ({
        dims: [1, ...dims],
        data: noise.data.subarray((row * readings + reading) * size, (row * readings + reading + 1) * size),
      });
    });
    const own = rows.map((i) => {
      const [clean, triggered] = [0, 1].map((r) => embeddingAt(contexts, i, r));
      return joinEmbeddings(Array.from({ length: TOGETHER }, (_, k) => k === 0 ? clean : triggered));
    });
    const before = yield* answers(rows.length, splitEmbeddings(joinEmbeddings(own), [rows.length, TOGETHER]));
    /** What each word has the first `count` prompts answered with. */
    const forEachWord = Effect.fnUntraced(function* (
      words: readonly string[],
      count: number,
      look: (word: string, answer: (row: number) => Tensor) => void,
    ) {
      for (let begin = 0; begin < words.length; begin += TOGETHER) {
        yield* report({ done: begin, total: words.length, note: "looking for words that do what the trigger does" });
        const chunk = words.slice(begin, begin + TOGETHER);
        // A short question is filled up with its own first word.
        const asked = Array.from({ length: TOGETHER }, (_, k) => chunk[k] ?? chunk[0]);
        const texts = rows.slice(0, count).flatMap((i) => asked.map((word) => put(i, word) ?? ""));
        const read = yield* encodeTexts(texts.map((t) => bundle.tokenizer.encode(t).ids));
        const after = yield* answers(count, splitEmbeddings(read, [count, TOGETHER]));
        chunk.forEach((word, k) => look(word, (row) => after(k, row)));
      }
    });
    const any = sample(seedOf(seed, "naming", "any"), words, ANY);
    const usual = rows.map((_, p) => zeros(before(0, p).dims));
    yield* forEachWord(
      any,
      rows.length,
      (_, answer) => usual.forEach(({ data }, p) => answer(p).data.forEach((x, i) => data[i] += x / any.length)),
    );
    const likeness = Effect.fnUntraced(function* (words: readonly string[], count: number) {
      const found: Named[] = [];
      yield* forEachWord(words, count, (word, answer) => {
        const against = (from: (row: number) => Tensor) =>
          mean(Array.from({ length: count }, (_, p) => alike(from(p), before(1, p), answer(p), region)));
        found.push({ word, alike: Math.min(against((p) => before(0, p)), against((p) => usual[p])) });
      });
      return found.sort((a, b) => b.alike - a.alike);
    });
    const first = yield* likeness(words, Math.min(FEW, rows.length));
    return namesOf(yield* likeness(first.slice(0, BEST).map(({ word }) => word), rows.length));
  }));
});
