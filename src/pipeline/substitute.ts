/** Settings with the values of parameters in place of their references. */
import type { SchemaAST } from "effect";
import { resolve } from "node:path";
import { isPathAt } from "./describe.ts";
import { isSet, placeSet } from "./overrides.ts";
import { UNSET } from "./params.ts";
import { parseTemplate } from "./reference.ts";
import { type Path, showPath } from "./source.ts";
import { type Complain, showValue, valueAt } from "./spec.ts";
import { suggestion } from "./suggest.ts";
import type { Wiring } from "./wiring.ts";

/** A broken value: complained about already, so whatever depends on it stays silent. */
export const BROKEN = Symbol("broken");

/** Puts values in place of references; `ast` and `at` say what the place takes, where that is known. */
export type Substitute = (value: unknown, path: Path, ast?: SchemaAST.AST, at?: Path) => unknown;

/** A value that the pipeline which uses this one gave for a parameter: it means what it means there. */
export interface Given {
  readonly _tag: "given";
  readonly value: unknown;
  readonly path: Path;
  /** The folder of the file that says it. */
  readonly folder: string;
  readonly substitute: Substitute;
  /** Follows a reference to a step's output there. */
  readonly follow: Wiring["follow"];
}

export const isGiven = (value: unknown): value is Given =>
  typeof value === "object" && value !== null && "_tag" in value && value._tag === "given" && "substitute" in value;

/** What --set put into a parameter, or somewhere inside one that is a mapping. */
export const settled = (found: unknown, before: unknown, ast?: SchemaAST.AST, at: Path = []): unknown => {
  if (isSet(found)) return placeSet(found, typeof before === "string", ast, at);
  if (typeof found !== "object" || found === null || Array.isArray(found)) return found;
  return Object.fromEntries(
    Object.entries(found).map(([key, value]) => [key, settled(value, valueAt(before, [key]), ast, [...at, key])]),
  );
};

/**
 * `original`: the parameters as the file has them, before --set; their types tell how to read what --set says.
 * `swept`: the values of the sweeps that the step is in, by name.
 */
export const substitution = (
  { params, original, swept, complain, follow }: {
    readonly params: Readonly<Record<string, unknown>>;
    readonly original: Readonly<Record<string, unknown>>;
    readonly swept: Readonly<Record<string, unknown>>;
    readonly complain: Complain;
    readonly follow: Wiring["follow"];
  },
): Substitute => {
  const param = (name: string, path: Path): unknown => {
    // One without a value has been complained about where it is declared.
    if (Object.hasOwn(params, name)) return params[name] === UNSET ? BROKEN : params[name];
    complain(path, "value", {
      code: "unknown-parameter",
      message: `there is no parameter "${name}"`,
      ...suggestion(name, Object.keys(params)),
    });
    return BROKEN;
  };

  const sweptValue = (name: string, path: Path): unknown => {
    if (Object.hasOwn(swept, name)) return swept[name];
    complain(path, "value", {
      code: "unknown-sweep",
      message: name === "item" ? "there is no foreach here" : `there is no matrix "${name}" here`,
      ...(name === "item"
        ? { expected: "foreach: [...] on this step, or on one that it takes from" }
        : Object.keys(swept).length === 0
        ? { expected: "matrix: { NAME: [...] } on this step, or on one that it takes from" }
        : suggestion(name, Object.keys(swept))),
    });
    return BROKEN;
  };

  const placeGiven = ({ value, path, folder, substitute }: Given, ast?: SchemaAST.AST, at?: Path): unknown => {
    const found = substitute(value, path, ast, at);
    const isPath = typeof found === "string" && ast !== undefined && isPathAt(ast, at ?? [], found);
    return isPath ? resolve(folder, found) : found;
  };

  /** Puts parameters in place of their references. `at` is the path within the settings that `ast` describes. */
  const substitute: Substitute = (value, path, ast, at = []) => {
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
          code: "reference-syntax",
          message: `${showPath(path)} holds ${showValue(template.text)}, which is no reference`,
          expected: "${{ params.NAME }} or ${{ steps.ID.OUTPUT }}",
        });
        return BROKEN;
      case "whole": {
        if (template.reference._tag === "output") {
          follow(value, path);
          complain(path, "value", {
            code: "setting-reference",
            message: `${showPath(path)} is a setting and takes a value, not another step's output`,
            expected: "a value or ${{ params.NAME }}",
          });
          return BROKEN;
        }
        const { name } = template.reference;
        if (template.reference._tag === "swept") return sweptValue(name, path);
        const found = param(name, path);
        if (isGiven(found)) return placeGiven(found, ast, at);
        return settled(found, original[name], ast, at);
      }
      case "mixed": {
        const texts = template.parts.map((part) => {
          if (typeof part === "string") return part;
          if (part._tag === "output") {
            complain(path, "value", {
              code: "output-in-text",
              message: `${showPath(path)} puts a step's output inside a text`,
              expected: "only ${{ params.NAME }} inside a text",
            });
            return BROKEN;
          }
          let found = part._tag === "swept" ? sweptValue(part.name, path) : param(part.name, path);
          if (isGiven(found)) found = placeGiven(found);
          if (isSet(found)) return String(/^(["']).*\1$/s.test(found.raw) ? found.parsed : found.raw);
          if (found === BROKEN || typeof found !== "object") return found === BROKEN ? BROKEN : String(found);
          complain(path, "value", {
            code: "text-value",
            message: `${part._tag === "swept" ? "the sweep's" : "parameter"} "${part.name}" is ${
              showValue(found)
            } and cannot stand inside a text`,
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
