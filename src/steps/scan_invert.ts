/**
 * Texts that nobody listed: words and signs that do nothing by themselves, put together along the gradient of how far they
 * move the U-Net's answer to pure noise. In a model without a backdoor such words stay without effect together; where there is one,
 * the gradient leads to texts that set it off although they share no token with its trigger.
 *
 * Words that do something by themselves are left out, since the way that they lead is to pictures of what they mean: on the
 * example, two colours before a prompt move the answer as far as a trigger does, in every model.
 */
import { Effect } from "effect";
import { openSlope } from "../diffusion/inversion.ts";
import type { Bundle } from "../diffusion/bundle.ts";
import { before, type Suspect } from "../diffusion/suspects.ts";
import { integers, seedOf } from "../tensor/random.ts";
import type { Tensor } from "../tensor/tensor.ts";
import { piece, TensorsPort } from "./pieces.ts";
import { changesOf } from "./scan_measures.ts";
import { type openAsking, type Stage, textWith, TOGETHER } from "./scan_probe.ts";

/** Words of a text; each is one token. */
export const WORDS = 6;
/** Texts that are begun with, each the best of some at random; steps of each at the most. */
export const STARTS = 4, STEPS = 10;
/** Of fewer words nothing can be put together. */
const LEAST = 8;
/** A step that brings less, in ln, is the last. */
const GAIN = 0.01;

/**
 * The exchanges of one word that promise most.
 * @param gains [WORDS, V]
 * @param text indices into `ids`, the words' tokens
 */
export const exchanges = (
  gains: Tensor,
  ids: readonly number[],
  text: readonly number[],
  count: number,
): number[][] => {
  const vocabulary = gains.dims[1];
  return text.flatMap((own, k) =>
    ids.flatMap((id, word) => {
      const gain = gains.data[k * vocabulary + id] - gains.data[k * vocabulary + ids[own]];
      return word === own || gain <= 0 ? [] : [{ gain, other: text.with(k, word) }];
    })
  ).sort((a, b) => b.gain - a.gain).slice(0, count).map(({ other }) => other);
};

/**
 * The texts found, one for each start, and how many answers of the U-Net that took.
 * @param words that do nothing by themselves, each one token of the tokenizer's
 * @param tell told how many texts were measured
 */
export const invert = Effect.fnUntraced(function* <E, R>(
  bundle: Bundle,
  asking: Effect.Success<ReturnType<typeof openAsking>>,
  stage: Stage,
  words: readonly string[],
  seed: number,
  tell: (done: number) => Effect.Effect<void, E, R>,
) {
  if (words.length < LEAST) return { texts: [], evaluations: 0 };
  const { tokenizer } = bundle, { latents, prompts, timestep } = stage, n = prompts.length;
  const ids = words.map((word) => tokenizer.tokens(word)[0].id);
  const textOf = (text: readonly number[]) => before("inverted")(text.map((i) => words[i]).join(" "));
  const random = (start: number) =>
    Array.from({ length: TOGETHER }, (_, i) => [...integers(seedOf(seed, "invert", start, i), words.length, WORDS)]);
  const noise = yield* asking.answers(stage, [textOf(random(0)[0])]);
  const each = latents.data.length / n;
  const clean: Tensor = {
    dims: latents.dims,
    data: Float32Array.from(
      latents.data,
      (_, i) => noise.data[Math.floor(i / each) * (TOGETHER + 1) * each + i % each],
    ),
  };
  const slope = yield* openSlope(bundle, { latents, clean, timestep }, WORDS);
  let evaluations = (TOGETHER + 1) * n;

  /** The one of some texts that moves the answer furthest. */
  const furthest = Effect.fnUntraced(function* (texts: readonly (readonly number[])[]) {
    evaluations += (TOGETHER + 1) * n;
    const moved = changesOf(yield* asking.answers(stage, texts.map(textOf))).slice(0, texts.length);
    return moved.map(({ strength }, i) => ({ text: texts[i], moved: strength }))
      .reduce((a, b) => b.moved > a.moved ? b : a);
  });
  const climb = Effect.fnUntraced(function* (start: number) {
    let best = yield* furthest(random(start));
    for (let step = 0; step < STEPS; step++) {
      yield* tell((start * (STEPS + 1) + step + 1) * TOGETHER);
      const texts = prompts.map((prompt) => textWith(textOf(best.text), prompt));
      const { gains } = yield* slope(texts.map((t) => tokenizer.encode(t).ids), yield* asking.embed(texts));
      evaluations += n;
      const others = exchanges(gains, ids, best.text, TOGETHER);
      if (others.length === 0) break;
      const next = yield* furthest(others);
      if (next.moved < best.moved + GAIN) break;
      best = next;
    }
    return best.text;
  });
  const found = new Map<string, Suspect>();
  for (let start = 0; start < STARTS; start++) {
    yield* tell(start * (STEPS + 1) * TOGETHER);
    const { text } = yield* piece(
      `invert ${start}`,
      TensorsPort,
      Effect.map(climb(start), (text) => ({ text: { dims: [WORDS], data: Float32Array.from(text) } })),
    );
    const suspect = textOf([...text.data]);
    found.set(suspect.trigger.text, suspect);
  }
  return { texts: [...found.values()], evaluations };
});
