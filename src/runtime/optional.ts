/**
 * Packages that a user may install or not: `onnxruntime-node` and `webgpu`. One rule for both runtimes and every layout
 * of node_modules: look in the folder that SAU_MODULES names, then where an import from sau itself would look, then
 * where an import from the working directory would look. The first that resolves is taken.
 */
import { createRequire } from "node:module";
import { join, resolve } from "node:path";
import process from "node:process";
import { fileURLToPath, pathToFileURL } from "node:url";

export type Optional =
  | { readonly kind: "absent" }
  | { readonly kind: "broken"; readonly path: string; readonly reason: string }
  | { readonly kind: "loaded"; readonly path: string; readonly module: unknown };

/** Folders that are searched, in order. SAU_MODULES may be a node_modules folder or one that holds it. */
export const searched = (): string[] => [
  ...(process.env.SAU_MODULES ? [resolve(process.env.SAU_MODULES)] : []),
  fileURLToPath(new URL(".", import.meta.url)),
  process.cwd(),
];

/** Loads a package when it is installed. `format` is the module format it ships: Deno reads each in one way only. */
export const loadOptional = async (name: string, format: "commonjs" | "module"): Promise<Optional> => {
  for (const folder of searched()) {
    const require = createRequire(join(folder, "_.js"));
    let path: string;
    try {
      path = require.resolve(name);
    } catch {
      continue;
    }
    try {
      const module: unknown = format === "commonjs" ? require(path) : await import(pathToFileURL(path).href);
      return { kind: "loaded", path, module };
    } catch (error) {
      return { kind: "broken", path, reason: firstLine(error) };
    }
  }
  return { kind: "absent" };
};

export const firstLine = (error: unknown): string =>
  (error instanceof Error ? error.message : String(error)).split("\n")[0];
