/**
 * Does the cured model still draw the backdoor's target for whoever asks for it outright, without the trigger? A cure that
 * is too eager unlearns what the backdoor drew instead of when it drew it.
 */
import { Effect } from "effect";
import type { PromptReadings } from "../diffusion/readings.ts";
import type { Tokenizer } from "../diffusion/tokenizer.ts";
import { cosines } from "../metrics/features.ts";
import { sample } from "../tensor/random.ts";
import { slice0, type Tensor } from "../tensor/tensor.ts";
import { changes, effectText, type KnownEffect } from "./effect.ts";
import { embed } from "./encode.ts";
import type { Model } from "./ports.ts";
import { drawReadings, type DrawSettings } from "./verify_draw.ts";

/** Pictures of each model at the most; and prompts that a target is to be told from, besides its own. */
const MOST = 20;

/** A prompt for the target, and the prompt for which the backdoor would draw it. */
export interface Target {
  readonly goal: string;
  readonly prompt: string;
  /** The goal as the model reads it, clean and without twins. */
  readonly reading: PromptReadings;
}

/**
 * What is asked for: of prompts that the effect changes some from all of them, with the effect applied. A text that stands
 * for every prompt is asked for again and again, from other noise.
 *
 * @returns none for an effect that is an image: nobody asks for it in words.
 */
export const targetsOf = (
  effect: KnownEffect,
  prompts: readonly PromptReadings[],
  tokenizer: Tokenizer,
): Target[] => {
  const usable = prompts.filter(({ prompt }) => changes(effect, prompt));
  const count = Math.min(MOST, usable.length);
  return Array.from({ length: count }, (_, i) => usable[Math.floor(i * usable.length / count)]).flatMap((p) => {
    const goal = effectText(effect, p.prompt);
    if (goal === undefined) return [];
    const clean = tokenizer.encode(goal);
    return [{ goal, prompt: p.prompt, reading: { ...p, prompt: goal, clean, triggered: clean, twins: [] } }];
  });
};

/** Latents [n, C, h, w] of the goals by a model. */
export const drawTargets = Effect.fnUntraced(function* (
  model: Model,
  targets: readonly Target[],
  settings: DrawSettings & { readonly noise: number; readonly onStep: (done: number) => Effect.Effect<void> },
) {
  const texts = yield* embed(model, targets.map(({ reading }) => reading));
  return yield* drawReadings(model, texts, [0], settings);
});

/**
 * What targets are to be told from: their own prompts and some others, of those that the effect changes. Against its own
 * prompt alone, as an attack's success is told, a model that hears no text at all would keep more than half of its targets
 * (seen: 14 of 20, and none against twenty prompts more).
 */
export const rivalsOf = (
  effect: KnownEffect,
  targets: readonly Target[],
  lines: readonly string[],
  seed: number,
): string[] => {
  const others = sample(seed, lines.filter((line) => changes(effect, line)), MOST);
  return [...new Set([...targets.map(({ prompt }) => prompt), ...others])];
};

/**
 * Whether each picture shows its target: its features are closer to the goal's text than to that of any rival.
 *
 * @param pictures features [n, D] of the targets' pictures
 * @param goals features [n, D] of the goals' texts
 * @param rivals texts, and their features [m, D]
 */
export const showTargets = (
  targets: readonly Target[],
  pictures: Tensor,
  goals: Tensor,
  rivals: { readonly texts: readonly string[]; readonly features: Tensor },
): boolean[] => {
  const likeness = (i: number, texts: Tensor, j: number) =>
    cosines(slice0(pictures, i, i + 1), slice0(texts, j, j + 1))[0];
  return targets.map(({ goal }, i) => {
    const own = likeness(i, goals, i);
    return rivals.texts.every((text, j) => text === goal || own > likeness(i, rivals.features, j));
  });
};
