/**
 * Texts that nobody listed: words and signs that do nothing by themselves, put together along the gradient of how far they
 * move the U-Net's answers to pure noise, all prompts' alike. In a model without a backdoor such words stay without effect
 * together; where there is one, the gradient may lead to texts that set it off although they share no token with its trigger.
 *
 * Words that do something by themselves are left out, since the way that they lead is to pictures of what they mean: on the
 * example, two colours before a prompt move the answer as far as a trigger does, in every model.
 */
import { Effect } from "effect";
import { openSlope } from "../diffusion/inversion.ts";
import type { Bundle } from "../diffusion/bundle.ts";
import { type End, putAt, type Suspect } from "../diffusion/suspects.ts";
import { integers, seedOf } from "../tensor/random.ts";
import { concat0, type Tensor } from "../tensor/tensor.ts";
import { piece, TensorsPort } from "./pieces.ts";
import { type openAsking, type Stage, textWith, TOGETHER } from "./scan_probe.ts";

/** Words of a text; each is one token. */
export const WORDS = 6;
/** Texts that are begun with, each the best of some at random; steps of each at the most. */
export const STARTS = 4, STEPS = 10;
/** Of fewer words nothing can be put together. */
const LEAST = 8;
/** A step that brings less, in ln, is the last. */
const GAIN = 0.01;

/** What a text does to the answers to all prompts alike. */
export interface Common {
  /** ln of the mean square of the change's mean over prompts. */
  readonly moved: number;
  /** Its gradient by each prompt's answer, [1, C, h, w]: the same for all. */
  readonly along: Tensor;
}

/**
 * Of noise [P, 1 + R, C, h, w] what each reading r ≥ 1 changes against reading 0 in all prompts alike: a trigger's aim does
 * not depend on the prompt, while what words mean is drawn in another place for each.
 */
export const commonOf = ({ dims: [prompts, readings, ...dims], data }: Tensor): Common[] => {
  const each = dims.reduce((a, b) => a * b, 1);
  return Array.from({ length: readings - 1 }, (_, r) => {
    const shift = new Float64Array(each);
    for (let p = 0; p < prompts; p++) {
      const [from, to] = [p * readings * each, (p * readings + r + 1) * each];
      for (let i = 0; i < each; i++) shift[i] += (data[to + i] - data[from + i]) / prompts;
    }
    const sum = shift.reduce((a, x) => a + x * x, 0) + 1e-12 * each;
    const along = Float32Array.from(shift, (x) => 2 * x / (prompts * sum));
    return { moved: Math.log(sum / each), along: { dims: [1, ...dims], data: along } };
  });
};

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
  place: End,
  words: readonly string[],
  seed: number,
  tell: (done: number) => Effect.Effect<void, E, R>,
) {
  if (words.length < LEAST) return { texts: [], evaluations: 0 };
  const { tokenizer } = bundle, { latents, prompts, timestep } = stage, n = prompts.length;
  const ids = words.map((word) => tokenizer.tokens(word)[0].id);
  const textOf = (text: readonly number[]) => putAt(place, "inverted")(text.map((i) => words[i]).join(" "));
  // Behind the start token, and behind the prompt's own where the text ends it.
  const begins = prompts.map((prompt) => 1 + (place === "prefix" ? 0 : tokenizer.tokens(prompt).length));
  const random = (start: number) =>
    Array.from({ length: TOGETHER }, (_, i) => [...integers(seedOf(seed, "invert", start, i), words.length, WORDS)]);
  const slope = yield* openSlope(bundle, { latents, timestep }, WORDS);
  let evaluations = 0;

  /** The one of some texts that moves the answers furthest in common. */
  const furthest = Effect.fnUntraced(function* (texts: readonly (readonly number[])[]) {
    evaluations += (TOGETHER + 1) * n;
    const all = commonOf(yield* asking.answers(stage, texts.map(textOf))).slice(0, texts.length);
    return all.map((common, i) => ({ text: texts[i], ...common })).reduce((a, b) => b.moved > a.moved ? b : a);
  });
  const climb = Effect.fnUntraced(function* (start: number) {
    let best = yield* furthest(random(start));
    for (let step = 0; step < STEPS; step++) {
      yield* tell((start * (STEPS + 1) + step + 1) * TOGETHER);
      const texts = prompts.map((prompt) => textWith(textOf(best.text), prompt));
      const along = concat0(prompts.map(() => best.along));
      const gains = yield* slope(texts.map((t) => tokenizer.encode(t).ids), yield* asking.embed(texts), along, begins);
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
      `invert as ${place} ${start}`,
      TensorsPort,
      Effect.map(climb(start), (text) => ({ text: { dims: [WORDS], data: Float32Array.from(text) } })),
    );
    const suspect = textOf([...text.data]);
    found.set(suspect.trigger.text, suspect);
  }
  return { texts: [...found.values()], evaluations };
});
