/** A model's way of sampling, with what stands in its way told as an error about the model's scheduler_config.json. */
import { Effect } from "effect";
import { join } from "node:path";
import type { Bundle } from "./bundle.ts";
import { BundleError } from "./errors.ts";
import { type SchedulerName, schedulerNames, solverOf } from "./schedules/choose.ts";

const told = <A>(bundle: Bundle, what: string, hint: string, make: () => A): Effect.Effect<A, BundleError> =>
  Effect.try({
    try: make,
    catch: (e) =>
      new BundleError({
        file: join(bundle.root.path, "scheduler", "scheduler_config.json"),
        key: "_class_name",
        problem: `does not go with ${what}: ${e instanceof Error ? e.message : String(e)}`,
        hint,
      }),
  });

/** How steps of a model are made by a scheduler; fails when the model's config does not go with it. */
export const solverFor = (bundle: Bundle, scheduler: SchedulerName) =>
  told(
    bundle,
    `the setting scheduler: ${scheduler}`,
    `Set scheduler to another one of ${schedulerNames.join(", ")}; ddim goes with every model that is read.`,
    () => solverOf(bundle.scheduler, scheduler),
  );

/** The steps of a run; fails when so many cannot be made. */
export const planFor = Effect.fnUntraced(function* (
  bundle: Bundle,
  { scheduler, steps }: { readonly scheduler: SchedulerName; readonly steps: number },
) {
  const solver = yield* solverFor(bundle, scheduler);
  return yield* told(
    bundle,
    `steps: ${steps}, scheduler: ${scheduler}`,
    "Set another number of steps, or another scheduler.",
    () => solver.plan(steps),
  );
});
