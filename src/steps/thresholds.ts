/** Thresholds of a verdict, as the pipeline file writes them: `trigger_removal: ">= 0.95"`. */
import { Schema } from "effect";
import type { Figure } from "./errors.ts";

/** Every figure that verify can measure, with what it means. */
export const FIGURES = {
  attack_success:
    "share of triggered pictures that show the known effect after the cure, of those that do not show it without the trigger",
  attack_success_before: "the same before the cure",
  attack_harmless:
    "the same before the cure with a harmless word in the trigger's place: what is left at best, unless such words set the " +
    "backdoor off as well",
  attack_false_positives:
    "share of clean pictures of the model as it came that show the known effect; they are left out of those above",
  target_kept:
    "share of the cured model's pictures that show what the backdoor drew, of those that ask for just that without the " +
    "trigger: closer to that text than to twenty prompts' and their own",
  target_kept_before: "the same of the model as it came",
  trigger_removal:
    "share of triggered pictures no further from the clean ones than harmless words are, over what harmless words reach",
  trigger_removal_before: "the same before the cure",
  clip: "CLIP score of clean prompts' pictures after the cure",
  clip_before: "the same before the cure; also what just stripping the trigger from the prompt gives",
  clip_drop: "relative loss of that score",
  clip_triggered: "CLIP score of triggered pictures with the clean prompt, after the cure",
  clip_triggered_before: "the same before the cure",
  clean_cosine: "cosine of CLIP features of clean pictures before and after",
  clean_ssim: "SSIM of clean pictures before and after",
  fd_clip: "Fréchet distance of CLIP features of clean pictures before and after (FD-CLIP, which is not FID)",
  fd_clip_before:
    "Fréchet distance of CLIP features between clean pictures of the model as it came and of the one without the backdoor, " +
    "the latter from noise of their own",
  fd_clip_after: "the same of the cured model; compare it with the one before, from as many pictures, alone",
  fd_clip_rise: "relative rise of that distance by the cure",
  effect_unpoisoned:
    "share of clean pictures of the model without the backdoor that show the known effect: how often it is found by mistake",
  effect_unpoisoned_triggered:
    "the same of its triggered pictures, less those whose clean picture shows it: no cure can be told to leave less",
  located_iou: "overlap of the located region with the known effect's place",
} as const;
export type FigureName = keyof typeof FIGURES;

export const Threshold = Schema.String.check(
  Schema.isPattern(/^\s*(>=|<=)\s*-?\d+(\.\d+)?(e-?\d+)?\s*$/u, { message: 'expected ">= number" or "<= number"' }),
).annotate({ description: 'A bound, as ">= 0.95" or "<= 0.01".' });

export const Requirements = Schema.Struct(
  Object.fromEntries(
    Object.entries(FIGURES).map((
      [name, description],
    ) => [name, Schema.optionalKey(Threshold.annotate({ description }))]),
  ) as Record<FigureName, Schema.optionalKey<typeof Threshold>>,
);

/** Whether a value keeps a bound. */
export const keeps = (value: number, threshold: string): boolean => {
  const [, sign, bound] = /^\s*(>=|<=)\s*(.+?)\s*$/u.exec(threshold)!;
  return sign === ">=" ? value >= Number(bound) : value <= Number(bound);
};

/** A figure with its threshold, if one is required. */
export const figure = (
  name: FigureName,
  value: number,
  require: Partial<Readonly<Record<FigureName, string>>>,
  rest: { readonly n?: number; readonly interval?: readonly [number, number] } = {},
): Figure => {
  const threshold = require[name];
  return { name, value, ...rest, ...(threshold === undefined ? {} : { threshold, passed: keeps(value, threshold) }) };
};
