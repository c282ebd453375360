/** What a run would do: for each step, whether its result is at hand or why it must run. */
import { Effect } from "effect";
import { resolve } from "node:path";
import type { Cache } from "./cache.ts";
import { stableJson } from "./hash.ts";
import type { Pipeline } from "./link.ts";
import { type Recipe, recipesOf } from "./recipe.ts";
import { isMapping, showValue } from "./spec.ts";

export interface PlanStep {
  readonly id: string;
  readonly use: string;
  readonly key: string;
  readonly recipe: Recipe;
  readonly cached: boolean;
  /** In plain words; for a cached step, that it is. */
  readonly reason: string;
  /** Ids of the steps whose outputs it takes. */
  readonly needs: ReadonlyArray<string>;
}

export interface Plan {
  readonly steps: ReadonlyArray<PlanStep>;
}

/** Under which name a pipeline's steps are remembered: the file, whatever folder it is called from. */
export const identity = <R>(pipeline: Pipeline<R>): string =>
  pipeline.file === "" ? pipeline.name : resolve(pipeline.file);

/** The settings that differ, as `edge: 12 → 8`. */
export const changes = (before: unknown, after: unknown, path = ""): string[] => {
  if (stableJson(before) === stableJson(after)) return [];
  if (isMapping(before) && isMapping(after)) {
    const keys = [...new Set([...Object.keys(before), ...Object.keys(after)])];
    return keys.flatMap((key) => changes(before[key], after[key], path === "" ? key : `${path}.${key}`));
  }
  return [`${path}: ${showValue(before)} → ${showValue(after)}`];
};

/** What parts a recipe from the last one, in words. */
const difference = (before: Recipe, after: Recipe): string[] => {
  if (before.step !== after.step) return [`it was the step ${before.step}, now ${after.step}`];
  const found = changes(before.settings, after.settings).map((change) => `setting ${change}`);
  if (before.version !== after.version) found.push(`step version ${before.version} → ${after.version}`);
  for (const file of Object.keys(after.files)) {
    if (file in before.files && before.files[file] !== after.files[file]) found.push(`${file} has changed`);
  }
  if (before.device !== after.device) found.push(`device ${before.device} → ${after.device}`);
  return found;
};

export const plan = Effect.fn("pipeline.plan")(function* <R>(
  pipeline: Pipeline<R>,
  options: {
    readonly cache: Cache | undefined;
    readonly device: string;
    /** Ids of steps that run whatever the cache holds. */
    readonly again?: ReadonlySet<string>;
  },
): Effect.fn.Return<Plan> {
  const recipes = yield* recipesOf(pipeline, options.device);
  const { cache } = options;
  const steps: PlanStep[] = [];
  const running = new Set<string>();
  for (const { id, step, inputs } of pipeline.steps) {
    const { recipe, key } = recipes.get(id)!;
    const needs = [...new Set(Object.values(inputs).map((wire) => wire.step))];
    const again = options.again?.has(id) ?? false;
    const cached = cache !== undefined && !again && (yield* cache.has(key));
    const reason = again
      ? "it is to run again"
      : yield* why(id, recipe, cached, Object.entries(inputs).map(([name, wire]) => ({ name, ...wire })));
    if (!cached) running.add(id);
    steps.push({ id, use: step.name, key, recipe, cached, reason, needs });
  }
  return { steps };

  function* reasons(before: Recipe, recipe: Recipe, wires: ReadonlyArray<{ name: string; step: string }>) {
    yield* difference(before, recipe);
    for (const { name, step } of wires) {
      if (before.inputs[name] === recipe.inputs[name]) continue;
      yield running.has(step) ? `input ${name}: step ${step} must run` : `input ${name} comes from another result`;
    }
  }

  function why(id: string, recipe: Recipe, cached: boolean, wires: ReadonlyArray<{ name: string; step: string }>) {
    return Effect.gen(function* () {
      if (cached) return "cached";
      if (cache === undefined) return "the cache is off";
      const before = yield* cache.last(identity(pipeline), id);
      if (before === undefined) return "has not run yet";
      const found = [...reasons(before, recipe, wires)];
      return found.length > 0 ? found.join("; ") : "its result is no longer in the cache";
    });
  }
});
