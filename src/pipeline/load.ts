/** From a pipeline file (or a spec built in a script) to a pipeline that can run. */
import { Effect } from "effect";
import { readFile, stat } from "node:fs/promises";
import { dirname, resolve } from "node:path";
import process from "node:process";
import { explain, type Problem, SpecError } from "../steps/errors.ts";
import type { AnyStep } from "../steps/step.ts";
import { link, type Pipeline } from "./link.ts";
import { MAX_BYTES, parseSource, showPath, type Source } from "./source.ts";
import { type Complain, decodeSpec, problemIn, type Spec } from "./spec.ts";

const refuse = (file: string, message: string) =>
  new SpecError({
    problems: [{
      code: "file-unreadable",
      file,
      line: 0,
      column: 0,
      message,
      expected: "a pipeline file: YAML or JSON",
    }],
  });

/** Text of a pipeline file; a folder, a missing or an oversized file is a SpecError. */
export const readText = (file: string): Effect.Effect<string, SpecError> =>
  Effect.tryPromise({
    try: async () => {
      const info = await stat(file);
      if (info.isDirectory()) throw new Error("this is a folder, not a pipeline file");
      // parseSource counts exactly; this keeps a wrong gigabyte file out of memory.
      if (info.size > 4 * MAX_BYTES) throw new Error(`this file has ${info.size} bytes, far too many for a pipeline`);
      return new TextDecoder("utf-8", { fatal: true }).decode(await readFile(file));
    },
    catch: (error) => refuse(file, error instanceof TypeError ? "this file is not UTF-8 text" : explain(error)),
  });

/** Opens a pipeline file that another uses. What is wrong in it goes on the list with its own places. */
const openUsed = (file: string, problems: Problem[]) =>
  Effect.gen(function* () {
    const text = yield* readText(file).pipe(Effect.catch((error) => Effect.succeed(error)));
    if (typeof text !== "string") {
      return {
        code: "file-unreadable" as const,
        message: text.problems[0].message.includes(file)
          ? text.problems[0].message
          : `${file}: ${text.problems[0].message}`,
        expected: "a pipeline file, its path from the folder of this one",
      };
    }
    const source = parseSource(file, text);
    if (!("locate" in source)) {
      return void problems.push(...source);
    }
    const decoded = yield* decodeSpec(source);
    problems.push(...decoded.problems);
    if (decoded.spec === undefined) return undefined;
    const problem = problemIn(source);
    const complain: Complain = (path, which, text) => void problems.push(problem(path, which, text));
    return { spec: decoded.spec, complain };
  });

export interface LoadOptions<R> {
  readonly steps: ReadonlyArray<AnyStep<R>>;
  /** Arguments of `--set`. */
  readonly overrides?: ReadonlyArray<string>;
  /** Load and run steps that the pipeline names by path (`use: ./steps/my-step.ts#myStep`). Off unless told. */
  readonly allowCode?: boolean;
}

/** Parses, decodes and links text. `folder` is where relative paths in it start. */
export const loadText = Effect.fnUntraced(function* <R>(
  text: string,
  options: LoadOptions<R> & { readonly file: string; readonly folder: string },
): Effect.fn.Return<Pipeline<R>, SpecError> {
  const { file } = options;
  const source = parseSource(file, text);
  if (!("locate" in source)) return yield* new SpecError({ problems: source });
  const { spec, problems } = yield* decodeSpec(source);
  if (spec === undefined) return yield* new SpecError({ problems });
  return yield* link(spec, {
    overrides: [],
    ...options,
    text,
    earlier: problems,
    problem: problemIn(source),
    open: openUsed,
  });
});

/** Loads a pipeline file (YAML or JSON). Fails with every mistake in it. */
export const loadFile = Effect.fn("pipeline.load")(function* <R>(
  file: string,
  options: LoadOptions<R>,
): Effect.fn.Return<Pipeline<R>, SpecError> {
  const text = yield* readText(file);
  return yield* loadText(text, { ...options, file, folder: dirname(resolve(file)) });
});

/** Links a spec built in a script; errors name the path within it instead of a line. */
export const loadSpec = Effect.fnUntraced(function* <R>(
  spec: unknown,
  options: LoadOptions<R> & { readonly folder?: string },
): Effect.fn.Return<Pipeline<R>, SpecError> {
  const file = "(script)";
  const text = JSON.stringify(spec);
  const source: Source = { file, text, value: spec, locate: () => ({ line: 0, column: 0 }) };
  const decoded = yield* decodeSpec(source);
  if (decoded.spec === undefined) return yield* new SpecError({ problems: decoded.problems });
  return yield* link(decoded.spec, {
    earlier: decoded.problems,
    overrides: [],
    folder: process.cwd(),
    ...options,
    file,
    text,
    open: openUsed,
    problem: (path, _, text) => ({ file: `${file} ${showPath(path)}`, line: 0, column: 0, ...text }),
  });
});

export type { Pipeline, Spec };
