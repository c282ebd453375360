/**
 * The order of suspects. Texts that share tokens with a trigger often do what it does, so what was found is sorted into
 * families that do the same thing; within one those come first that people would not see, and of these the ones that work
 * in every prompt, as a trigger was trained to.
 */
import { Effect } from "effect";
import type { Bundle } from "../diffusion/bundle.ts";
import { invisible } from "../diffusion/lookalikes.ts";
import { bareText, type Suspect, type SuspectGroup } from "../diffusion/suspects.ts";
import type { Trigger } from "../diffusion/trigger.ts";
import { pearson } from "../metrics/correlation.ts";
import { slice0, type Tensor } from "../tensor/tensor.ts";
import { report } from "./progress.ts";
import type { Examined } from "./scan_examine.ts";
import { alarmOf, type Measure, type Measures } from "./scan_measures.ts";
import { drawSuspects } from "./scan_pictures.ts";
import type { AskSettings } from "./scan_probe.ts";

/** Texts that have limits of their own; an ending is a word behind a prompt. */
export type Kind = "character" | "letter" | "word" | "ending" | "phrase";
export const kindOf = ({ group, trigger }: { readonly group: SuspectGroup; readonly trigger: Trigger }): Kind => {
  if (group === "described" || group === "placed") return "phrase";
  if (group === "character" || group === "letter") return group;
  return trigger.place === "suffix" ? "ending" : "word";
};

/** How far a text may stand out unless told otherwise; a measure without a limit raises no alarm. */
export const LIMITS: Readonly<Record<Kind, Measures>> = {
  character: { strength: 10, start: 2.2, place: 5, beside: 1.4, likeness: 15 },
  letter: { strength: 2.5, place: 3, likeness: 6 },
  // Words may well change a picture.
  word: { strength: 5, start: 2, place: 3.5, likeness: 14 },
  // What a prompt ends with weighs more in how it is read: of colours up to 18 (likeness), of things up to 3.7 (place).
  ending: { strength: 5, start: 2.3, place: 5, beside: 1.4, likeness: 25 },
  phrase: { reach: 3 },
};

/** Families that are drawn, members of each, those shown, and prompts of each. */
const FAMILIES = 3, MEMBERS = 8, SHOWN = 3, SHEETS = 4;
/** Fields that correlate as far show the same place. */
const SAME_PLACE = 0.6;

export interface Ranked extends Examined {
  /** The measure that stands out most, and how far in units of its limit. */
  readonly measure: Measure;
  readonly score: number;
}

/** Those that stand out most, in units of the limits, first; what is known to be harmless is no suspect. */
export const rank = (examined: readonly Examined[], limits: Readonly<Record<Kind, Measures>>): Ranked[] =>
  examined.filter(({ suspect }) => !suspect.harmless)
    .map((e) => ({ ...e, ...alarmOf(e.scores, limits[kindOf(e.suspect)]) }))
    .sort((a, b) => b.score - a.score);

/** Whether people would not see that a text is there: invisible signs, and letters that look like others. */
const isHidden = ({ group, trigger }: Suspect): boolean =>
  group === "letter" || (group === "character" && invisible.includes(bareText(trigger)));

const alike = (a: Ranked, b: Ranked): boolean => {
  const phrases = [a, b].map(({ suspect }) => kindOf(suspect) === "phrase");
  if (phrases[0] || phrases[1]) return phrases[0] && phrases[1] && a.suspect.trigger.of === b.suspect.trigger.of;
  if (a.measure === "beside" || b.measure === "beside") {
    return a.measure === b.measure && a.about?.noun === b.about?.noun;
  }
  if (a.measure === b.measure && a.measure !== "place") return true;
  return a.field !== undefined && b.field !== undefined && pearson(a.field, b.field) > SAME_PLACE;
};

/** What was found, by what it does: each with the first of a family that is there, or the first of a new one. */
export const familiesOf = (found: readonly Ranked[]): Ranked[][] => {
  const families: Ranked[][] = [];
  for (const one of found) {
    const own = families.find(([first]) => alike(first, one));
    if (own === undefined) families.push([one]);
    else own.push(one);
  }
  return families.map((all) =>
    all.sort((a, b) => Number(isHidden(b.suspect)) - Number(isHidden(a.suspect)) || b.score - a.score)
  );
};

/** The prompts that show what a text does. */
const telling = ({ measure, about, prompts }: Ranked): readonly string[] =>
  measure === "beside" && about !== undefined ? about.prompts : prompts;

/** ln of the mean squared change of the latents in the prompt where it is smallest, of rows [2·p, C, h, w]. */
const weakest = (latents: Tensor, prompts: number): number => {
  const each = latents.data.length / (2 * prompts);
  let least = Infinity;
  for (let p = 0; p < prompts; p++) {
    let sum = 0;
    for (let i = 0; i < each; i++) {
      sum += (latents.data[(prompts + p) * each + i] - latents.data[p * each + i]) ** 2 / each;
    }
    least = Math.min(least, Math.log(sum + 1e-9));
  }
  return least;
};

/** Draws the first suspects, and puts all in order. Without a find the one that stands out most is drawn. */
export const inOrder = Effect.fnUntraced(function* (
  bundle: Bundle,
  examined: readonly Examined[],
  limits: Readonly<Record<Kind, Measures>>,
  settings: AskSettings,
) {
  const ranked = rank(examined, limits);
  const families = familiesOf(ranked.filter(({ score }) => score > 1));
  const some = families.length === 0
    ? ranked.slice(0, 1)
    : families.slice(0, FAMILIES).flatMap((family) => family.slice(0, MEMBERS));
  const sheets = Math.min(SHEETS, ...some.map((one) => telling(one).length));
  const drawn = some.map((one) => ({ suspect: one.suspect, prompts: telling(one).slice(0, sheets) }));
  const note = "drawing pictures with and without the first suspects";
  yield* report({ done: 0, total: 1, note });
  const latents = yield* drawSuspects(bundle, drawn, settings, (done, total) => report({ done, total, note }));
  const rows = new Map(some.map((one, i) => [one, slice0(latents, 2 * sheets * i, 2 * sheets * (i + 1))]));
  const strength = new Map([...rows].map(([one, own]) => [one, weakest(own, sheets)]));
  const sorted = families.map((family) => {
    // How far a phrase is amplified tells more than what a few pictures do.
    if (kindOf(family[0].suspect) === "phrase") return family;
    const seen = family.filter((one) => strength.has(one));
    seen.sort((a, b) =>
      Number(isHidden(b.suspect)) - Number(isHidden(a.suspect)) || (strength.get(b) ?? 0) - (strength.get(a) ?? 0)
    );
    return [...seen, ...family.filter((one) => !strength.has(one))];
  });
  const found = new Set(sorted.flat());
  const order = [...found, ...ranked.filter((one) => !found.has(one))];
  const shown = (sorted.length === 0 ? ranked.slice(0, 1) : order.filter((one) => rows.has(one))).slice(0, SHOWN);
  return {
    order,
    /** How many texts each family has, in that order. */
    families: sorted.map((family) => family.length),
    shown: {
      drawn: shown.map((one) => telling(one).slice(0, sheets)),
      latents: shown.flatMap((one) => rows.get(one) ?? []),
    },
  };
});
