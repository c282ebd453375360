/** The rows that a closed form is fitted to: the prompts' embeddings, and those of their variations. */
import { Effect } from "effect";
import { complete } from "../diffusion/alignment.ts";
import { openTextEncoder } from "../diffusion/text.ts";
import { closedFormRows, type Target } from "../unlearn/candidates.ts";
import { addSums, type Moments, momentsOf, type MomentSums, momentSums } from "../unlearn/closed_form.ts";
import type { TextPairs } from "./ports.ts";
import { report } from "./progress.ts";

/** Variations whose embeddings are held at once. */
const CHUNK = 16;
/** Variations that are fitted to, at the most: a linear map takes no more from more, and large encoders read slowly. */
export const FITTED = 480;
/** With more infected twins than this share, words are no measure: those of variations have not been looked at. */
const MOST_INFECTED = 0.1;

/** Whether so few twins show the backdoor themselves that those of variations may be taken for harmless unseen. */
export const trustsTwins = (use: readonly (readonly boolean[])[]): boolean => {
  const all = use.flat();
  return all.filter((usable) => !usable).length <= MOST_INFECTED * all.length;
};

/** Moments of the rows of chosen prompts and, where `varied`, of the variations that were made of no other prompt. */
export type Fit = (chosen: readonly number[], target: Target, varied: boolean) => Moments;

/**
 * Encodes the variations once, in batches, and keeps their sums: those made of `held` prompts apart, so that a fit to the
 * others
 * has seen no text that was made of them (single words of theirs may stand in other prompts' variations).
 * @param use use[p][k] is false for a twin that shows the backdoor itself.
 */
export const openFit = Effect.fnUntraced(function* (
  text: TextPairs,
  use: readonly (readonly boolean[])[],
  targets: readonly Target[],
  held: readonly number[],
) {
  const alignment = text.prompts.map((p) => complete(p.toClean));
  const trusted = trustsTwins(use);
  const sums = new Map<string, MomentSums>();
  const add = (name: string, more: MomentSums) => {
    const known = sums.get(name);
    sums.set(name, known === undefined ? more : addSums(known, more));
  };
  const variations = text.variations.slice(0, FITTED);
  const groups = [
    { name: "rest", of: variations.filter((v) => !v.sources.some((p) => held.includes(p))) },
    { name: "held", of: variations.filter((v) => v.sources.some((p) => held.includes(p))) },
  ];
  let done = 0;
  yield* Effect.scoped(Effect.gen(function* () {
    if (variations.length === 0) return;
    const encodeTexts = yield* openTextEncoder(text.model.bundle);
    for (const { name, of } of groups) {
      for (let begin = 0; begin < of.length; begin += CHUNK) {
        const some = of.slice(begin, begin + CHUNK);
        yield* report({ done, total: variations.length, note: "reading variations of the prompts" });
        done += some.length;
        const flat = yield* encodeTexts(some.flatMap((v) => v.readings));
        const readings = some[0].readings.length;
        const embeddings = { dims: [some.length, readings, ...flat.dims.slice(1)], data: flat.data };
        const usable = some.map(() => Array.from({ length: readings - 2 }, () => trusted));
        let same: MomentSums | undefined;
        for (const target of targets) {
          const rows = closedFormRows(
            embeddings,
            some.map((v) => complete(v.toClean)),
            usable,
            some.map((_, i) => i),
            target,
          );
          same = momentSums(rows.triggered, rows.wanted, rows.keep, same);
          add(`${name} ${target}`, same);
        }
      }
    }
  }));
  const fit: Fit = (chosen, target, varied) => {
    const rows = closedFormRows(text.embeddings, alignment, use, chosen, target);
    if (!varied) return momentsOf(momentSums(rows.triggered, rows.wanted, rows.keep));
    const parts = [sums.get(`rest ${target}`)];
    if (held.every((p) => chosen.includes(p))) parts.push(sums.get(`held ${target}`));
    const own = momentSums(rows.triggered, rows.wanted, rows.keep);
    return momentsOf(parts.filter((s) => s !== undefined).reduce(addSums, own));
  };
  return fit;
});
