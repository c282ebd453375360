/**
 * Spec + known steps → a pipeline that can run: every reference followed, every setting decoded, the steps in the
 * order in which they run. Finds all mistakes before it gives up.
 */
import { Effect, Result, Schema } from "effect";
import { type Problem, SpecError } from "../steps/errors.ts";
import { PathBase } from "../steps/path_string.ts";
import type { AnyStep, SettingsSchema } from "../steps/step.ts";
import { sortSteps } from "./order.ts";
import { isSet, type Override, parseOverride, placeSet, setAt, type SetValue } from "./overrides.ts";
import { isCode, loadOwnStep, parseCode } from "./own_step.ts";
import { NAME, parseTemplate, type Reference, showReference } from "./reference.ts";
import { type Path, showPath } from "./source.ts";
import { type Complaint, problemsOf, showValue, type Spec } from "./spec.ts";
import { BROKEN, substitution } from "./substitute.ts";
import { listNames, nearest, suggestion } from "./suggest.ts";
import { type Wire, wiring } from "./wiring.ts";

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
  readonly problem: (path: Path, which: "key" | "value", text: Complaint) => Problem;
  /** Run the code that `use: ./steps/my-step.ts#myStep` names. Off unless the user says so. */
  readonly allowCode?: boolean;
}

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

    const complain = (path: Path, which: "key" | "value", text: Complaint) => {
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
    const ownStep = (use: string): Effect.Effect<AnyStep<R> | Complaint> => {
      const reference = parseCode(use);
      if ("message" in reference) return Effect.succeed(reference);
      if (options.allowCode === true) return loadOwnStep<R>(reference, options.folder);
      return Effect.succeed({
        message: `"${use}" is a step in a file of your own, and this run may not execute its code`,
        expected: listNames(known.keys()),
        hint: "a pipeline file must not run code unasked; if you have read that file and trust it, add --allow-code",
      });
    };
    for (const [id, { use }] of Object.entries(spec.steps)) {
      const path = ["steps", id, "use"];
      const step = isCode(use) ? yield* ownStep(use) : known.get(use);
      if (step === undefined) {
        complain(path, "value", { message: `there is no step "${use}"`, ...suggestion(use, known.keys()) });
      } else if ("message" in step) complain(path, "value", step);
      else used.set(id, step);
    }

    for (const [name, value] of Object.entries(spec.params)) {
      if (typeof value === "string" && value.includes("${{")) {
        complain(["params", name], "value", {
          message: `parameter "${name}" refers to something else`,
          expected: "a plain value",
        });
      }
    }

    const { outputsOf, follow, linkInput } = wiring({ used, ids: Object.keys(spec.steps), complain });
    const substitute = substitution({ params: spec.params, original: original.params, complain, follow });

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
          isSet(v) ? placeSet(v, typeof original.params[k] === "string") : v,
        ]),
      ),
      overrides: options.overrides,
      steps,
      outputs: { ...defaultOutputs(steps, Object.values(outputs).map(({ port }) => port.kind)), ...outputs },
    };
  });

/** Settings need nothing to decode; that they need nothing to encode either is what a plain struct of data means. */
const withoutServices = (schema: SettingsSchema) => schema as SettingsSchema & { readonly EncodingServices: never };

/** Where a wrong value was written, when it was not where it is used. */
const valueComesFrom = (reference: Reference, spec: Spec): string => {
  const value = reference._tag === "param" ? spec.params[reference.name] : undefined;
  return `the value comes from ${isSet(value) ? `--set ${value.argument}` : showReference(reference)}`;
};

/** What the file does not hand back by name: the last verdict always, the last model when no outputs are named. */
const defaultOutputs = <R>(steps: ReadonlyArray<LinkedStep<R>>, named: ReadonlyArray<string>): Record<string, Wire> => {
  const wanted = ["verdict", ...(named.length === 0 ? ["model"] : [])].filter((kind) => !named.includes(kind));
  const outputs: Record<string, Wire> = {};
  for (const { id, step } of steps) {
    for (const [output, port] of Object.entries(step.outputs)) {
      if (wanted.includes(port.kind)) outputs[port.kind] = { step: id, output, port };
    }
  }
  return outputs;
};

const inOrder = (problems: ReadonlyArray<Problem>): Problem[] =>
  [...problems].sort((a, b) => a.line - b.line || a.column - b.column);
