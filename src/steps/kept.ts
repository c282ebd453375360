/**
 * What one run made and the next one in the same process may take: a bench verifies many cures of one model, and the
 * pictures of that model are the same each time. Without a keeper everything is made anew, so steps need no set-up.
 */
import { Context, Effect } from "effect";

/** Gives what was made under a name, or makes it. A name must say everything that the value depends on. */
export interface Keeper {
  readonly keep: <A, E, R>(name: string, make: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>;
}

/** The keeper of the running step. Default: nothing is kept. */
export const Kept: Context.Reference<Keeper> = Context.Reference<Keeper>("sau/steps/Kept", {
  defaultValue: () => ({ keep: (_, make) => make }),
});

/** Keeps the `most` values that were asked for last. Names of one keeper must each stand for one type of value. */
export const keepLast = (most: number): Keeper => {
  const values = new Map<string, unknown>();
  return {
    keep: <A, E, R>(name: string, make: Effect.Effect<A, E, R>) =>
      Effect.gen(function* () {
        // What stands under a name came from an effect with that name, whose type is this one's.
        const value = values.has(name) ? values.get(name) as A : yield* make;
        values.delete(name);
        values.set(name, value);
        for (const oldest of [...values.keys()].slice(0, Math.max(0, values.size - most))) values.delete(oldest);
        return value;
      }),
  };
};
