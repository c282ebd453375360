/** Inputs to outputs: follows references between the steps of a pipeline and checks that the kinds fit. */
import type { Port } from "../steps/port.ts";
import { isSet } from "./overrides.ts";
import { parseTemplate, showReference } from "./reference.ts";
import { type Path, showPath } from "./source.ts";
import { type Complain, showValue } from "./spec.ts";
import { listNames, suggestion } from "./suggest.ts";

/** Where an input or an output of the pipeline comes from. */
export interface Wire {
  readonly step: string;
  readonly output: string;
  readonly port: Port<unknown>;
}

export interface Wiring {
  /** Outputs of a kind among the steps of this pipeline, as references. */
  readonly outputsOf: (kind: string) => string[];
  /** Follows a reference to an output; undefined (with a complaint) when it leads nowhere, or when it is none. */
  readonly follow: (text: string, path: Path) => Wire | undefined;
  /** An input's value: it must be a reference to an output of the same kind. */
  readonly linkInput: (value: unknown, port: Port<unknown>, path: Path) => Wire | undefined;
}

/** What a step hands on, as the references of a file see it: a step's outputs, or those of a pipeline used as one. */
export interface Source {
  /** Name of the step, for error texts. */
  readonly name: string;
  readonly outputs: Readonly<Record<string, Wire>>;
}

/** `used` are the steps that exist, by id; `ids` those that the file names; `given` what a parameter refers to. */
export const wiring = (
  { used, ids, complain, given }: {
    readonly used: ReadonlyMap<string, Source>;
    readonly ids: ReadonlyArray<string>;
    readonly complain: Complain;
    /** Follows a parameter that the pipeline which uses this one set to an output there; undefined for any other. */
    readonly given: (param: string) => (() => Wire | undefined) | undefined;
  },
): Wiring => {
  const outputsOf = (kind: string): string[] =>
    [...used].flatMap(([id, step]) =>
      Object.entries(step.outputs).filter(([, { port }]) => port.kind === kind)
        .map(([output]) => showReference({ _tag: "output", step: id, output }))
    );

  const follow = (text: string, path: Path): Wire | undefined => {
    const template = parseTemplate(text);
    if (template._tag !== "whole" || template.reference._tag !== "output") return undefined;
    const { step: id, output } = template.reference;
    const step = used.get(id);
    if (step === undefined) {
      if (!ids.includes(id)) {
        complain(path, "value", {
          code: "unknown-id",
          message: `there is no step "${id}" here`,
          ...suggestion(id, ids),
        });
      }
      return undefined;
    }
    if (!Object.hasOwn(step.outputs, output)) {
      complain(path, "value", {
        code: "unknown-output",
        message: `step "${id}" (${step.name}) has no output "${output}"`,
        ...suggestion(output, Object.keys(step.outputs)),
      });
      return undefined;
    }
    return step.outputs[output];
  };

  const linkInput = (value: unknown, port: Port<unknown>, path: Path): Wire | undefined => {
    const want = outputsOf(port.kind);
    const how = want.length === 0 ? `a reference to a ${port.kind}; no step here gives one` : listNames(want);
    const template = typeof value === "string" ? parseTemplate(value) : undefined;
    const passed = template?._tag === "whole" && template.reference._tag === "param"
      ? given(template.reference.name)
      : undefined;
    if (passed !== undefined && typeof value === "string") return fitting(passed(), value);
    if (typeof value !== "string" || template?._tag !== "whole" || template.reference._tag !== "output") {
      const shown = isSet(value) ? value.raw : value;
      complain(path, "value", {
        code: "input-value",
        message: `${showPath(path)} is ${showValue(shown)}, but it is an input: it takes another step's output`,
        expected: how,
      });
      return undefined;
    }
    return fitting(follow(value, path), value);

    function fitting(wire: Wire | undefined, text: string): Wire | undefined {
      if (wire === undefined || wire.port.kind === port.kind) return wire;
      complain(path, "value", {
        code: "wrong-kind",
        message: `${showPath(path)} needs a ${port.kind}, but ${text.trim()} is a ${wire.port.kind}`,
        expected: how,
      });
      return undefined;
    }
  };

  return { outputsOf, follow, linkInput };
};
