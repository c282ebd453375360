/**
 * A user's own step: `use: ./steps/my-mask.ts#myMask`. The module is code, so it is loaded only where the user said so
 * (`--allow-code`), from a local path relative to the pipeline file. Its bytes, and those of every local module that it
 * imports, become files of the step: a changed line is a changed key, and `sau plan` names the file.
 */
import { Effect, Predicate } from "effect";
import { readFile, realpath } from "node:fs/promises";
import { dirname, extname, resolve, sep } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { explain } from "../steps/errors.ts";
import type { AnyStep } from "../steps/step.ts";
import type { Complaint } from "./spec.ts";
import { listNames, suggestion } from "./suggest.ts";

/** `use` of a step in a module: path and name of the export. */
export interface CodeReference {
  readonly path: string;
  readonly name: string;
}

const EXTENSIONS = [".ts", ".mts", ".js", ".mjs"];

/** Whether a `use` means a module (and not the name of a step or another pipeline file). */
export const isCode = (use: string): boolean => use.includes("#") || EXTENSIONS.includes(extname(use));

const HOW = "a local path and an export, like ./steps/my-mask.ts#myMask";

/** Splits `./steps/my-mask.ts#myMask`; a complaint where it is no local module. */
export const parseCode = (use: string): CodeReference | Complaint => {
  const hash = use.indexOf("#");
  const [path, name] = hash < 0 ? [use, ""] : [use.slice(0, hash), use.slice(hash + 1)];
  // URLs and bare names would fetch code from elsewhere; a path is something that the user can look at.
  if (!/^\.\.?\//.test(path)) {
    return {
      code: "code-reference",
      message: `"${use}" does not name a module beside the pipeline file`,
      expected: HOW,
      hint: `write it from the pipeline file's folder: ./${path.replace(/^.*[/\\:]/, "")}#${name || "NAME"}`,
    };
  }
  if (!EXTENSIONS.includes(extname(path))) {
    return {
      code: "code-reference",
      message: `"${path}" is no TypeScript or JavaScript module`,
      expected: `a file that ends in ${EXTENSIONS.join(", ")}`,
    };
  }
  if (name === "") {
    return {
      code: "code-reference",
      message: `"${use}" does not say which export of the module is the step`,
      expected: HOW,
    };
  }
  return { path, name };
};

/** Modules of sau itself: what they do is told by the versions of the steps. */
const own = fileURLToPath(new URL("../../", import.meta.url));
const ofSau = (file: string): boolean => file === `${own}mod.ts` || file.startsWith(`${own}src${sep}`);

const IMPORT = /(?:\bfrom|\bimport)\s*\(?\s*["'](\.\.?\/[^"']+|file:[^"']+)["']/g;

/** Most modules that a step may consist of: a bound on reading, far above what a step is. */
const MOST_MODULES = 500;

/** The module and every local module that it imports, as absolute paths in order of discovery. */
export const modulesOf = async (entry: string): Promise<string[]> => {
  const found = [entry];
  for (let i = 0; i < found.length; i++) {
    if (found.length > MOST_MODULES) throw new Error(`it consists of more than ${MOST_MODULES} modules`);
    const file = found[i];
    // What is no text of ours (JSON, wasm) imports nothing.
    if (!EXTENSIONS.includes(extname(file))) continue;
    const text = await readFile(file, "utf8");
    for (const [, specifier] of text.matchAll(IMPORT)) {
      const target = specifier.startsWith("file:") ? fileURLToPath(specifier) : resolve(dirname(file), specifier);
      if (!ofSau(target) && !found.includes(target)) found.push(target);
    }
  }
  return found;
};

const isPorts = (value: unknown): boolean =>
  Predicate.isObject(value) &&
  Object.values(value).every((port) =>
    Predicate.isObject(port) && "kind" in port && Predicate.isString(port.kind) &&
    "encode" in port && typeof port.encode === "function" && "decode" in port && typeof port.decode === "function"
  );

/** What keeps a value from being a step, in words; undefined for a step. */
const lacks = (value: unknown): string | undefined => {
  if (!Predicate.isObject(value)) return `it is ${value === null ? "null" : `a ${typeof value}`}`;
  const has = (key: string, test: (v: unknown) => boolean) => key in value && test(Reflect.get(value, key));
  if (!has("name", Predicate.isString)) return "it has no name";
  if (!has("version", (v) => Number.isInteger(v))) return "its version is no whole number";
  if (!has("program", (v) => typeof v === "function") || !has("files", (v) => typeof v === "function")) {
    return "it has no program";
  }
  // A schema is a function or an object, depending on how it was made.
  const settings: unknown = Reflect.get(value, "settings");
  const fields = settings !== null && (typeof settings === "object" || typeof settings === "function") &&
    "fields" in settings && "ast" in settings;
  if (!fields) return "its settings are no Schema.Struct";
  if (!has("inputs", isPorts)) return "its inputs are no ports";
  if (!has("outputs", isPorts)) return "its outputs are no ports";
  return undefined;
};

/**
 * Loads the step that `reference` names. Running its module's top level is running its author's code.
 * A complaint where there is no such module, export or step.
 */
export const loadOwnStep = <R>(
  { path, name }: CodeReference,
  folder: string,
): Effect.Effect<AnyStep<R> | Complaint> =>
  Effect.promise(async () => {
    try {
      const file = await realpath(resolve(folder, path));
      const modules = await modulesOf(file);
      const module: Record<string, unknown> = await import(pathToFileURL(file).href);
      if (!Object.hasOwn(module, name)) {
        return {
          code: "code-unusable",
          message: `${path} exports no "${name}"`,
          ...suggestion(name, Object.keys(module)),
        };
      }
      const value = module[name];
      const why = lacks(value);
      if (why !== undefined) {
        const steps = Object.keys(module).filter((key) => lacks(module[key]) === undefined);
        return {
          code: "code-unusable",
          message: `"${name}" in ${path} is not a step: ${why}`,
          expected: "what Step.make(…) gives",
          ...(steps.length === 0 ? {} : { hint: `this module's steps: ${listNames(steps)}` }),
        };
      }
      // `lacks` has looked at every member that a step is used by.
      const step = value as AnyStep<R>;
      return {
        name: step.name,
        version: step.version,
        description: step.description,
        settings: step.settings,
        inputs: step.inputs,
        outputs: step.outputs,
        files: (settings) => [...step.files(settings), ...modules],
        program: (inputs, settings) => step.program(inputs, settings),
      };
    } catch (error) {
      return { code: "code-unusable", message: `${path} could not be loaded: ${explain(error)}`, expected: HOW };
    }
  });
