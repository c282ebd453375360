/**
 * Spec + known steps → a pipeline that can run: every reference followed, every setting decoded, the steps in the
 * order in which they run. Finds all mistakes before it gives up.
 */
import { Effect, Result, Schema } from "effect";
import { resolve } from "node:path";
import { type Problem, SpecError } from "../steps/errors.ts";
import { PathBase } from "../steps/path_string.ts";
import type { AnyStep, SettingsSchema } from "../steps/step.ts";
import { expand, type ExpandOptions, type Scope } from "./expand.ts";
import { paramsOf } from "./file_params.ts";
import { sortSteps } from "./order.ts";
import { isSet, type Override, parseOverride, setAt, type SetValue } from "./overrides.ts";
import { NAME, parseTemplate, type Reference, showReference } from "./reference.ts";
import { type Path, showPath } from "./source.ts";
import { type Complain, type Complaint, problemsOf, showValue, type Spec } from "./spec.ts";
import { BROKEN, settled } from "./substitute.ts";
import { nearest, suggestion } from "./suggest.ts";
import type { Wire } from "./wiring.ts";

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
  /** Steps that do not run, and why, by id. */
  readonly leftOut?: Readonly<Record<string, string>>;
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
  /** Opens a pipeline file that this one uses; its mistakes go on the list. */
  readonly open: (file: string, problems: Problem[]) => ReturnType<ExpandOptions<R>["open"]>;
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

    const legible = (kind: string, names: Iterable<string>, base: Path) => {
      for (const name of names) {
        if (!NAME.test(name)) {
          complain([...base, name], "key", {
            code: "name",
            message: `"${name}" cannot be the name of ${kind}`,
            expected: "letters, digits, _ and -, starting with a letter",
          });
        }
      }
    };
    legible("a parameter", Object.keys(spec.params), ["params"]);
    legible("a step", Object.keys(spec.steps), ["steps"]);
    legible("an output", Object.keys(spec.outputs), ["outputs"]);
    if (Object.keys(spec.steps).length === 0) {
      complain(["steps"], "value", {
        code: "no-steps",
        message: "this pipeline has no steps",
        expected: "at least one step",
      });
    }

    for (const [name, value] of Object.entries(spec.params)) {
      if (typeof value === "string" && value.includes("${{")) {
        complain(["params", name], "value", {
          code: "parameter-reference",
          message: `parameter "${name}" refers to something else`,
          expected: "a plain value",
        });
      }
    }

    const scope: Scope = {
      spec,
      ...paramsOf(spec, original, {
        folder: options.folder,
        complain,
        howToSet: (name) => `--set ${name}=VALUE`,
      }),
      folder: options.folder,
      complain,
      prefix: "",
      files: [resolve(options.file)],
    };
    const { instances, outputs: named } = yield* expand(scope, {
      steps: options.steps,
      allowCode: options.allowCode ?? false,
      open: (file) => options.open(file, problems),
    });

    const decodeSettings = (schema: SettingsSchema, value: Record<string, unknown>, folder: string) =>
      Schema.decodeUnknownEffect(schema)(value, { errors: "all", onExcessProperty: "error" }).pipe(
        Effect.provideService(PathBase, folder),
        Effect.result,
      );

    const linked = new Map<string, LinkedStep<R>>();
    const leftOut = new Map<string, string>();
    const edges = new Map<string, Array<{ readonly to: string; readonly path: Path; readonly complain: Complain }>>();
    const taken = new Set<string>();
    for (const instance of instances) {
      const { id, local, step, use, substitute, scope: { spec, folder, complain } } = instance;
      const { outputsOf, linkInput } = instance.wiring();
      if (taken.has(id)) {
        complain(["steps", local], "key", {
          code: "same-name",
          expected: "a name for each step, also of those that a sweep or another file makes",
          message: `two steps come to the name "${id}"`,
          hint: "rename one of them",
        });
        continue;
      }
      taken.add(id);
      if (instance.leftOut !== undefined) leftOut.set(id, instance.leftOut);
      const base = ["steps", local, "with"];
      const given = Object.entries(use.with);
      const inputs: Record<string, Wire> = {};
      const settings: Record<string, unknown> = {};
      const broken = new Set<PropertyKey>();
      const wires: Array<{ to: string; path: Path; complain: Complain }> = [];
      for (const [key, value] of given) {
        const path = [...base, key];
        if (Object.hasOwn(step.inputs, key)) {
          if (step.inputs[key].optional && isNothing(value, instance.scope)) continue;
          const wire = linkInput(value, step.inputs[key], path);
          if (wire !== undefined) {
            inputs[key] = wire;
            wires.push({ to: wire.step, path, complain });
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
            code: "unknown-setting",
            message: `step "${step.name}" has no input or setting "${key}"`,
            ...suggestion(key, names),
          });
        }
      }
      edges.set(id, wires);
      for (const [name, port] of Object.entries(step.inputs)) {
        if (port.optional || Object.hasOwn(use.with, name) || broken.has(name)) continue;
        const want = outputsOf(port.kind);
        complain(["steps", local], "key", {
          code: "missing-input",
          message: `step "${local}" (${step.name}) lacks its input "${name}" (${port.description})`,
          expected: `a ${port.kind}`,
          ...(want.length > 0 ? { hint: `${name}: "${want[0]}"` } : {}),
        });
      }
      // A condition may be there just because its settings would not do.
      if (instance.leftOut !== undefined) {
        linked.set(id, { id, step, settings: {}, encoded: {}, inputs });
        continue;
      }
      const decoded = yield* decodeSettings(step.settings, settings, folder);
      if (Result.isFailure(decoded)) {
        const found = problemsOf(decoded.failure.issue, {
          schema: step.settings,
          value: settings,
          base,
          problem: (path, which, text) => {
            const from = use.with[String(path[3])];
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
    for (const [name, { text, wiring }] of Object.entries(named())) {
      const path = [
        "outputs",
        Object.hasOwn(spec.outputs, name) ? name : nearest(name, Object.keys(spec.outputs)) ?? name,
      ];
      const wire = wiring.follow(text, path);
      if (wire !== undefined) outputs[name] = wire;
      else if (parseTemplate(text)._tag !== "whole" || !text.includes("steps.")) {
        complain(path, "value", {
          code: "output-reference",
          message: `output "${name}" is ${showValue(text)}`,
          expected: "a reference ${{ steps.ID.OUTPUT }}",
        });
      }
    }

    const { order, cycles } = sortSteps([...taken], edges);
    for (const cycle of cycles) {
      const complainThere = [...edges.values()].flat().find(({ path }) => path === cycle.path)?.complain ?? complain;
      complainThere(cycle.path, "value", {
        code: "circle",
        message: `these steps wait for one another: ${cycle.steps.join(" → ")}`,
        expected: "references that lead back to a step which needs none",
      });
    }

    if (problems.length > 0) return yield* new SpecError({ problems: inOrder(problems) });
    const steps = order.flatMap((id) => {
      const step = linked.get(id);
      const ready = step === undefined || leftOut.has(id) ? undefined : withoutAbsent(step, leftOut);
      return ready === undefined ? [] : [ready];
    });
    for (const [name, wire] of Object.entries(outputs)) if (leftOut.has(wire.step)) delete outputs[name];
    if (steps.length === 0) {
      const text: Complaint = {
        code: "all-left-out",
        message: "every step of this pipeline is left out by its conditions",
        expected: "a step that runs",
      };
      return yield* new SpecError({ problems: [options.problem(["steps"], "key", text)] });
    }
    return {
      name: spec.name,
      ...(spec.description === undefined ? {} : { description: spec.description }),
      file: options.file,
      text: options.text,
      params: Object.fromEntries(
        Object.entries(scope.params).map(([k, v]) => [k, settled(v, scope.original[k])]),
      ),
      overrides: options.overrides,
      steps,
      leftOut: Object.fromEntries(leftOut),
      outputs: { ...defaultOutputs(steps, Object.values(outputs).map(({ port }) => port.kind)), ...outputs },
    };
  });

/**
 * A step without the optional inputs that come from steps which are left out; undefined, and on the list of those, where
 * it cannot run without. Called in the order of the steps, so that what follows from one left out is left out as well.
 */
const withoutAbsent = <R>(linked: LinkedStep<R>, leftOut: Map<string, string>): LinkedStep<R> | undefined => {
  const absent = Object.entries(linked.inputs).filter(([, wire]) => leftOut.has(wire.step));
  const needed = absent.find(([name]) => !linked.step.inputs[name].optional);
  if (needed !== undefined) {
    leftOut.set(linked.id, `step ${needed[1].step} is left out`);
    return undefined;
  }
  const inputs = Object.entries(linked.inputs).filter((entry) => !absent.some(([name]) => name === entry[0]));
  return absent.length === 0 ? linked : { ...linked, inputs: Object.fromEntries(inputs) };
};

/** Null, or a parameter that is null: an optional input that is left out. */
const isNothing = (value: unknown, { params, original }: Scope): boolean => {
  if (value === null) return true;
  const template = typeof value === "string" ? parseTemplate(value) : undefined;
  if (template?._tag !== "whole" || template.reference._tag !== "param") return false;
  const { name } = template.reference;
  return Object.hasOwn(params, name) && settled(params[name], original[name]) === null;
};

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

/** In the order of the file; what every step of a sweep gets wrong is said once. */
const inOrder = (problems: ReadonlyArray<Problem>): Problem[] =>
  [...new Map(problems.map((p) => [[p.file, p.line, p.column, p.message].join("\n"), p])).values()].sort((a, b) =>
    a.line - b.line || a.column - b.column
  );
