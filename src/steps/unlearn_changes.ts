/** New weights over a model, and how far each of them moved. */
import { Effect } from "effect";
import { type Bundle, type BundlePart, partOf, readWeights, withChanges } from "../diffusion/bundle.ts";
import { loraLayers } from "../diffusion/lora_file.ts";
import { networkKeys } from "../diffusion/networks.ts";
import type { Weights } from "../diffusion/train.ts";
import { weightInput } from "../graph/mod.ts";
import type { Tensor } from "../tensor/tensor.ts";
import { applyTo, isTextWeight, type Solution } from "../unlearn/closed_form.ts";
import type { TextPairs } from "./ports.ts";

/**
 * Opens a part for changes. The result makes the model with other weights in that part, given by the network's names; they
 * are kept under the names of the part's file.
 */
export const openChanges = Effect.fnUntraced(function* (bundle: Bundle, part: BundlePart) {
  const stored = yield* networkKeys(yield* partOf(bundle, part));
  return (weights: Weights): Bundle =>
    withChanges(bundle, part, new Map([...weights].map(([key, value]) => [stored.get(key) ?? key, value])));
});

/**
 * Which weights of a part a cure may change so that it can be handed back as the LoRA that the model was opened with: those
 * that the LoRA changes, or where it changes none of the part, all that a LoRA can hold. Undefined without exactly one LoRA.
 */
export const loraWeights = Effect.fnUntraced(function* (bundle: Bundle, part: BundlePart) {
  if (bundle.loras?.uses.length !== 1) return undefined;
  const own = bundle.loras.values.get(part);
  const keys = own === undefined
    ? (yield* loraLayers(bundle)).filter((layer) => layer.part === part).map(({ key }) => key)
    : [...own.keys()];
  const names = [...yield* networkKeys(yield* partOf(bundle, part))].filter(([, key]) => keys.includes(key));
  const wanted = new Set(names.map(([name]) => name));
  return (name: string): boolean => wanted.has(name);
});

/** Weights of the U-Net as inputs of a graph that takes them so. */
export const unetFeeds = (weights: Weights): Record<string, Tensor> =>
  Object.fromEntries([...weights].map(([key, value]) => [weightInput("unet", key), value]));

/** ‖W' − W‖ / ‖W‖ of each weight. */
export const changesOf = (before: Weights, after: Weights): { readonly key: string; readonly change: number }[] =>
  [...after].flatMap(([key, value]) => {
    const old = before.get(key);
    return old === undefined ? [] : [{ key, change: relativeChange(old, value) }];
  });

const relativeChange = (a: Tensor, b: Tensor): number => {
  let apart = 0, whole = 0;
  a.data.forEach((x, i) => {
    apart += (b.data[i] - x) ** 2;
    whole += x * x;
  });
  return Math.sqrt(apart / Math.max(whole, 1e-30));
};

/** Writes W X over every text weight. */
export const applySolution = Effect.fnUntraced(function* ({ model: { bundle } }: TextPairs, solution: Solution) {
  const changed = yield* openChanges(bundle, "unet");
  const keys = [...(yield* networkKeys(bundle.parts.unet)).keys()].filter(isTextWeight);
  const old: Weights = new Map((yield* readWeights(bundle, "unet", keys)).map((weight, i) => [keys[i], weight]));
  const solved: Weights = new Map([...old].map(([key, weight]) => [key, applyTo(weight, solution)]));
  return { model: { bundle: changed(solved) }, solved, weights: changesOf(old, solved) };
});
