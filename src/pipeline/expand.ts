/**
 * What a file says once and a run does several times, or not at all: `matrix:` and `foreach:` (a step, and all that take
 * from it, once for each value), `if:`, and `use:` of another pipeline file, whose steps stand in the place of the one
 * that uses it. What comes out is a plain list of uses of steps, each of which knows the file that it came from.
 */
import { Effect } from "effect";
import { basename, dirname, resolve } from "node:path";
import type { AnyStep } from "../steps/step.ts";
import { explain } from "../steps/errors.ts";
import { holds } from "./condition.ts";
import { isSet } from "./overrides.ts";
import { isCode, loadOwnStep, parseCode } from "./own_step.ts";
import { paramsOf } from "./file_params.ts";
import { type Axis, labelled, type Place, placeKey, placesOf } from "./sweep.ts";
import { parseTemplate } from "./reference.ts";
import type { Path } from "./source.ts";
import { type Complain, type Complaint, showValue, type Spec, type StepUse } from "./spec.ts";
import { BROKEN, type Given, isGiven, substitution } from "./substitute.ts";
import { suggestion } from "./suggest.ts";
import { type Source, type Wiring, wiring } from "./wiring.ts";

/** A pipeline file, or one that another uses. */
export interface Scope {
  readonly spec: Spec;
  /** Values of the parameters: plain, from --set, given by the pipeline that uses this one, or UNSET. */
  readonly params: Readonly<Record<string, unknown>>;
  /** What they are when nobody sets them. */
  readonly original: Readonly<Record<string, unknown>>;
  readonly folder: string;
  readonly complain: Complain;
  /** Before the ids of its steps: empty, or the id of the step that uses this file and a dash. */
  readonly prefix: string;
  /** Files that are being used, from the first to this one: one that uses itself would never end. */
  readonly files: ReadonlyArray<string>;
}

/** One use of a step, with everything that it takes to link it. */
export interface Instance<R> {
  /** Unique in the whole pipeline; the step's own id where it runs once. */
  readonly id: string;
  /** Its id in its file. */
  readonly local: string;
  readonly step: AnyStep<R>;
  readonly use: typeof StepUse.Type;
  readonly scope: Scope;
  readonly substitute: (...args: Parameters<Given["substitute"]>) => unknown;
  readonly wiring: () => Wiring;
  /** Why it does not run, where a condition says so. */
  readonly leftOut?: string;
}

export interface Expanded<R> {
  readonly instances: ReadonlyArray<Instance<R>>;
  /** Where the outputs of the file lead, by name; a swept one has a name for each value. */
  readonly outputs: () => Readonly<Record<string, { readonly text: string; readonly wiring: Wiring }>>;
}

export interface ExpandOptions<R> {
  readonly steps: ReadonlyArray<AnyStep<R>>;
  readonly allowCode: boolean;
  /** Opens a pipeline file that another uses; a complaint where it cannot be read. Its own mistakes are told already. */
  readonly open: (
    file: string,
  ) => Effect.Effect<{ readonly spec: Spec; readonly complain: Complain } | Complaint | undefined>;
}

/** Uses of steps that one file may lead to: a bound on a mistake, far above a sensible sweep. */
const MOST_INSTANCES = 2000;
const MOST_NESTED = 8;

/** Whether a `use` means another pipeline file. */
export const isPipeline = (use: string): boolean => /\.(ya?ml|json)$/.test(use);

interface Group<R> {
  readonly axes: ReadonlyArray<Axis>;
  readonly members: Map<
    string,
    { readonly place: Place; readonly source: () => Source | undefined; readonly label: string }
  >;
  readonly instances: Instance<R>[];
}

/** Ids of the steps that a value refers to, however deep. */
const referred = (value: unknown): string[] => {
  if (typeof value === "string") {
    const template = parseTemplate(value);
    const reference = template._tag === "whole" ? template.reference : undefined;
    return reference?._tag === "output" ? [reference.step] : [];
  }
  return typeof value === "object" && value !== null && !isSet(value) ? Object.values(value).flatMap(referred) : [];
};

/** Expands a file. `leftOut` says why none of its steps runs, where the step that uses it does not. */
export const expand = <R>(scope: Scope, options: ExpandOptions<R>, leftOut?: string): Effect.Effect<Expanded<R>> =>
  Effect.gen(function* () {
    const { spec, complain, prefix } = scope;
    const ids = Object.keys(spec.steps);
    const known = new Map(options.steps.map((step) => [step.name, step]));
    const groups = new Map<string, Group<R>>();
    let complete = false;

    const listOf = (value: unknown, path: Path): ReadonlyArray<unknown> => {
      const found = substitution({ ...scope, swept: {}, follow: () => undefined })(value, path);
      if (found === BROKEN) return [];
      if (Array.isArray(found) && found.length > 0) return found;
      complain(path, "value", {
        code: "sweep-values",
        message: `this sweep goes through ${showValue(found)}`,
        expected: "a list of at least one value",
      });
      return [];
    };

    const axes = new Map<string, ReadonlyArray<Axis>>();
    const axesOf = (id: string, above: ReadonlyArray<string>): ReadonlyArray<Axis> => {
      const done = axes.get(id);
      // A circle is complained about when the steps are put in order.
      if (done !== undefined || above.includes(id) || !Object.hasOwn(spec.steps, id)) return done ?? [];
      const { matrix = {}, foreach, with: settings } = spec.steps[id];
      const own = [
        ...Object.entries(matrix).map(([name, list]) => ({ name, list, path: ["steps", id, "matrix", name] })),
        ...(foreach === undefined ? [] : [{ name: "item", list: foreach, path: ["steps", id, "foreach"] }]),
      ].map(({ name, list, path }): Axis => ({ key: `${id}.${name}`, name, values: labelled(listOf(list, path)) }));
      const inherited = [...new Set(referred(settings))].flatMap((to) => axesOf(to, [...above, id]));
      const all = [...new Map([...inherited, ...own].map((axis) => [axis.key, axis])).values()];
      axes.set(id, all);
      return all;
    };

    const sourcesAt = (place: Place): Map<string, Source> => {
      const sources = new Map<string, Source>();
      for (const [id, group] of groups) {
        const source = group.members.get(placeKey(group.axes, place))?.source();
        if (source !== undefined) sources.set(id, source);
      }
      return sources;
    };

    const wiringAt = (place: Place): () => Wiring => {
      let made: Wiring | undefined;
      return () => {
        if (made !== undefined) return made;
        const wired = wiring({
          used: sourcesAt(place),
          ids,
          complain,
          given: (name) => {
            const value = scope.params[name];
            if (!isGiven(value) || typeof value.value !== "string") return undefined;
            const { value: text, path } = value;
            const template = parseTemplate(text);
            return template._tag === "whole" && template.reference._tag === "output"
              ? () => value.follow(text, path)
              : undefined;
          },
        });
        // What is asked before every step is known may still be missing later ones.
        if (complete) made = wired;
        return wired;
      };
    };

    const stepOf = Effect.fnUntraced(function* (use: string): Effect.fn.Return<AnyStep<R> | Complaint> {
      if (!isCode(use)) {
        return known.get(use) ??
          { code: "unknown-step", message: `there is no step "${use}"`, ...suggestion(use, known.keys()) };
      }
      const reference = parseCode(use);
      if ("message" in reference) return reference;
      if (options.allowCode) return yield* loadOwnStep<R>(reference, scope.folder);
      return {
        code: "code-not-allowed",
        message: `"${use}" is a step in a file of your own, and this run may not execute its code`,
        expected: suggestion(use, known.keys()).expected,
        hint: "a pipeline file must not run code unasked; if you have read that file and trust it, add --allow-code",
      };
    });

    let count = 0;
    for (const [local, use] of Object.entries(spec.steps)) {
      const path = ["steps", local];
      const own = axesOf(local, []);
      const group: Group<R> = { axes: own, members: new Map(), instances: [] };
      groups.set(local, group);
      const size = own.reduce((product, { values }) => product * values.length, 1);
      count += size;
      if (count > MOST_INSTANCES) {
        complain(path, "key", {
          code: "sweep-size",
          message: `the sweeps of this pipeline come to ${count} steps and more`,
          expected: `at most ${MOST_INSTANCES}`,
        });
        break;
      }
      const found = isPipeline(use.use) ? undefined : yield* stepOf(use.use);
      if (found !== undefined && "message" in found) {
        complain([...path, "use"], "value", found);
        continue;
      }
      for (const place of placesOf(own)) {
        const label = own.map(({ key, values }) => `-${values[place.get(key) ?? 0].label}`).join("");
        const id = `${prefix}${local}${label}`;
        const swept = Object.fromEntries(own.map(({ key, name, values }) => [name, values[place.get(key) ?? 0].value]));
        const wired = wiringAt(place);
        const follow: Wiring["follow"] = (text, at) => wired().follow(text, at);
        const substitute = substitution({ ...scope, swept, follow });
        const runs = holds(use.if, [...path, "if"], {
          complain,
          lookUp: (text, at) => {
            const value = substitute(text, at);
            return value === BROKEN ? undefined : value;
          },
        });
        const why = leftOut ?? (runs === false ? `if: ${String(use.if)}` : undefined);
        if (found !== undefined) {
          const { outputs, name } = found;
          const wires = Object.entries(outputs).map(([output, port]) => [output, { step: id, output, port }]);
          const source = { name, outputs: Object.fromEntries(wires) };
          group.members.set(placeKey(own, place), { place, label, source: () => source });
          group.instances.push({
            id,
            local,
            step: found,
            use,
            scope,
            substitute,
            wiring: wired,
            ...(why === undefined ? {} : { leftOut: why }),
          });
          continue;
        }
        const child = yield* inner(use, path, `${id}-`, { substitute, follow, ...(why === undefined ? {} : { why }) });
        if (child === undefined) break;
        group.instances.push(...child.instances);
        group.members.set(placeKey(own, place), {
          place,
          label,
          source: () => {
            const wires = Object.entries(child.outputs()).flatMap(([name, { text, wiring }]) => {
              const wire = wiring.follow(text, ["outputs", name]);
              return wire === undefined ? [] : [[name, wire] as const];
            });
            return { name: use.use, outputs: Object.fromEntries(wires) };
          },
        });
      }
    }
    complete = true;

    const outputs: Expanded<R>["outputs"] = () =>
      Object.fromEntries(
        Object.entries(spec.outputs).flatMap(([name, text]) => {
          const swept = groups.get(referred(text)[0] ?? "");
          return swept === undefined || swept.axes.length === 0
            ? [[name, { text, wiring: wiringAt(new Map())() }]]
            : [...swept.members.values()].map(({ place, label }) => [
              `${name}${label}`,
              { text, wiring: wiringAt(place)() },
            ]);
        }),
      );
    return { instances: [...groups.values()].flatMap(({ instances }) => instances), outputs };

    /** The steps of a pipeline file that a step uses. */
    function inner(
      use: typeof StepUse.Type,
      path: Path,
      childPrefix: string,
      above: Pick<Given, "substitute" | "follow"> & { readonly why?: string },
    ): Effect.Effect<Expanded<R> | undefined> {
      return Effect.gen(function* () {
        const at = [...path, "use"];
        const say = (text: Complaint) => void complain(at, "value", text);
        if (!/^\.\.?\//.test(use.use)) {
          return say({
            code: "nested-path",
            message: `"${use.use}" does not start beside this file`,
            expected: "a path that begins with ./ or ../",
            hint: `for a file beside this one write ./${basename(use.use)}`,
          });
        }
        const file = resolve(scope.folder, use.use);
        if (scope.files.includes(file) || scope.files.length > MOST_NESTED) {
          return say({
            code: "nested-circle",
            message: `${use.use} uses itself, or lies more than ${MOST_NESTED} pipelines deep`,
            expected: "pipelines that end",
          });
        }
        const opened = yield* options.open(file).pipe(
          Effect.catchDefect((defect) =>
            Effect.succeed({ code: "file-unreadable" as const, message: explain(defect) })
          ),
        );
        if (opened === undefined) return undefined;
        if ("message" in opened) return say(opened);
        const given: Record<string, Given> = {};
        for (const [key, value] of Object.entries(use.with)) {
          if (!Object.hasOwn(opened.spec.params, key)) {
            complain([...path, "with", key], "key", {
              code: "unknown-parameter",
              message: `${use.use} has no parameter "${key}"`,
              ...suggestion(key, Object.keys(opened.spec.params)),
            });
            continue;
          }
          const where = [...path, "with", key];
          given[key] = { _tag: "given", value, path: where, folder: scope.folder, ...above };
        }
        const context = {
          folder: dirname(file),
          complain: opened.complain,
          howToSet: (name: string) => `give it where the file is used: with: { ${name}: … }`,
        };
        const set = { ...opened.spec, params: { ...opened.spec.params, ...given } };
        return yield* expand(
          {
            spec: set,
            ...paramsOf(set, opened.spec, context),
            folder: context.folder,
            complain: context.complain,
            prefix: childPrefix,
            files: [...scope.files, file],
          },
          options,
          above.why,
        );
      });
    }
  });
