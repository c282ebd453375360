/**
 * Parameters of a pipeline. Short: `edge: 12`. Long: `edge: { type: number, default: 12, description: "…" }`; without a
 * default the parameter must be given, with --set or by the pipeline that uses this one.
 */
import { resolve } from "node:path";
import process from "node:process";
import { isSet } from "./overrides.ts";
import type { Path } from "./source.ts";
import { type Complain, showValue } from "./spec.ts";
import { suggestion } from "./suggest.ts";

/** Words for `type:`, and what each takes. */
export const PARAM_TYPES = {
  string: (v: unknown) => typeof v === "string",
  number: (v: unknown) => typeof v === "number" && Number.isFinite(v),
  integer: (v: unknown) => Number.isSafeInteger(v),
  boolean: (v: unknown) => typeof v === "boolean",
  path: (v: unknown) => typeof v === "string",
  array: (v: unknown) => Array.isArray(v),
  object: (v: unknown) => typeof v === "object" && v !== null && !Array.isArray(v),
  any: () => true,
} as const;

export type ParamType = keyof typeof PARAM_TYPES;

/** A parameter as it is declared. */
export interface Declaration {
  /** Absent in the short form. */
  readonly type?: ParamType;
  readonly description?: string;
  /** What it is when nobody sets it. */
  readonly fallback?: unknown;
  /** It has no default. */
  readonly required: boolean;
}

const KEYS = ["type", "default", "description"];

/** Whether a parameter is written in the long form: a mapping with `type` and nothing foreign in it. */
export const isLong = (value: unknown): value is Record<string, unknown> =>
  typeof value === "object" && value !== null && !Array.isArray(value) && Object.hasOwn(value, "type") &&
  Object.keys(value).every((key) => KEYS.includes(key));

const isType = (word: unknown): word is ParamType => typeof word === "string" && Object.hasOwn(PARAM_TYPES, word);

/** Declarations of a pipeline's parameters. */
export const declare = (
  params: Readonly<Record<string, unknown>>,
  complain: Complain,
): Readonly<Record<string, Declaration>> =>
  Object.fromEntries(
    Object.entries(params).map(([name, value]): [string, Declaration] => {
      if (!isLong(value)) return [name, { fallback: value, required: false }];
      const path = ["params", name];
      const { type, description, default: fallback } = value;
      if (!isType(type)) {
        complain([...path, "type"], "value", {
          code: "parameter-declaration",
          message: `parameter "${name}" has the type ${showValue(type)}`,
          ...suggestion(String(type), Object.keys(PARAM_TYPES)),
        });
        return [name, { fallback, required: false }];
      }
      if (description !== undefined && typeof description !== "string") {
        complain([...path, "description"], "value", {
          code: "parameter-declaration",
          message: `the description of parameter "${name}" is ${showValue(description)}`,
          expected: "text",
        });
      }
      return [name, {
        type,
        ...(typeof description === "string" ? { description } : {}),
        ...(Object.hasOwn(value, "default") ? { fallback, required: false } : { required: true }),
      }];
    }),
  );

/** What a parameter without a value holds: complained about once, where it is declared. */
export const UNSET = Symbol("unset");

/** The value of a declared parameter, of its type; `given` from --set or the default. Complains where it does not fit. */
export const valueOf = (
  name: string,
  { type, fallback }: Declaration,
  given: unknown,
  context: { readonly folder: string; readonly complain: Complain; readonly path: Path },
): unknown => {
  if (type === undefined || type === "any" || given === UNSET) return given;
  const quoted = isSet(given) && /^(["']).*\1$/s.test(given.raw);
  const texts = type === "string" || type === "path";
  const value = !isSet(given)
    ? given
    : texts && !quoted && !(given.parsed === null && fallback === null)
    ? given.raw
    : given.parsed;
  // A default of null says that null is a value.
  if (value === null && fallback === null) return null;
  if (!PARAM_TYPES[type](value)) {
    context.complain(context.path, "value", {
      code: "parameter-value",
      message: `parameter "${name}" is ${showValue(isSet(given) ? given.raw : value)}`,
      expected: `${/^[aeio]/.test(type) ? "an" : "a"} ${type}`,
    });
    return UNSET;
  }
  // A path means the file's folder where the file says it, and the current one where the command line does.
  return type === "path" ? resolve(isSet(given) ? process.cwd() : context.folder, String(value)) : value;
};
