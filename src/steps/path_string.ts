/**
 * Settings that are paths. In a pipeline file a relative path means "beside this file"; in a script or on the command
 * line it means "from here". The schema therefore decodes against a base folder which whoever decodes may provide.
 */
import { Context, Effect, Schema, SchemaGetter } from "effect";
import { resolve } from "node:path";
import process from "node:process";

/** Folder against which relative paths are resolved; default: the current folder. */
export const PathBase: Context.Reference<string> = Context.Reference<string>("sau/steps/PathBase", {
  defaultValue: () => process.cwd(),
});

/** Annotation that marks a setting as a path, so that a value from `--set` can be told to mean the current folder. */
export const pathAnnotation = "sau/path";

const resolvePath = SchemaGetter.transformEffect((path: string) => Effect.map(PathBase, (base) => resolve(base, path)));

/** A path to a file or folder; decodes to an absolute path. */
export const PathString = Schema.String.pipe(
  Schema.decodeTo(Schema.String, { decode: resolvePath, encode: SchemaGetter.passthrough() }),
  Schema.annotate({ [pathAnnotation]: true }),
);
