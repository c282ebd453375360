/**
 * What a step's result depends on, and the key made of it. Two runs with the same key give the same result, so the
 * cache may answer. Inputs count by the keys of what made them, so every key is known before anything runs.
 */
import { Effect } from "effect";
import { hashPath, hashValue } from "./hash.ts";
import type { LinkedStep, Pipeline } from "./link.ts";

export interface Recipe {
  readonly step: string;
  readonly version: number;
  readonly settings: unknown;
  /** Input name → `KEY.OUTPUT` of the step that makes it. */
  readonly inputs: Readonly<Record<string, string>>;
  /** Path → hash of its content. */
  readonly files: Readonly<Record<string, string>>;
  /** Kind of device that computes: different kinds round differently. */
  readonly device: string;
}

/** Raise it when stored values change their form. */
const STORE = 1;

export const keyOf = (recipe: Recipe): string => {
  // A file that stays the same under another name is the same file, but the settings hold its path anyway.
  return hashValue({ store: STORE, ...recipe });
};

const recipeOf = Effect.fnUntraced(function* <R>(
  { step, settings, encoded, inputs }: LinkedStep<R>,
  keys: ReadonlyMap<string, string>,
  device: string,
) {
  const files: Record<string, string> = {};
  for (const path of step.files(settings)) files[path] = yield* hashPath(path);
  const from = Object.entries(inputs).map(([name, wire]) => [name, `${keys.get(wire.step)}.${wire.output}`]);
  const recipe: Recipe = {
    step: step.name,
    version: step.version,
    settings: encoded,
    inputs: Object.fromEntries(from),
    files,
    device,
  };
  return recipe;
});

/** Recipe and key of every step of a pipeline, by id. */
export const recipesOf = Effect.fn("pipeline.recipes")(function* <R>(pipeline: Pipeline<R>, device: string) {
  const keys = new Map<string, string>();
  const recipes = new Map<string, { readonly recipe: Recipe; readonly key: string }>();
  for (const linked of pipeline.steps) {
    const recipe = yield* recipeOf(linked, keys, device);
    const key = keyOf(recipe);
    keys.set(linked.id, key);
    recipes.set(linked.id, { recipe, key });
  }
  return recipes;
});
