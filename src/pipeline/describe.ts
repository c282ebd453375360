/** Settings in words: what a schema expects, which keys it has, where it holds a path. For errors and `sau steps`. */
import { Effect, Option, Schema, type SchemaAST } from "effect";
import { pathAnnotation } from "../steps/path_string.ts";
import type { Path } from "./source.ts";

/** An annotation of a schema; on one with checks, annotating writes to the last check. */
const annotation = (ast: SchemaAST.AST, key: string): unknown =>
  ast.checks?.[ast.checks.length - 1].annotations?.[key] ?? ast.annotations?.[key];

const isWhole = (ast: SchemaAST.AST): boolean =>
  ast.checks?.some((check) => check.annotations?.expected === "an integer") ?? false;

/** What a value should be, in a few words: `a number`, `"otsu" or "fixed" or a number`. */
export const describeType = (ast: SchemaAST.AST): string => {
  if (annotation(ast, pathAnnotation) === true) return "a path";
  switch (ast._tag) {
    case "String":
      return "text";
    case "Number":
      return isWhole(ast) ? "a whole number" : "a number";
    case "Boolean":
      return "true or false";
    case "Null":
      return "null";
    case "Literal":
      return typeof ast.literal === "string" ? `"${ast.literal}"` : String(ast.literal);
    case "Union":
      return ast.types.map(describeType).join(" or ");
    case "Arrays": {
      const [item] = [...ast.elements, ...ast.rest];
      return item === undefined || item._tag === "Unknown" ? "a list" : `a list of ${describeType(item)}`;
    }
    case "Objects": {
      const names = ast.propertySignatures.map((p) => String(p.name));
      return names.length === 0 ? "a mapping" : `a mapping of ${names.join(", ")}`;
    }
    case "Suspend":
      return describeType(ast.thunk());
    default:
      return String(annotation(ast, "description") ?? "another value");
  }
};

const TYPES_OWN = ["an integer", "a finite number"];

/** What a value must keep besides its type, in a few words: `from 1 to 4096`, `greater than 0`. */
export const describeBounds = (ast: SchemaAST.AST): string | undefined => {
  const said = (ast.checks ?? []).flatMap(({ annotations }) => {
    // A check's own message, where it has one, is in words for the reader.
    const expected = annotations?.message ?? annotations?.expected;
    if (typeof expected !== "string" || TYPES_OWN.includes(expected)) return [];
    return [
      expected.replace(/^(a value|expected) (with )?/, "")
        // "Up to the largest number that there is" is no bound to a reader.
        .replace(/^between (.+) and 9007199254740991$/, "at least $1")
        .replace(/^between (.+) and (.+)$/, "from $1 to $2")
        .replace("greater than or equal to", "at least"),
    ];
  });
  return said.length === 0 ? undefined : said.join(", ");
};

/** The parts of a schema that a path may lead to (several under a union). */
const schemasAt = (ast: SchemaAST.AST, path: Path): SchemaAST.AST[] => {
  if (ast._tag === "Suspend") return schemasAt(ast.thunk(), path);
  if (path.length === 0) return [ast];
  const [key, ...rest] = path;
  switch (ast._tag) {
    case "Union":
      return ast.types.flatMap((type) => schemasAt(type, path));
    case "Objects": {
      const property = ast.propertySignatures.find((p) => p.name === key);
      const types = property ? [property.type] : ast.indexSignatures.map((s) => s.type);
      return types.flatMap((type) => schemasAt(type, rest));
    }
    case "Arrays": {
      const item = ast.elements[Number(key)] ?? ast.rest[0];
      return item === undefined ? [] : schemasAt(item, rest);
    }
    default:
      return [];
  }
};

const members = (ast: SchemaAST.AST): SchemaAST.AST[] => ast._tag === "Union" ? ast.types.flatMap(members) : [ast];

/** What is expected at a path of a schema, in words. */
export const describeAt = (ast: SchemaAST.AST, path: Path): string | undefined => {
  const found = schemasAt(ast, path);
  return found.length === 0 ? undefined : found.map(describeType).join(" or ");
};

/** The keys that may stand at a path. */
export const keysAt = (ast: SchemaAST.AST, path: Path): string[] =>
  schemasAt(ast, path).flatMap(members).flatMap((m) =>
    m._tag === "Objects" ? m.propertySignatures.map((p) => String(p.name)) : []
  );

/** The words (string literals) that may stand at a path. */
export const wordsAt = (ast: SchemaAST.AST, path: Path): string[] =>
  schemasAt(ast, path).flatMap(members).flatMap((m) =>
    m._tag === "Literal" && typeof m.literal === "string" ? [m.literal] : []
  );

/** Whether a text at this path is a path to a file (and not one of the words that may stand there instead). */
export const isPathAt = (ast: SchemaAST.AST, path: Path, text: string): boolean => {
  const all = schemasAt(ast, path).flatMap(members);
  return all.some((m) => annotation(m, pathAnnotation) === true) &&
    !all.some((m) => m._tag === "Literal" && m.literal === text);
};

const TAG_OF: Readonly<Record<string, string>> = { number: "Number", boolean: "Boolean", bigint: "BigInt" };

/** Whether a schema may take a value, by its type alone. */
const mayTake = (ast: SchemaAST.AST, value: unknown): boolean => {
  if (ast._tag === "Literal") return ast.literal === value;
  // These take more than their tag tells.
  if (["Unknown", "Any", "Declaration", "TemplateLiteral"].includes(ast._tag)) return true;
  if (value === null) return ast._tag === "Null";
  if (Array.isArray(value)) return ast._tag === "Arrays";
  return ast._tag === (typeof value === "object" ? "Objects" : TAG_OF[typeof value] ?? "String");
};

/** Whether the place at a path may take a value, by its type alone. A path that the schema does not know takes all. */
export const takesAt = (ast: SchemaAST.AST, path: Path, value: unknown): boolean => {
  const all = schemasAt(ast, path).flatMap(members);
  return all.length === 0 || all.some((m) => mayTake(m, value));
};

/** A setting as `sau steps` and the docs show it. `fallback` is the default as a user would write it. */
export interface SettingInfo {
  readonly name: string;
  readonly type: string;
  /** What it must keep besides the type. */
  readonly bounds?: string;
  readonly description: string;
  readonly required: boolean;
  readonly fallback?: unknown;
  /** Where it is a mapping, or may be one of several: their keys, each once. */
  readonly within?: ReadonlyArray<SettingInfo>;
}

const isOptional = ({ type }: SchemaAST.PropertySignature): boolean =>
  type.encoding?.[type.encoding.length - 1]?.to.context?.isOptional ?? type.context?.isOptional ?? false;

const infoOf = (property: SchemaAST.PropertySignature, fallback: unknown): SettingInfo => {
  const { name, type } = property;
  const description = annotation(type, "description") ?? type.context?.annotations?.description;
  const bounds = describeBounds(type);
  const inner = new Map<string, SettingInfo>();
  for (const member of members(type)) {
    if (member._tag !== "Objects") continue;
    for (const own of member.propertySignatures) {
      const value: unknown = typeof fallback === "object" ? Reflect.get(fallback ?? {}, own.name) : undefined;
      if (!inner.has(String(own.name))) inner.set(String(own.name), infoOf(own, value));
    }
  }
  return {
    name: String(name),
    type: describeType(type),
    ...(bounds === undefined ? {} : { bounds }),
    description: typeof description === "string" ? description : "",
    required: !isOptional(property),
    ...(fallback === undefined ? {} : { fallback }),
    ...(inner.size === 0 ? {} : { within: [...inner.values()] }),
  };
};

/** The settings of a step, in the order of its schema. */
export const describeSettings = (
  settings: Schema.Struct<Schema.Struct.Fields> & { readonly DecodingServices: never },
): SettingInfo[] => {
  const signatures = settings.ast._tag === "Objects" ? settings.ast.propertySignatures : [];
  return signatures.map((property) => {
    const { name } = property;
    const field = Schema.Struct({ [name]: settings.fields[name] });
    // A default is what decoding nothing gives; encoding it again shows it as a user would write it.
    const decoded = !isOptional(property) ? Option.none() : Effect.runSync(Effect.option(
      Schema.decodeUnknownEffect(field as typeof settings)({}),
    ));
    return infoOf(property, Option.isSome(decoded) ? (decoded.value as Record<PropertyKey, unknown>)[name] : undefined);
  });
};
