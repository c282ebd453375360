/**
 * Text of a pipeline file → plain value plus positions. YAML 1.2 or JSON (a subset of it, read by the same parser).
 * The text may come from a stranger: size, aliases and depth are bounded, and nothing in it is executed.
 */
import { isAlias, isMap, isScalar, isSeq, type Node, type Pair, parseDocument } from "yaml";
import type { Code } from "../steps/codes.ts";
import type { Problem } from "../steps/errors.ts";

/** Largest pipeline file, in bytes: about a hundred times the largest sensible one. */
export const MAX_BYTES = 256 * 1024;
/** Largest number of nodes that aliases may expand to. */
const MAX_ALIASES = 100;
const MAX_DEPTH = 32;

export interface Position {
  readonly line: number;
  readonly column: number;
}

export type Path = ReadonlyArray<PropertyKey>;

export interface Source {
  /** The name under which errors speak of it. */
  readonly file: string;
  readonly text: string;
  readonly value: unknown;
  /** Where the value at a path stands (or its key); the nearest parent that exists when it does not. */
  readonly locate: (path: Path, which: "key" | "value") => Position;
}

/** `steps.cure.with.edge`, `outputs[0]`. */
export const showPath = (path: Path): string =>
  path.map((key, i) => typeof key === "number" ? `[${key}]` : i === 0 ? String(key) : `.${String(key)}`).join("");

const keyText = (key: unknown): string => isScalar(key) ? String(key.value) : String(key);

const tooDeep = (value: unknown, depth = 0): boolean =>
  typeof value === "object" && value !== null &&
  (depth > MAX_DEPTH || Object.values(value).some((child) => tooDeep(child, depth + 1)));

/** Parses, or lists what is wrong with the text itself (syntax, duplicate keys, size). */
export const parseSource = (file: string, text: string): Source | ReadonlyArray<Problem> => {
  const whole = (code: Code, message: string, expected?: string): Problem[] => [
    { code, file, line: 1, column: 1, message, ...(expected === undefined ? {} : { expected }) },
  ];
  const bytes = new TextEncoder().encode(text).length;
  if (bytes > MAX_BYTES) {
    return whole("file-size", `this file has ${bytes} bytes`, `a pipeline file of at most ${MAX_BYTES} bytes`);
  }

  // Not the parser's own count of lines, which ends where it gives up.
  const starts = [0, ...[...text.matchAll(/\n/g)].map(({ index }) => index + 1)];
  const position = (offset: number): Position => {
    const at = Math.min(offset, text.length);
    const line = starts.findLastIndex((start) => start <= at);
    return { line: line + 1, column: at - starts[line] + 1 };
  };
  let value: unknown;
  let document;
  try {
    document = parseDocument(text, {
      prettyErrors: false,
      logLevel: "error",
      version: "1.2",
      strict: true,
    });
    const found = [...document.errors, ...document.warnings];
    // The parser gives up level by level where the stack ends; one message says it all.
    if (found.some((e) => e.message.includes("call stack"))) throw new RangeError();
    if (found.length > 0) {
      // What follows from a mistake at the same place would be noise.
      const first = found.filter((e, i) => found.findIndex((other) => other.pos[0] === e.pos[0]) === i);
      return first.map((e) => ({
        code: e.code === "DUPLICATE_KEY" ? "duplicate-key" : "yaml-syntax",
        file,
        ...position(e.pos[0]),
        ...yamlText(e.code, e.message),
      }));
    }
    value = document.toJS({ maxAliasCount: MAX_ALIASES });
  } catch (error) {
    if (error instanceof ReferenceError && error.message.startsWith("Unresolved alias")) {
      return whole("yaml-syntax", `not valid YAML: ${error.message}`, "an anchor (&name) before its alias (*name)");
    }
    // The parser recurses (RangeError when the text nests thousands deep) and counts aliases (ReferenceError).
    const message = error instanceof RangeError
      ? "this file nests too deeply"
      : "the aliases of this file expand too far";
    return whole("nesting", message, `at most ${MAX_DEPTH} levels and ${MAX_ALIASES} aliased values`);
  }
  if (tooDeep(value)) return whole("nesting", "this file nests too deeply", `at most ${MAX_DEPTH} levels`);
  if (value === null || value === undefined) {
    return whole("empty-file", "this file is empty", "a pipeline: sau, name, steps");
  }

  const root = document.contents;
  const resolve = (node: unknown): unknown => isAlias(node) ? node.resolve(document) : node;
  const locate = (path: Path, which: "key" | "value"): Position => {
    let node = resolve(root);
    let offset = root?.range?.[0] ?? 0;
    for (const [i, key] of path.entries()) {
      const last = i === path.length - 1;
      if (isMap(node)) {
        const pair: Pair | undefined = node.items.find((item) => keyText(item.key) === String(key));
        if (pair === undefined) break;
        const keyOffset = rangeStart(pair.key) ?? offset;
        offset = last && which === "key" ? keyOffset : rangeStart(pair.value) ?? keyOffset;
        node = resolve(pair.value);
      } else if (isSeq(node)) {
        const item: unknown = node.items[Number(key)];
        if (item === undefined) break;
        offset = rangeStart(item) ?? offset;
        node = resolve(item);
      } else break;
    }
    return position(offset);
  };
  return { file, text, value, locate };
};

const rangeStart = (node: unknown): number | undefined =>
  typeof node === "object" && node !== null && "range" in node ? (node as Node).range?.[0] : undefined;

/** What to do about a syntax error, by the parser's code. */
const HINTS: Readonly<Record<string, string>> = {
  TAB_AS_INDENT: "indent with spaces",
  BAD_INDENT: "give entries of one mapping the same indentation",
  MISSING_CHAR: "close the quote or bracket",
  BLOCK_AS_IMPLICIT_KEY: "put text that holds a colon into quotes",
  BAD_DQ_ESCAPE: "write \\\\ for a backslash, or use single quotes",
  MULTIPLE_DOCS: "put each pipeline into a file of its own",
  TAG_RESOLVE_FAILED: "remove the tag: values here are plain",
};

/** The parser may quote all the rest of a file. */
const shortened = (text: string): string => text.length > 120 ? `${text.slice(0, 119)}…` : text;

const yamlText = (code: string, message: string): Pick<Problem, "message" | "expected" | "hint"> =>
  code === "DUPLICATE_KEY" ? { message: "this key stands twice in the same mapping", expected: "each key once" } : {
    message: `not valid YAML: ${shortened(message.split(";")[0])}`,
    expected: "YAML 1.2 or JSON",
    ...(HINTS[code] === undefined ? {} : { hint: HINTS[code] }),
  };
