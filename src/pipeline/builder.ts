/**
 * A pipeline in TypeScript, checked by the compiler: an input takes an output of its own type alone, and settings are
 * those of the step. What comes out is the same data that a file decodes to, for `loadSpec` or to be written as a file.
 *
 *     const p = pipeline("Where it acts");
 *     const steps = p.param("steps", { type: "integer", default: 20, description: "sampling steps" });
 *     const { text } = p.step("text", encode, { model: "model", trigger: "\u200b ", prompts: "prompts.txt" });
 *     const { capture } = p.step("pairs", denoise, { text, steps });
 *     const { field } = p.step("where", locate, { text, capture });
 *     p.output("mask", p.step("mask", mask, { field, edge: sweep("edge", [4, 12]) }).mask);
 *     const linked = yield* loadSpec(p.spec, { steps: builtinSteps });
 */
import type { Port, Ports, PortValue } from "../steps/port.ts";
import type { SettingsSchema, Step } from "../steps/step.ts";
import { Condition, Given, type Setting, type Sweep, written } from "./given.ts";
import type { ParamType } from "./params.ts";
import { showReference } from "./reference.ts";
import { FORMAT, type Spec } from "./spec.ts";

/** An output of a step, to be given to inputs of type `A`. */
export class Output<A> {
  readonly step: string;
  readonly output: string;
  readonly port: Port<A>;
  /** For the compiler alone: an output of a narrower type (a field that would do as a mask) is another kind. */
  declare readonly exactly?: (value: A) => A;
  constructor(step: string, output: string, port: Port<A>) {
    [this.step, this.output, this.port] = [step, output, port];
  }
  /** As a file writes it: `${{ steps.ID.OUTPUT }}`. */
  get reference(): string {
    return showReference({ _tag: "output", step: this.step, output: this.output });
  }
}

/** What stands under `with:`: an output for each input, and the settings as a user writes them. */
export type With<S extends SettingsSchema, I extends Ports> =
  & { readonly [K in keyof I as I[K] extends { readonly optional: true } ? never : K]: Output<PortValue<I[K]>> }
  & { readonly [K in keyof I as I[K] extends { readonly optional: true } ? K : never]?: Output<PortValue<I[K]>> }
  & { readonly [K in keyof S["Encoded"]]: Setting<S["Encoded"][K]> };

/** The outputs of a step, by name. */
export type OutputsOf<O extends Ports> = { readonly [K in keyof O]: Output<PortValue<O[K]>> };

/** What a parameter of a type holds. */
interface ParamValues {
  readonly string: string;
  readonly path: string;
  readonly number: number;
  readonly integer: number;
  readonly boolean: boolean;
  readonly array: readonly unknown[];
  readonly object: Readonly<Record<string, unknown>>;
  readonly any: unknown;
}

export interface StepOptions {
  /** Whether the step runs: a boolean, a parameter that is one, or `parameter.is(value)`. */
  readonly if?: boolean | Given<boolean> | Condition;
}

export interface Builder {
  /**
   * A parameter that `--set` changes; without a default it must be given. What it holds follows from its type, or is
   * said where that is wider than what it is for: `param<"auto" | "text">("strategy", { type: "string" })`.
   * @throws Error where the name is taken
   */
  param<A extends ParamValues[T], T extends ParamType = ParamType>(
    name: string,
    definition: { readonly type: T; readonly default?: NoInfer<A>; readonly description?: string },
  ): Given<A>;
  /** Adds a step and gives its outputs. @throws Error where the id is taken, or one name is swept over two lists */
  step<Name extends string, S extends SettingsSchema, I extends Ports, O extends Ports, E, R>(
    id: string,
    step: Step<Name, S, I, O, E, R>,
    given: With<S, I>,
    options?: StepOptions,
  ): OutputsOf<O>;
  /**
   * Puts another pipeline file in the place of a step. `given` are its params, values or outputs; `outputs` says the
   * kinds of those outputs that are used, which are checked when the pipeline is linked.
   */
  use<const O extends Ports>(
    id: string,
    file: string,
    given: Readonly<Record<string, unknown>>,
    outputs: O,
    options?: StepOptions,
  ): OutputsOf<O>;
  /** Names what the pipeline hands back. */
  output(name: string, output: Pick<Output<unknown>, "reference">): void;
  /** The pipeline as data, as far as it has been built. */
  readonly spec: Spec;
}

/** `matrix:` and `foreach:` of a step, from the sweeps among its settings. */
const sweepsOf = (id: string, sweeps: readonly Sweep[]): Pick<Spec["steps"][string], "matrix" | "foreach"> => {
  const lists = new Map<string | undefined, Sweep["values"]>();
  for (const { name, values } of sweeps) {
    const known = lists.get(name);
    if (known !== undefined && JSON.stringify(known) !== JSON.stringify(values)) {
      throw new Error(`step "${id}" is swept over two lists${name === undefined ? "" : ` called "${name}"`}`);
    }
    lists.set(name, values);
  }
  const foreach = lists.get(undefined);
  const named = [...lists].flatMap(([name, values]) => name === undefined ? [] : [[name, values] as const]);
  return {
    ...(foreach === undefined ? {} : { foreach }),
    ...(named.length === 0 ? {} : { matrix: Object.fromEntries(named) }),
  };
};

const conditionOf = ({ if: condition }: StepOptions): Pick<Spec["steps"][string], "if"> =>
  condition === undefined ? {} : {
    if: condition instanceof Given ? condition.reference : condition instanceof Condition ? condition.text : condition,
  };

/** Begins a pipeline. */
export const pipeline = (name: string, description?: string): Builder => {
  const params: Record<string, unknown> = {};
  const steps: Record<string, Spec["steps"][string]> = {};
  const outputs: Record<string, string> = {};

  const add = (id: string, use: string, given: object, options: StepOptions): void => {
    if (Object.hasOwn(steps, id)) throw new Error(`this pipeline has a step "${id}" already`);
    const sweeps: Sweep[] = [];
    const values = Object.entries(given).filter(([, value]) => value !== undefined).map(([key, value]) => [
      key,
      value instanceof Output ? value.reference : written(value, sweeps),
    ]);
    steps[id] = { use, ...conditionOf(options), ...sweepsOf(id, sweeps), with: Object.fromEntries(values) };
  };
  const outputsOf = <O extends Ports>(id: string, ports: O): OutputsOf<O> =>
    // One for each port, by its name: what the mapped type says.
    Object.fromEntries(Object.entries(ports).map(([name, port]) => [name, new Output(id, name, port)])) as OutputsOf<O>;

  return {
    param: (name, definition) => {
      if (Object.hasOwn(params, name)) throw new Error(`this pipeline has a param "${name}" already`);
      params[name] = definition;
      return new Given(showReference({ _tag: "param", name }));
    },
    step: (id, step, given, options = {}) => {
      add(id, step.name, given, options);
      return outputsOf(id, step.outputs);
    },
    use: (id, file, given, ports, options = {}) => {
      add(id, file, given, options);
      return outputsOf(id, ports);
    },
    output: (name, output) => void (outputs[name] = output.reference),
    get spec() {
      return structuredClone<Spec>({
        sau: FORMAT,
        name,
        ...(description === undefined ? {} : { description }),
        params,
        steps,
        outputs,
      });
    },
  };
};
