/** Folders out of which a pipeline may read, and the check that every path in it lies in one. */
import { Effect, type SchemaAST } from "effect";
import { realpath } from "node:fs/promises";
import { dirname, isAbsolute, resolve, sep } from "node:path";
import { isPathAt } from "../pipeline/describe.ts";
import type { LinkedStep, Pipeline } from "../pipeline/link.ts";
import { showPath } from "../pipeline/source.ts";
import { Refusal } from "./problems.ts";

const within = (path: string, folder: string): boolean => path === folder || path.startsWith(folder + sep);

/** Where a path leads, links followed; for what is not there, where its nearest parent does. */
const real = async (path: string): Promise<string> => {
  for (let at = path;; at = dirname(at)) {
    const found = await realpath(at).catch(() => undefined);
    if (found !== undefined) return found + path.slice(at.length);
    if (at === dirname(at)) return path;
  }
};

interface PathUse {
  readonly place: string;
  readonly path: string;
}

/** Every path among a step's settings, by what its schema says and by what it looks like; and every file it reads. */
const pathsOf = <R>({ id, step, settings, encoded }: LinkedStep<R>): PathUse[] => {
  const found: PathUse[] = step.files(settings).map((path) => ({ place: `steps.${id}`, path }));
  const walk = (value: unknown, path: ReadonlyArray<string | number>, ast: SchemaAST.AST): void => {
    if (typeof value === "string" && isPathAt(ast, path, value)) {
      found.push({ place: showPath(["steps", id, "with", ...path]), path: value });
    } else if (Array.isArray(value)) value.forEach((inner, i) => walk(inner, [...path, i], ast));
    else if (typeof value === "object" && value !== null) {
      for (const [key, inner] of Object.entries(value)) walk(inner, [...path, key], ast);
    }
  };
  walk(encoded, [], step.settings.ast);
  return found;
};

/** `trusted`: paths that the server's own pipelines name, by which nobody gains anything. */
export const makeRoots = (folders: ReadonlyArray<string>) => ({
  /** Where relative paths of a stranger's pipeline start. */
  first: folders[0],
  /** Fails where a step of the pipeline would read out of the folders. */
  check: <R>(pipeline: Pipeline<R>, trusted: ReadonlySet<string> = new Set()): Effect.Effect<void, Refusal> =>
    Effect.gen(function* () {
      const roots = yield* Effect.promise(() => Promise.all(folders.map(real)));
      for (const { place, path } of pipeline.steps.flatMap(pathsOf)) {
        const full = resolve(path);
        if (trusted.has(full)) continue;
        const target = yield* Effect.promise(() => real(full));
        if (isAbsolute(path) && roots.some((root) => within(target, root))) continue;
        return yield* new Refusal({
          kind: "outside-roots",
          detail:
            `${place} names a path outside of this server's folders; name one inside, relative to the first, or an ` +
            "hf:// id",
        });
      }
    }),
});
export type Roots = ReturnType<typeof makeRoots>;
