/**
 * Text of a pipeline file → plain value plus positions. YAML 1.2 or JSON (a subset of it, read by the same parser).
 * The text may come from a stranger: size, aliases and depth are bounded, and nothing in it is executed.
 */
import { isAlias, isMap, isScalar, isSeq, LineCounter, type Node, type Pair, parseDocument } from "yaml";
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
  const whole = (message: string, expected?: string): Problem[] => [
    { file, line: 1, column: 1, message, ...(expected === undefined ? {} : { expected }) },
  ];
  const bytes = new TextEncoder().encode(text).length;
  if (bytes > MAX_BYTES) return whole(`this file has ${bytes} bytes`, `a pipeline file of at most ${MAX_BYTES} bytes`);

  const lines = new LineCounter();
  const position = (offset: number): Position => {
    const { line, col } = lines.linePos(offset);
    return { line: Math.max(1, line), column: Math.max(1, col) };
  };
  let value: unknown;
  let document;
  try {
    document = parseDocument(text, {
      lineCounter: lines,
      prettyErrors: false,
      logLevel: "error",
      version: "1.2",
      strict: true,
    });
    const found = [...document.errors, ...document.warnings];
    // The parser gives up level by level where the stack ends; one message says it all.
    if (found.some((e) => e.message.includes("call stack"))) throw new RangeError();
    if (found.length > 0) {
      return found.map((e) => ({ file, ...position(e.pos[0]), message: yamlMessage(e.code, e.message) }));
    }
    value = document.toJS({ maxAliasCount: MAX_ALIASES });
  } catch (error) {
    // The parser recurses (RangeError when the text nests thousands deep) and counts aliases (ReferenceError).
    const message = error instanceof RangeError
      ? "this file nests too deeply"
      : "the aliases of this file expand too far";
    return whole(message, `at most ${MAX_DEPTH} levels and ${MAX_ALIASES} aliased values`);
  }
  if (tooDeep(value)) return whole("this file nests too deeply", `at most ${MAX_DEPTH} levels`);
  if (value === null || value === undefined) return whole("this file is empty", "a pipeline: sau, name, steps");

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

const yamlMessage = (code: string, message: string): string =>
  code === "DUPLICATE_KEY" ? "this key stands twice in the same mapping" : `not valid YAML: ${message}`;
