/** Values of a built pipeline that are known only when it runs: parameters, and what a sweep is at. */
import { showReference } from "./reference.ts";

/** A condition on a value, for `if`. */
export class Condition {
  readonly text: string;
  constructor(text: string) {
    this.text = text;
  }
}

/** The lists that a step is swept over because of a value. */
export interface Sweep {
  /** Name in `matrix`; undefined for `foreach`. */
  readonly name: string | undefined;
  readonly values: readonly unknown[] | string;
}

/** Stands wherever a setting of type `A` is expected. */
export class Given<A> {
  readonly reference: string;
  readonly sweep: Sweep | undefined;
  /** For the compiler alone. */
  declare readonly gives?: () => A;
  constructor(reference: string, sweep?: Sweep) {
    [this.reference, this.sweep] = [reference, sweep];
  }
  is(value: A): Condition {
    return new Condition(`${this.reference} == ${JSON.stringify(value)}`);
  }
  isNot(value: A): Condition {
    return new Condition(`${this.reference} != ${JSON.stringify(value)}`);
  }
}

/** A setting as a script writes it: the value, or one that is given, at any depth. */
export type Setting<A> =
  | A
  | Given<A>
  | (A extends string | number | boolean | null | undefined ? never
    : A extends readonly (infer B)[] ? readonly Setting<B>[]
    : A extends object ? { readonly [K in keyof A]: Setting<A[K]> }
    : never);

/** A list to sweep over, or a parameter that holds one. */
type ListOf<A> = readonly A[] | Given<readonly A[]>;

const valuesOf = <A>(list: ListOf<A>): Sweep["values"] => list instanceof Given ? list.reference : list;

/**
 * A step with this among its settings runs once for each of the values, and so do the steps that take from it:
 * `matrix:` in a file. The same name in one step is the same list; two names are all combinations.
 */
export const sweep = <const A>(name: string, list: ListOf<A>): Given<A> =>
  new Given(showReference({ _tag: "swept", name }), { name, values: valuesOf(list) });

/** The same for one list without a name: `foreach:` in a file. */
export const each = <const A>(list: ListOf<A>): Given<A> =>
  new Given(showReference({ _tag: "swept", name: "item" }), { name: undefined, values: valuesOf(list) });

/** What was written of a step: its values with references in their places, and the sweeps that they bring. */
export const written = (value: unknown, sweeps: Sweep[]): unknown => {
  if (value instanceof Given) {
    if (value.sweep !== undefined) sweeps.push(value.sweep);
    return value.reference;
  }
  if (Array.isArray(value)) return value.map((inner) => written(inner, sweeps));
  if (typeof value !== "object" || value === null) return value;
  return Object.fromEntries(
    Object.entries(value).filter(([, inner]) => inner !== undefined).map((
      [key, inner],
    ) => [key, written(inner, sweeps)]),
  );
};
