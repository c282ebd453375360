/** The parameters of one file: as it declares them, with the values that were set. */
import { declare, isLong, UNSET, valueOf } from "./params.ts";
import type { Complain, Spec } from "./spec.ts";
import { isGiven } from "./substitute.ts";

/** The values of a file's parameters, given those that were set. Complains about what does not fit or is missing. */
export const paramsOf = (
  spec: Spec,
  original: Spec,
  context: { readonly folder: string; readonly complain: Complain; readonly howToSet: (name: string) => string },
): { readonly params: Record<string, unknown>; readonly original: Record<string, unknown> } => {
  const declared = declare(original.params, context.complain);
  const params = Object.entries(declared).map(([name, declaration]): [string, unknown] => {
    const path = ["params", name];
    const now = spec.params[name];
    const set = now !== original.params[name];
    // --set of something inside a default that is declared at length.
    const given = isLong(now) && isLong(original.params[name]) ? now.default : now;
    if (!set && declaration.required) {
      context.complain(path, "key", {
        code: "parameter-missing",
        message: `parameter "${name}" has no default and was not given`,
        ...(declaration.type === undefined ? {} : { expected: declaration.type }),
        hint: context.howToSet(name),
      });
      return [name, UNSET];
    }
    // What another pipeline gives is checked where it arrives, as it may be a reference to a step's output.
    if (isGiven(given)) return [name, given];
    return [name, valueOf(name, declaration, set ? given : declaration.fallback, { ...context, path })];
  });
  return {
    params: Object.fromEntries(params),
    original: Object.fromEntries(Object.entries(declared).map(([name, { fallback }]) => [name, fallback])),
  };
};
