/**
 * Spec + known steps → a pipeline that can run: every reference followed, every setting decoded, the steps in the
 * order in which they run. Finds all mistakes before it gives up.
 */
import { Effect, Result, Schema, type SchemaAST } from "effect";
import { isAbsolute, resolve } from "node:path";
import process from "node:process";
import { type Problem, SpecError } from "../steps/errors.ts";
import { PathBase } from "../steps/path_string.ts";
import type { Port } from "../steps/port.ts";
import type { AnyStep, SettingsSchema } from "../steps/step.ts";
import { acceptsAt, isPathAt } from "./describe.ts";
import { sortSteps } from "./order.ts";
import { type Override, parseOverride, setAt, type SetValue } from "./overrides.ts";
import { NAME, parseTemplate, type Reference, showReference } from "./reference.ts";
import { type Path, showPath } from "./source.ts";
import { problemsOf, showValue, type Spec } from "./spec.ts";
import { listNames, nearest, suggestion } from "./suggest.ts";

/** Where an input or an output of the pipeline comes from. */
export interface Wire {
  readonly step: string;
  readonly output: string;
  readonly port: Port<unknown>;
}

export interface LinkedStep<R> {
  readonly id: string;
  readonly step: AnyStep<R>;
  /** Decoded, as the program takes them. */
  readonly settings: unknown;
  /** The same as JSON, with every default filled in and every path absolute. */
  readonly encoded: unknown;
  readonly inputs: Readonly<Record<string, Wire>>;
}

export interface Pipeline<R> {
  readonly name: string;
  readonly description?: string;
  /** The file it came from, as the user named it; empty for a script. */
  readonly file: string;
  readonly text: string;
  readonly params: Readonly<Record<string, unknown>>;
  readonly overrides: ReadonlyArray<string>;
  /** In the order in which they run. */
  readonly steps: ReadonlyArray<LinkedStep<R>>;
  readonly outputs: Readonly<Record<string, Wire>>;
}

export interface LinkOptions<R> {
  readonly steps: ReadonlyArray<AnyStep<R>>;
  /** Folder that relative paths of the spec start from. */
  readonly folder: string;
  readonly file: string;
  readonly text: string;
  readonly overrides: ReadonlyArray<string>;
  /** Mistakes found before, to be reported with those found here. */
  readonly earlier: ReadonlyArray<Problem>;
  readonly problem: (path: Path, which: "key" | "value", text: Omit<Problem, "file" | "line" | "column">) => Problem;
}

const isSet = (value: unknown): value is SetValue =>
  typeof value === "object" && value !== null && "_tag" in value && value._tag === "set" && "argument" in value;

/** A broken value: reported already, so whatever depends on it stays silent. */
const BROKEN = Symbol("broken");

const isProblem = (x: Override | Problem): x is Problem => "message" in x;

/** Checks and links a spec. @throws (fails with) SpecError listing every mistake. */
export const link = <R>(original: Spec, options: LinkOptions<R>): Effect.Effect<Pipeline<R>, SpecError> =>
  Effect.gen(function* () {
    const problems: Problem[] = [...options.earlier];
    const overridden = new Map<string, SetValue>();
    let spec = original;
    for (const argument of options.overrides) {
      const override = parseOverride(argument, original);
      if (isProblem(override)) problems.push(override);
      else {
        overridden.set(showPath(override.path), override.value);
        spec = setAt(spec, override.path, override.value) as Spec;
      }
    }

    const complain = (path: Path, which: "key" | "value", text: Omit<Problem, "file" | "line" | "column">) => {
      // What came from --set is not in the file: say so instead of pointing at the value that it replaced.
      const set = path.map((_, i) => overridden.get(showPath(path.slice(0, i + 1)))).find((v) => v !== undefined);
      problems.push(
        set ? { file: `--set ${set.argument}`, line: 0, column: 0, ...text } : options.problem(path, which, text),
      );
    };

    const named = (kind: string, names: Iterable<string>, base: Path) => {
      for (const name of names) {
        if (!NAME.test(name)) {
          complain([...base, name], "key", {
            message: `"${name}" cannot be the name of ${kind}`,
            expected: "letters, digits, _ and -, starting with a letter",
          });
        }
      }
    };
    named("a parameter", Object.keys(spec.params), ["params"]);
    named("a step", Object.keys(spec.steps), ["steps"]);
    named("an output", Object.keys(spec.outputs), ["outputs"]);
    if (Object.keys(spec.steps).length === 0) {
      complain(["steps"], "value", { message: "this pipeline has no steps", expected: "at least one step" });
    }

    const known = new Map(options.steps.map((step) => [step.name, step]));
    const used = new Map<string, AnyStep<R>>();
    for (const [id, { use }] of Object.entries(spec.steps)) {
      const step = known.get(use);
      if (step !== undefined) used.set(id, step);
      else if (/[#/\\]|\.[jt]s$/.test(use)) {
        complain(["steps", id, "use"], "value", {
          message: `"${use}" is a step in a file of your own, and this version of sau runs none`,
          expected: listNames(known.keys()),
          hint: "a pipeline file must not run code unasked; call the step from a script instead (step.run)",
        });
      } else {
        complain(["steps", id, "use"], "value", {
          message: `there is no step "${use}"`,
          ...suggestion(use, known.keys()),
        });
      }
    }

    for (const [name, value] of Object.entries(spec.params)) {
      if (typeof value === "string" && value.includes("${{")) {
        complain(["params", name], "value", {
          message: `parameter "${name}" refers to something else`,
          expected: "a plain value",
        });
      }
    }

    /** Outputs of a kind among the steps of this pipeline, as references. */
    const outputsOf = (kind: string): string[] =>
      [...used].flatMap(([id, step]) =>
        Object.entries(step.outputs).filter(([, port]) => port.kind === kind)
          .map(([output]) => showReference({ _tag: "output", step: id, output }))
      );

    /** Follows a reference to an output, or says why it leads nowhere. */
    const follow = (text: string, path: Path): Wire | undefined => {
      const template = parseTemplate(text);
      if (template._tag !== "whole" || template.reference._tag !== "output") return undefined;
      const { step: id, output } = template.reference;
      const step = used.get(id);
      if (step === undefined) {
        if (!Object.hasOwn(spec.steps, id)) {
          complain(path, "value", {
            message: `there is no step "${id}" here`,
            ...suggestion(id, Object.keys(spec.steps)),
          });
        }
        return undefined;
      }
      if (!Object.hasOwn(step.outputs, output)) {
        complain(path, "value", {
          message: `step "${id}" (${step.name}) has no output "${output}"`,
          ...suggestion(output, Object.keys(step.outputs)),
        });
        return undefined;
      }
      return { step: id, output, port: step.outputs[output] };
    };

    /** An input's value: it must be a reference to an output of the same kind. */
    const linkInput = (value: unknown, port: Port<unknown>, path: Path): Wire | undefined => {
      const want = outputsOf(port.kind);
      const how = want.length === 0 ? `a reference to a ${port.kind}; no step here gives one` : listNames(want);
      const template = typeof value === "string" ? parseTemplate(value) : undefined;
      if (typeof value !== "string" || template?._tag !== "whole" || template.reference._tag !== "output") {
        const shown = isSet(value) ? value.raw : value;
        complain(path, "value", {
          message: `${showPath(path)} is ${showValue(shown)}, but it is an input: it takes another step's output`,
          expected: how,
        });
        return undefined;
      }
      const wire = follow(value, path);
      if (wire === undefined || wire.port.kind === port.kind) return wire;
      complain(path, "value", {
        message: `${showPath(path)} needs a ${port.kind}, but ${value.trim()} is a ${wire.port.kind}`,
        expected: how,
      });
      return undefined;
    };

    const param = (name: string, path: Path): unknown => {
      if (Object.hasOwn(spec.params, name)) return spec.params[name];
      complain(path, "value", {
        message: `there is no parameter "${name}"`,
        ...suggestion(name, Object.keys(spec.params)),
      });
      return BROKEN;
    };

    /** A value of --set for a place that may want a path, a text, or something else. */
    const place = (set: SetValue, wantsText: boolean, ast: SchemaAST.AST | undefined, at: Path): unknown => {
      if (ast !== undefined && isPathAt(ast, at, set.raw)) {
        return isAbsolute(set.raw) ? set.raw : resolve(process.cwd(), set.raw);
      }
      const quoted = /^(".*"|'.*')$/s.test(set.raw);
      const takes = ast === undefined ? { text: true, other: true } : acceptsAt(ast, at, set.raw);
      return !quoted && takes.text && (wantsText || !takes.other) ? set.raw : set.parsed;
    };

    /** Puts parameters in place of their references. `at` is the path within the settings that `ast` describes. */
    const substitute = (value: unknown, path: Path, ast: SchemaAST.AST, at: Path): unknown => {
      if (isSet(value)) return place(value, false, ast, at);
      if (Array.isArray(value)) {
        const items = value.map((v, i) => substitute(v, [...path, i], ast, [...at, i]));
        return items.includes(BROKEN) ? BROKEN : items;
      }
      if (typeof value === "object" && value !== null) {
        const entries = Object.entries(value).map(([k, v]): [string, unknown] => [
          k,
          substitute(v, [...path, k], ast, [...at, k]),
        ]);
        return entries.some(([, v]) => v === BROKEN) ? BROKEN : Object.fromEntries(entries);
      }
      if (typeof value !== "string") return value;
      const template = parseTemplate(value);
      switch (template._tag) {
        case "literal":
          return value;
        case "malformed":
          complain(path, "value", {
            message: `${showPath(path)} holds ${showValue(template.text)}, which is no reference`,
            expected: "${{ params.NAME }} or ${{ steps.ID.OUTPUT }}",
          });
          return BROKEN;
        case "whole": {
          if (template.reference._tag === "output") {
            follow(value, path);
            complain(path, "value", {
              message: `${showPath(path)} is a setting and takes a value, not another step's output`,
              expected: "a value or ${{ params.NAME }}",
            });
            return BROKEN;
          }
          const { name } = template.reference;
          const found = param(name, path);
          return isSet(found) ? place(found, typeof original.params[name] === "string", ast, at) : found;
        }
        case "mixed": {
          const texts = template.parts.map((part) => {
            if (typeof part === "string") return part;
            if (part._tag === "output") {
              complain(path, "value", {
                message: `${showPath(path)} puts a step's output inside a text`,
                expected: "only ${{ params.NAME }} inside a text",
              });
              return BROKEN;
            }
            const found = param(part.name, path);
            if (isSet(found)) return found.raw;
            if (found === BROKEN || typeof found !== "object") return found === BROKEN ? BROKEN : String(found);
            complain(path, "value", {
              message: `parameter "${part.name}" is ${showValue(found)} and cannot stand inside a text`,
              expected: "a text, a number, true or false",
            });
            return BROKEN;
          });
          return texts.includes(BROKEN) ? BROKEN : texts.join("");
        }
      }
    };

    const decodeSettings = (schema: SettingsSchema, value: Record<string, unknown>) =>
      Schema.decodeUnknownEffect(schema)(value, { errors: "all", onExcessProperty: "error" }).pipe(
        Effect.provideService(PathBase, options.folder),
        Effect.result,
      );

    const linked = new Map<string, LinkedStep<R>>();
    const edges = new Map<string, Array<{ readonly to: string; readonly path: Path }>>();
    for (const [id, step] of used) {
      const base = ["steps", id, "with"];
      const given = Object.entries(spec.steps[id].with);
      const inputs: Record<string, Wire> = {};
      const settings: Record<string, unknown> = {};
      const broken = new Set<PropertyKey>();
      const wires: Array<{ to: string; path: Path }> = [];
      for (const [key, value] of given) {
        const path = [...base, key];
        if (Object.hasOwn(step.inputs, key)) {
          const wire = linkInput(value, step.inputs[key], path);
          if (wire !== undefined) {
            inputs[key] = wire;
            wires.push({ to: wire.step, path });
          }
        } else if (Object.hasOwn(step.settings.fields, key)) {
          const ready = substitute(value, path, step.settings.ast, [key]);
          if (ready === BROKEN) broken.add(key);
          else settings[key] = ready;
        } else {
          const names = [...Object.keys(step.inputs), ...Object.keys(step.settings.fields)];
          // The place that is meant is named already: complaining that it is missing too would be noise.
          const near = nearest(key, names);
          if (near !== undefined) broken.add(near);
          complain(path, "key", {
            message: `step "${step.name}" has no input or setting "${key}"`,
            ...suggestion(key, names),
          });
        }
      }
      edges.set(id, wires);
      for (const [name, port] of Object.entries(step.inputs)) {
        if (port.optional || Object.hasOwn(spec.steps[id].with, name) || broken.has(name)) continue;
        const want = outputsOf(port.kind);
        complain(["steps", id], "key", {
          message: `step "${id}" (${step.name}) lacks its input "${name}" (${port.description})`,
          expected: `a ${port.kind}`,
          ...(want.length > 0 ? { hint: `${name}: "${want[0]}"` } : {}),
        });
      }
      const decoded = yield* decodeSettings(step.settings, settings);
      if (Result.isFailure(decoded)) {
        const found = problemsOf(decoded.failure.issue, {
          schema: step.settings,
          value: settings,
          base,
          problem: (path, which, text) => {
            const from = spec.steps[id].with[String(path[3])];
            const template = typeof from === "string" ? parseTemplate(from) : undefined;
            const hint = template?._tag === "whole" ? { hint: valueComesFrom(template.reference, spec) } : {};
            complain(path, which, { ...hint, ...text });
            return problems[problems.length - 1];
          },
        });
        // `complain` has put them on the list; those about broken keys go again.
        for (const problem of found) {
          if ([...broken].some((key) => problem.message.endsWith(` lacks "${String(key)}"`))) {
            problems.splice(problems.indexOf(problem), 1);
          }
        }
        continue;
      }
      const encoded = yield* Effect.orDie(Schema.encodeUnknownEffect(withoutServices(step.settings))(decoded.success));
      linked.set(id, { id, step, settings: decoded.success, encoded, inputs });
    }

    const outputs: Record<string, Wire> = {};
    for (const [name, text] of Object.entries(spec.outputs)) {
      const wire = follow(text, ["outputs", name]);
      if (wire !== undefined) outputs[name] = wire;
      else if (parseTemplate(text)._tag !== "whole" || text.includes("params.")) {
        complain(["outputs", name], "value", {
          message: `output "${name}" is ${showValue(text)}`,
          expected: "a reference ${{ steps.ID.OUTPUT }}",
        });
      }
    }

    const { order, cycles } = sortSteps([...used.keys()], edges);
    for (const cycle of cycles) {
      complain(cycle.path, "value", {
        message: `these steps wait for one another: ${cycle.steps.join(" → ")}`,
        expected: "references that lead back to a step which needs none",
      });
    }

    if (problems.length > 0) return yield* new SpecError({ problems: inOrder(problems) });
    const steps = order.flatMap((id) => linked.get(id) ?? []);
    return {
      name: spec.name,
      ...(spec.description === undefined ? {} : { description: spec.description }),
      file: options.file,
      text: options.text,
      params: Object.fromEntries(
        Object.entries(spec.params).map(([k, v]) => [
          k,
          isSet(v) ? place(v, typeof original.params[k] === "string", undefined, []) : v,
        ]),
      ),
      overrides: options.overrides,
      steps,
      outputs: Object.keys(spec.outputs).length > 0 ? outputs : defaultOutputs(steps),
    };
  });

/** Settings need nothing to decode; that they need nothing to encode either is what a plain struct of data means. */
const withoutServices = (schema: SettingsSchema) => schema as SettingsSchema & { readonly EncodingServices: never };

/** Where a wrong value was written, when it was not where it is used. */
const valueComesFrom = (reference: Reference, spec: Spec): string => {
  const value = reference._tag === "param" ? spec.params[reference.name] : undefined;
  return `the value comes from ${isSet(value) ? `--set ${value.argument}` : showReference(reference)}`;
};

/** Without `outputs:`, the last cured model and the last verdict are what the pipeline hands back. */
const defaultOutputs = <R>(steps: ReadonlyArray<LinkedStep<R>>): Record<string, Wire> => {
  const outputs: Record<string, Wire> = {};
  for (const { id, step } of steps) {
    for (const [output, port] of Object.entries(step.outputs)) {
      if (port.kind === "model" || port.kind === "verdict") outputs[port.kind] = { step: id, output, port };
    }
  }
  return outputs;
};

const inOrder = (problems: ReadonlyArray<Problem>): Problem[] =>
  [...problems].sort((a, b) => a.line - b.line || a.column - b.column);
