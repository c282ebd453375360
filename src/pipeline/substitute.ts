/** Settings with the values of parameters in place of their references. */
import type { SchemaAST } from "effect";
import { isSet, placeSet } from "./overrides.ts";
import { parseTemplate } from "./reference.ts";
import { type Path, showPath } from "./source.ts";
import { type Complain, showValue } from "./spec.ts";
import { suggestion } from "./suggest.ts";
import type { Wiring } from "./wiring.ts";

/** A broken value: complained about already, so whatever depends on it stays silent. */
export const BROKEN = Symbol("broken");

/** `original`: the parameters as the file has them, before --set; their types tell how to read what --set says. */
export const substitution = (
  { params, original, complain, follow }: {
    readonly params: Readonly<Record<string, unknown>>;
    readonly original: Readonly<Record<string, unknown>>;
    readonly complain: Complain;
    readonly follow: Wiring["follow"];
  },
): (value: unknown, path: Path, ast: SchemaAST.AST, at: Path) => unknown => {
  const param = (name: string, path: Path): unknown => {
    if (Object.hasOwn(params, name)) return params[name];
    complain(path, "value", {
      message: `there is no parameter "${name}"`,
      ...suggestion(name, Object.keys(params)),
    });
    return BROKEN;
  };

  /** Puts parameters in place of their references. `at` is the path within the settings that `ast` describes. */
  const substitute = (value: unknown, path: Path, ast: SchemaAST.AST, at: Path): unknown => {
    if (isSet(value)) return placeSet(value, false, ast, at);
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
        return isSet(found) ? placeSet(found, typeof original[name] === "string", ast, at) : found;
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
          if (isSet(found)) return String(/^(["']).*\1$/s.test(found.raw) ? found.parsed : found.raw);
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

  return substitute;
};
