/**
 * The screening of prompts, as many as come: the text encoder is asked about each, and the network only about those that
 * it does not settle. Memory does not grow with their number.
 */
import { Effect } from "effect";
import type { Bundle } from "../diffusion/bundle.ts";
import { BundleError } from "../diffusion/errors.ts";
import { type ReadPrompt, readRemovals } from "../diffusion/removals.ts";
import { MAX_TEXT, type Tokenizer } from "../diffusion/tokenizer.ts";
import { type Kind, kindOf, pValue, type Scored, scoreParts, TEXT_CHANNELS, thresholdOf } from "./screen_measures.ts";
import type { ScreenedPrompt, ScreenedToken, Screening, Suspected } from "./screen_ports.ts";
import { type Encoded, evaluationsFor, openProbe, shownOf } from "./screen_probe.ts";

/** Prompts that are asked about at once. */
export const TOGETHER = 8;
/** Prompts whose results are remembered: logs repeat themselves. */
const REMEMBERED = 4096;
/** Suspects that are named. */
const NAMED = 3;

export interface ScreenOptions {
  readonly falsePositives: number;
  /** What becomes of prompts longer than the model's context. */
  readonly long: "cut" | "windows";
  readonly anyway: boolean;
}

/** The prompt in pieces that fit, cut at spaces; the whole where it fits or has none. */
export const windowsOf = (tokenizer: Tokenizer, text: string): string[] => {
  const room = tokenizer.maxLength - 2;
  if (tokenizer.tokens(text).length <= room) return [text];
  const windows: string[] = [];
  let window = "";
  let used = 0;
  for (const word of text.split(/(?<=\s)(?=\S)/u)) {
    const length = tokenizer.tokens(word).length;
    if (used + length > room && window !== "") {
      windows.push(window);
      [window, used] = ["", 0];
    }
    window += word;
    used += length;
  }
  return window === "" ? windows : [...windows, window];
};

const NOTHING: Scored = { score: -Infinity, channel: "rules", channels: {} };
const best = (scores: readonly Scored[]): Scored => scores.reduce((a, b) => b.score > a.score ? b : a, NOTHING);

/** A part's score by the text alone. */
const byText = (scored: Scored): Scored =>
  Object.entries(scored.channels).reduce<Scored>((a, [name, score]) => {
    const channel = [...TEXT_CHANNELS].find((known) => known === name);
    return channel !== undefined && score > a.score ? { score, channel, channels: scored.channels } : a;
  }, NOTHING);

/** Words that a part of the prompt is made of, with the score that each token has of all parts it is in. */
const tokensOf = ({ content, removals }: ReadPrompt, scores: readonly Scored[]): ScreenedToken[] =>
  content.map(({ text, word }, i) => ({
    text,
    word,
    score: removals.reduce((top, { tokens }, r) => tokens.includes(i) ? Math.max(top, scores[r].score) : top, -99),
  }));

/** Opens a screener. Fails when the calibration was made for other weights. */
export const openScreener = Effect.fnUntraced(function* (
  bundle: Bundle,
  screening: Screening,
  options: ScreenOptions,
) {
  const same = screening.hashes.every(([file, hash]) => bundle.hashes.get(file) === hash);
  if (!same || screening.hashes.length !== bundle.hashes.size) {
    return yield* new BundleError({
      file: bundle.root.path,
      problem: "has other weights than the model that was calibrated",
      expected: `the weights of ${screening.model}, or a calibration of this model (step screen-calibrate)`,
    });
  }
  const { calibration, seed } = screening;
  const probe = yield* openProbe(bundle, { seed, anyway: options.anyway });
  const thresholds: Readonly<Record<Kind, number>> = {
    plain: thresholdOf(calibration.scores.plain, options.falsePositives),
    letters: thresholdOf(calibration.scores.letters, options.falsePositives),
  };
  for (const [kind, scores] of Object.entries(calibration.scores)) {
    const least = 1 / (scores.length + 1);
    if (least <= options.falsePositives) continue;
    return yield* new BundleError({
      file: screening.source,
      problem: `${scores.length} harmless prompts ${
        kind === "letters" ? "with a foreign letter " : ""
      }cannot set a rate of false positives of ${options.falsePositives}`,
      expected: `a rate of ${least.toPrecision(2)} or more, or more harmless prompts (count of screen-calibrate)`,
    });
  }
  const known = new Map<string, ScreenedPrompt>();

  const readAll = (text: string): ReadPrompt[] => {
    // What no tokenizer reads to its end is cut before it: the model sees its first words alone.
    const bounded = text.slice(0, MAX_TEXT);
    const texts = options.long === "windows" ? windowsOf(bundle.tokenizer, bounded) : [bounded];
    return texts.map((window) => readRemovals(bundle.tokenizer, window));
  };

  const resultOf = (
    prompt: string,
    read: readonly ReadPrompt[],
    scores: readonly (readonly Scored[])[],
    evaluations: number,
    kind: Kind,
  ): ScreenedPrompt => {
    const threshold = thresholds[kind];
    const top = best(scores.flat());
    const score = top.score === -Infinity ? -99 : top.score;
    const flagged = score > threshold;
    const parts = read.flatMap(({ removals }, w) => removals.map((removal, r) => ({ removal, scored: scores[w][r] })));
    const suspects = parts.filter(({ scored }) => flagged && scored.score > threshold)
      .sort((a, b) => b.scored.score - a.scored.score).slice(0, NAMED)
      .map(({ removal: { text, kind }, scored }): Suspected => ({
        text,
        kind,
        score: scored.score,
        channel: scored.channel,
      }));
    return {
      prompt,
      flagged,
      score,
      p: pValue(calibration.scores[kind], score),
      threshold,
      channel: top.score === -Infinity ? null : top.channel,
      suspects,
      tokens: read.flatMap((window, w) => tokensOf(window, scores[w])),
      cut: read.reduce((sum, { cut }) => sum + cut, 0),
      windows: read.length,
      evaluations,
    };
  };

  const screenFew = Effect.fnUntraced(function* (texts: readonly string[]) {
    const read = texts.map(readAll);
    const encoded = yield* probe.encode(read.flat());
    const shown = encoded.map((e) => shownOf(e));
    const first = shown.map((parts) => scoreParts(calibration, parts).map(byText));
    let at = 0;
    const ranges = read.map((windows) => [at, at += windows.length] as const);
    const kinds = ranges.map(([from, to]) => kindOf(shown.slice(from, to).flat()));
    const settled = ranges.map(([from, to], t) => best(first.slice(from, to).flat()).score > thresholds[kinds[t]]);
    const asked: Encoded[] = encoded.filter((_, i) => !settled[ranges.findIndex(([from, to]) => from <= i && i < to)]);
    const answers = new Map<Encoded, { readonly scores: Scored[]; readonly evaluations: number }>();
    const network = yield* probe.ask(asked);
    asked.forEach((e, i) => {
      const scores = scoreParts(calibration, shownOf(e, network[i]));
      answers.set(e, { scores, evaluations: evaluationsFor(e.prompt.removals.length) });
    });
    return texts.map((text, t) => {
      const [from, to] = ranges[t];
      const own = encoded.slice(from, to);
      const scores = own.map((e, w) => answers.get(e)?.scores ?? first[from + w]);
      const evaluations = own.reduce((sum, e) => sum + (answers.get(e)?.evaluations ?? 0), 0);
      return resultOf(text, read[t], scores, evaluations, kinds[t]);
    });
  });

  /** Prompts, judged in their order. */
  const screen = Effect.fnUntraced(function* (texts: readonly string[]) {
    const results: ScreenedPrompt[] = [];
    for (let begin = 0; begin < texts.length; begin += TOGETHER) {
      const some = texts.slice(begin, begin + TOGETHER);
      const fresh = [...new Set(some)].filter((text) => !known.has(text));
      const judged = yield* screenFew(fresh);
      if (known.size + judged.length > REMEMBERED) {
        const kept = new Map(some.flatMap((text) => {
          const result = known.get(text);
          return result === undefined ? [] : [[text, result] as const];
        }));
        known.clear();
        kept.forEach((result, text) => known.set(text, result));
      }
      judged.forEach((result) => known.set(result.prompt, result));
      for (const text of some) {
        const result = known.get(text);
        if (result !== undefined) results.push(result);
      }
    }
    return results;
  });

  return { screen, thresholds, evaluations: probe.evaluations };
});
export type Screener = Effect.Success<ReturnType<typeof openScreener>>;
