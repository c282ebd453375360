/**
 * `--set NAME=VALUE` sets a parameter, `--set STEP.SETTING=VALUE` a step's setting (deeper: `verdict.require.clip_drop`).
 * VALUE is read as YAML (`5`, `true`, `[a, b]`, `"\u200b "`), else as the text it is.
 */
import type { SchemaAST } from "effect";
import { resolve } from "node:path";
import process from "node:process";
import { parse } from "yaml";
import type { Code } from "../steps/codes.ts";
import type { Problem } from "../steps/errors.ts";
import { isPathAt, takesAt } from "./describe.ts";
import { isLong } from "./params.ts";
import type { Path } from "./source.ts";
import type { Spec } from "./spec.ts";
import { suggestion } from "./suggest.ts";

/** A value from the command line: as typed, and as YAML reads it. */
export interface SetValue {
  readonly _tag: "set";
  /** The whole argument, for error texts. */
  readonly argument: string;
  readonly raw: string;
  readonly parsed: unknown;
}

export interface Override {
  readonly path: Path;
  readonly value: SetValue;
}

const parsed = (raw: string): unknown => {
  // Text that YAML would trim or refuse (" x", "@x", "a: b: c") means itself.
  if (raw.trim() !== raw || raw === "") return raw;
  try {
    return parse(raw, { maxAliasCount: 0, logLevel: "silent" });
  } catch {
    return raw;
  }
};

/** Reads one `--set` argument against the pipeline that it changes. */
export const parseOverride = (argument: string, spec: Spec): Override | Problem => {
  const problem = (code: Code, message: string, more: { expected?: string; hint?: string } = {}): Problem => ({
    code,
    file: `--set ${argument}`,
    line: 0,
    column: 0,
    message,
    ...more,
  });
  const equals = argument.indexOf("=");
  if (equals <= 0) {
    return problem("override", "this sets nothing", { expected: "--set NAME=VALUE or --set STEP.SETTING=VALUE" });
  }
  const raw = argument.slice(equals + 1);
  const keys = argument.slice(0, equals).trim().split(".");
  const value: SetValue = { _tag: "set", argument, raw, parsed: parsed(raw) };
  // The whole path is understood too, as references in the file write it, even where a parameter is called "steps".
  if (keys[0] === "steps" && keys.length > 2 && Object.hasOwn(spec.steps, keys[1])) {
    return { path: ["steps", keys[1], "with", ...keys.slice(2)], value };
  }
  if (keys[0] === "params" && keys.length > 1 && Object.hasOwn(spec.params, keys[1])) return { path: keys, value };
  if (Object.hasOwn(spec.params, keys[0]) && (keys.length === 1 || !Object.hasOwn(spec.steps, keys[0]))) {
    // What lies deeper in a parameter that is declared at length lies in its default.
    const inside = keys.length > 1 && isLong(spec.params[keys[0]]) ? ["default"] : [];
    return { path: ["params", keys[0], ...inside, ...keys.slice(1)], value };
  }
  if (Object.hasOwn(spec.steps, keys[0]) && keys.length > 1) {
    return { path: ["steps", keys[0], "with", ...keys.slice(1)], value };
  }
  if (keys.length === 1) {
    const found = suggestion(keys[0], Object.keys(spec.params));
    return problem("unknown-parameter", `this pipeline has no parameter "${keys[0]}"`, {
      ...found,
      ...(Object.hasOwn(spec.steps, keys[0]) ? { hint: `"${keys[0]}" is a step: --set ${keys[0]}.SETTING=VALUE` } : {}),
    });
  }
  return problem("unknown-id", `this pipeline has no step "${keys[0]}"`, suggestion(keys[0], Object.keys(spec.steps)));
};

export const isSet = (value: unknown): value is SetValue =>
  typeof value === "object" && value !== null && "_tag" in value && value._tag === "set" && "argument" in value;

/**
 * What a value of --set means in a place of a schema: a path from the current folder, the text as typed, or what YAML
 * makes of it. `wantsText`: what it replaces was a text. Quotes make a text of anything, `null` unsets where it may.
 */
export const placeSet = (set: SetValue, wantsText: boolean, ast?: SchemaAST.AST, at: Path = []): unknown => {
  const { raw, parsed } = set;
  if (/^(".*"|'.*')$/s.test(raw)) return parsed;
  const takes = (value: unknown) => ast === undefined || takesAt(ast, at, value);
  if (parsed === null && takes(null)) return null;
  if (ast === undefined) return wantsText ? raw : parsed;
  // A path, unless a list or a mapping may stand there as well and this is one.
  const structured = typeof parsed === "object" && takes(parsed);
  if (isPathAt(ast, at, raw) && !structured) return resolve(process.cwd(), raw);
  if (structured && !(wantsText && takes(raw) && !isPathAt(ast, at, raw))) return fromHere(parsed, ast, at);
  return takes(raw) && (wantsText || !takes(parsed)) ? raw : parsed;
};

/** A list or a mapping in which paths start from the current folder. */
const fromHere = (value: unknown, ast: SchemaAST.AST, at: Path): unknown => {
  if (typeof value === "string") return isPathAt(ast, at, value) ? resolve(process.cwd(), value) : value;
  if (Array.isArray(value)) return value.map((inner, i) => fromHere(inner, ast, [...at, i]));
  if (typeof value !== "object" || value === null) return value;
  return Object.fromEntries(Object.entries(value).map(([key, inner]) => [key, fromHere(inner, ast, [...at, key])]));
};

/** A copy of `target` with `value` at `path`, making mappings on the way where there are none. */
export const setAt = (target: unknown, path: Path, value: unknown): unknown => {
  if (path.length === 0) return value;
  const [key, ...rest] = path;
  const object = typeof target === "object" && target !== null && !Array.isArray(target) ? target : {};
  const child = Object.hasOwn(object, key) ? Reflect.get(object, key) : undefined;
  const entries = Object.entries(object);
  const changed: [string, unknown] = [String(key), setAt(child, rest, value)];
  // Built from entries so that a key called __proto__ stays a key; a key that is there keeps its place.
  return Object.fromEntries(
    Object.hasOwn(object, key) ? entries.map((e) => e[0] === key ? changed : e) : [...entries, changed],
  );
};
