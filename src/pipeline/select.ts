/** Part of a pipeline: `--only` some steps and what they need, `--from` a step on again, `--force` all again. */
import { Effect } from "effect";
import { SpecError } from "../steps/errors.ts";
import type { Pipeline } from "./link.ts";
import { suggestion } from "./suggest.ts";
import type { Wire } from "./wiring.ts";

export interface Selection {
  /** Ids of steps: these, and what they need. All where there is none. */
  readonly only?: ReadonlyArray<string>;
  /** Ids of steps: these and all that follow from them run again, whatever the cache holds. */
  readonly from?: ReadonlyArray<string>;
  /** Everything runs again. */
  readonly force?: boolean;
}

export interface Selected<R> {
  readonly pipeline: Pipeline<R>;
  /** Ids of the steps that run again. */
  readonly again: ReadonlySet<string>;
}

/** The ids that a name means: the step's own, or, for a swept step or a pipeline used as one, those made of it. */
const meant = (name: string, ids: ReadonlyArray<string>): ReadonlyArray<string> =>
  ids.includes(name) ? [name] : ids.filter((id) => id.startsWith(`${name}-`));

/** Ids reached from some, against or along the wires. The steps stand in the order in which they run. */
const needed = <R>({ steps }: Pipeline<R>, ids: Iterable<string>): Set<string> => {
  const found = new Set(ids);
  for (const { id, inputs } of [...steps].reverse()) {
    if (found.has(id)) { for (const { step } of Object.values(inputs)) found.add(step); }
  }
  return found;
};

const following = <R>({ steps }: Pipeline<R>, ids: Iterable<string>): Set<string> => {
  const found = new Set(ids);
  for (const { id, inputs } of steps) {
    if (Object.values(inputs).some(({ step }) => found.has(step))) found.add(id);
  }
  return found;
};

/** Cuts a pipeline down and says what runs again. Fails where a name means no step. */
export const select = <R>(
  pipeline: Pipeline<R>,
  { only = [], from = [], force = false }: Selection,
): Effect.Effect<Selected<R>, SpecError> => {
  const ids = pipeline.steps.map(({ id }) => id);
  const problems = [...only.map((name) => ["--only", name]), ...from.map((name) => ["--from", name])]
    .filter(([, name]) => meant(name, ids).length === 0)
    .map(([flag, name]) => ({
      code: "unknown-id" as const,
      file: `${flag} ${name}`,
      line: 0,
      column: 0,
      message: Object.hasOwn(pipeline.leftOut ?? {}, name)
        ? `step "${name}" is left out by its condition`
        : `there is no step "${name}" here`,
      ...suggestion(name, ids),
    }));
  if (problems.length > 0) return Effect.fail(new SpecError({ problems }));

  const asked = only.flatMap((name) => meant(name, ids));
  const keep = only.length === 0 ? new Set(ids) : needed(pipeline, asked);
  const steps = pipeline.steps.filter(({ id }) => keep.has(id));
  const left = Object.entries(pipeline.outputs).filter(([, { step }]) => keep.has(step));
  // Who asks for one step wants to see what it gives, also where the pipeline hands back something later.
  const own = steps.filter(({ id }) => asked.includes(id)).flatMap(({ id, step }) =>
    Object.entries(step.outputs).map((
      [output, port],
    ): [string, Wire] => [`${id}-${output}`, { step: id, output, port }])
  );
  const outputs = Object.fromEntries(left.length > 0 || only.length === 0 ? left : own);
  const begin = force ? ids : from.flatMap((name) => meant(name, ids));
  return Effect.succeed({ pipeline: { ...pipeline, steps, outputs }, again: following(pipeline, begin) });
};
