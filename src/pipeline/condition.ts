/** `if:` of a step: true, false, a reference to one of them, or a comparison `${{ params.mode }} == full`. */
import { parse } from "yaml";
import { stableJson } from "./hash.ts";
import { parseTemplate } from "./reference.ts";
import type { Path } from "./source.ts";
import { type Complain, showValue } from "./spec.ts";

const COMPARISON = /^(\$\{\{[^}]*\}\})\s*(==|!=)\s*(.+)$/s;

const scalar = (text: string): unknown => {
  try {
    return parse(text, { maxAliasCount: 0, logLevel: "silent" });
  } catch {
    return text;
  }
};

/** Whether a step is to run; undefined (with a complaint) where that cannot be told. */
export const holds = (
  condition: unknown,
  path: Path,
  { lookUp, complain }: {
    /** The value of a whole reference; undefined when it has complained. */
    readonly lookUp: (text: string, path: Path) => unknown;
    readonly complain: Complain;
  },
): boolean | undefined => {
  if (condition === undefined) return true;
  if (typeof condition === "boolean") return condition;
  const text = String(condition).trim();
  const compared = COMPARISON.exec(text);
  const reference = compared === null ? text : compared[1];
  const template = parseTemplate(reference);
  if (template._tag !== "whole" || template.reference._tag === "output") {
    complain(path, "value", {
      code: "condition",
      message: `this condition is ${showValue(condition)}`,
      expected: "true, false, ${{ params.NAME }}, or ${{ params.NAME }} == VALUE (or !=)",
      ...(template._tag === "whole"
        ? { hint: "what a step gives is known too late to decide whether another runs" }
        : {}),
    });
    return undefined;
  }
  const value = lookUp(reference, path);
  if (value === undefined) return undefined;
  if (compared !== null) {
    const same = stableJson(value) === stableJson(scalar(compared[3]));
    return compared[2] === "==" ? same : !same;
  }
  if (typeof value === "boolean") return value;
  complain(path, "value", {
    code: "condition",
    message: `this condition is ${showValue(value)}`,
    expected: "true or false",
    hint: `compare it: ${reference} == ${showValue(value)}`,
  });
  return undefined;
};
