/**
 * A pipeline in TypeScript, checked by the compiler: an input takes an output of its own type alone, and settings are
 * those of the step. What comes out is the same data that a file decodes to, for `loadSpec` or to be written as a file.
 *
 *     const p = pipeline("Where it acts");
 *     const { text } = p.step("text", encode, { model: "model", trigger: "\u200b ", prompts: "prompts.txt" });
 *     const { capture } = p.step("pairs", denoise, { text, steps: 20 });
 *     p.output("field", p.step("where", locate, { text, capture }).field);
 *     const linked = yield* loadSpec(p.spec, { steps: builtinSteps });
 */
import type { Port, Ports, PortValue } from "../steps/port.ts";
import type { SettingsSchema, Step } from "../steps/step.ts";
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
  & S["Encoded"];

/** The outputs of a step, by name. */
export type OutputsOf<O extends Ports> = { readonly [K in keyof O]: Output<PortValue<O[K]>> };

export interface Builder {
  /** Adds a step and gives its outputs. @throws Error where the id is taken */
  step<Name extends string, S extends SettingsSchema, I extends Ports, O extends Ports, E, R>(
    id: string,
    step: Step<Name, S, I, O, E, R>,
    given: With<S, I>,
  ): OutputsOf<O>;
  /** Names what the pipeline hands back. */
  output(name: string, output: Pick<Output<unknown>, "reference">): void;
  /** The pipeline as data, as far as it has been built. */
  readonly spec: Spec;
}

/** Begins a pipeline. */
export const pipeline = (name: string, description?: string): Builder => {
  const steps: Record<string, Spec["steps"][string]> = {};
  const outputs: Record<string, string> = {};
  return {
    step: (id, step, given) => {
      if (Object.hasOwn(steps, id)) throw new Error(`this pipeline has a step "${id}" already`);
      const values = Object.entries(given).filter(([, value]) => value !== undefined);
      steps[id] = {
        use: step.name,
        with: Object.fromEntries(
          values.map(([key, value]) => [key, value instanceof Output ? value.reference : value]),
        ),
      };
      const made = Object.entries(step.outputs).map(([name, port]) => [name, new Output(id, name, port)]);
      // One for each port, by its name: what the mapped type says.
      return Object.fromEntries(made) as OutputsOf<typeof step.outputs>;
    },
    output: (name, output) => void (outputs[name] = output.reference),
    get spec() {
      return structuredClone<Spec>({
        sau: FORMAT,
        name,
        ...(description === undefined ? {} : { description }),
        params: {},
        steps,
        outputs,
      });
    },
  };
};
