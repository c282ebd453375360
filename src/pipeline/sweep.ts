/** Sweeps as grids: each `matrix:` list or `foreach:` is an axis, each combination of their values a place. */

/** One dimension of a sweep: the values that a step goes through. */
export interface Axis {
  /** Unique: the step that declares it, and its name. */
  readonly key: string;
  readonly name: string;
  readonly values: ReadonlyArray<{ readonly label: string; readonly value: unknown }>;
}

/** Position on each axis, by the axis' key. */
export type Place = ReadonlyMap<string, number>;

/** Values as parts of ids: themselves where they are short and distinct words or numbers, else their number. */
export const labelled = (values: ReadonlyArray<unknown>): Axis["values"] => {
  const words = values.map((value) => typeof value === "object" ? "" : String(value).replaceAll(".", "_"));
  const plain = words.every((w) => /^[A-Za-z0-9_-]{1,24}$/.test(w)) && new Set(words).size === words.length;
  return values.map((value, i) => ({ label: plain ? words[i] : String(i + 1), value }));
};

/** A place as text, for maps. */
export const placeKey = (axes: ReadonlyArray<Axis>, place: Place): string =>
  axes.map(({ key }) => place.get(key) ?? "?").join(",");

/** Every combination of positions. */
export const placesOf = (axes: ReadonlyArray<Axis>): Place[] =>
  axes.reduce<Place[]>(
    (places, { key, values }) => places.flatMap((place) => values.map((_, i) => new Map([...place, [key, i]]))),
    [new Map()],
  );
