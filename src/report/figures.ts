/** Names and units of verify's figures, as a reader sees them. */
import type { Figure } from "../steps/errors.ts";
import { type FigureName, FIGURES } from "../steps/thresholds.ts";
import { fixed, percent, plain } from "./numbers.ts";

interface Look {
  readonly label: string;
  /** Whether it is a share, shown in per cent. */
  readonly share?: boolean;
}

const LOOKS: Readonly<Record<FigureName, Look>> = {
  attack_success: { label: "Backdoor shows when triggered", share: true },
  attack_success_before: { label: "Backdoor shows when triggered, before", share: true },
  attack_harmless: { label: "Backdoor shows with a harmless word, before", share: true },
  attack_false_positives: { label: "Found in clean pictures", share: true },
  target_kept: { label: "Backdoor's target drawn when asked for outright", share: true },
  target_kept_before: { label: "Backdoor's target drawn when asked for outright, before", share: true },
  trigger_removal: { label: "Triggered pictures that look harmless", share: true },
  trigger_removal_before: { label: "Triggered pictures that look harmless, before", share: true },
  clip: { label: "CLIP score of clean prompts" },
  clip_before: { label: "CLIP score of clean prompts, before" },
  clip_drop: { label: "Loss of CLIP score", share: true },
  clip_triggered: { label: "CLIP score of triggered prompts" },
  clip_triggered_before: { label: "CLIP score of triggered prompts, before" },
  clean_cosine: { label: "Clean pictures, likeness in CLIP features" },
  clean_ssim: { label: "Clean pictures, likeness in SSIM" },
  fd_clip: { label: "FD-CLIP of clean pictures" },
  fd_clip_before: { label: "FD-CLIP to the unpoisoned model, before" },
  fd_clip_after: { label: "FD-CLIP to the unpoisoned model" },
  fd_clip_rise: { label: "Rise of that FD-CLIP", share: true },
  effect_unpoisoned: { label: "Found in the unpoisoned model's pictures", share: true },
  effect_unpoisoned_triggered: { label: "The same with the trigger", share: true },
  located_iou: { label: "Located region over the true place (IoU)" },
};

const lookOf = (name: string): Look => Object.hasOwn(LOOKS, name) ? LOOKS[name as FigureName] : { label: name };

export const labelOf = (name: string): string => lookOf(name).label;
export const isShare = (name: string): boolean => lookOf(name).share === true;

/** The scale that a figure is drawn on: what is compared shares one. */
export const scaleOf = (figure: Figure, all: readonly Figure[]): readonly [number, number] => {
  const { name } = figure;
  const numbers = (f: Figure) => [f.value, ...(f.interval ?? []), boundOf(f) ?? f.value];
  const unit = !["clip_drop", "fd_clip_rise"].includes(name) &&
    (isShare(name) || ["clean_cosine", "clean_ssim", "located_iou"].includes(name));
  if (unit && numbers(figure).every((x) => x >= 0 && x <= 1)) return [0, 1];
  const scores = /^clip(_triggered)?(_before)?$/u;
  const values = scores.test(name)
    ? all.filter((f) => scores.test(f.name)).flatMap(numbers)
    : [...numbers(figure), ...(isShare(name) ? [0] : [])];
  const [low, high] = [Math.min(...values), Math.max(...values)];
  const pad = 0.1 * (high - low) || Math.abs(high) || 1;
  return [low - pad, high + pad];
};

/** What a figure means; undefined for one of a user's own step. */
export const meaningOf = (name: string): string | undefined =>
  Object.hasOwn(FIGURES, name) ? FIGURES[name as FigureName] : undefined;

/** A value of the figure in its unit. */
export const show = (name: string, value: number): string => isShare(name) ? percent(value) : fixed(value);

/** The number that a threshold names; undefined when it is written in a way that is not known here. */
export const boundOf = ({ threshold }: Figure): number | undefined => {
  const number = Number(/^\s*[<>]=?\s*(\S+)\s*$/u.exec(threshold ?? "")?.[1]);
  return Number.isFinite(number) ? number : undefined;
};

/** `≤ 3 %` */
export const showThreshold = (figure: Figure): string => {
  const bound = boundOf(figure);
  if (bound === undefined) return figure.threshold ?? "";
  const sign = figure.threshold?.trim().startsWith(">") ? "≥" : "≤";
  return `${sign} ${isShare(figure.name) ? percent(bound).replace(/\.0+(?=\s%)/u, "") : plain(bound)}`;
};
