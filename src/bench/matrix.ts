/**
 * A bench as data: attacks × cures × seeds, each cell a run of a pipeline with the settings of its attack and its cure.
 */
import { Effect, Result, Schema } from "effect";
import { dirname, resolve } from "node:path";
import { readText } from "../pipeline/load.ts";
import { parseSource } from "../pipeline/source.ts";
import { FORMAT, problemIn, problemsOf } from "../pipeline/spec.ts";
import { SpecError } from "../steps/errors.ts";

const empty = Effect.succeed({});

const Settings = Schema.Record(Schema.String, Schema.Unknown).annotate({
  description:
    "What --set sets: NAME or STEP.SETTING to a value. A path that begins with ./ or ../ is the bench file's.",
});

export const Attack = Schema.Struct({
  family: Schema.String.annotate({ description: "kind of attack; attacks of a family stand together" }),
  set: Settings.pipe(Schema.withDecodingDefaultKey(empty)),
});

export const Cure = Schema.Struct({
  description: Schema.optionalKey(Schema.String),
  pipeline: Schema.optionalKey(Schema.String.annotate({ description: "a pipeline file of its own" })),
  set: Settings.pipe(Schema.withDecodingDefaultKey(empty)),
});

export const Matrix = Schema.Struct({
  $schema: Schema.optionalKey(Schema.String),
  sau: Schema.Literal(FORMAT).annotate({ description: "version of the format" }),
  name: Schema.String.annotate({ description: "what the bench compares" }),
  pipeline: Schema.String.annotate({ description: "the pipeline file that each cell runs" }),
  set: Settings.pipe(Schema.withDecodingDefaultKey(empty)),
  attacks: Schema.Record(Schema.String, Attack),
  cures: Schema.Record(Schema.String, Cure),
  seeds: Schema.Array(Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 2 ** 31 }))).pipe(
    Schema.withDecodingDefaultKey(Effect.succeed([0])),
  ),
});
export type Matrix = typeof Matrix.Type;

/** One cell: what to run. */
export interface Cell {
  readonly attack: string;
  readonly family: string;
  readonly cure: string;
  readonly seed: number;
  /** The pipeline file, absolute. */
  readonly pipeline: string;
  /** Arguments of --set. */
  readonly overrides: readonly string[];
}

/** Cells of one bench: a bound on a mistake, far above a sensible bench. */
const MOST_CELLS = 2000;

/** Reads a bench file (YAML or JSON). Fails with every mistake in it. */
export const readMatrix = Effect.fn("bench.read")(function* (file: string): Effect.fn.Return<Matrix, SpecError> {
  const text = yield* readText(file);
  const source = parseSource(file, text);
  if (!("locate" in source)) return yield* new SpecError({ problems: source });
  const decoded = yield* Effect.result(
    Schema.decodeUnknownEffect(Matrix)(source.value, { errors: "all", onExcessProperty: "error" }),
  );
  const problem = problemIn(source);
  if (Result.isSuccess(decoded)) {
    const { attacks, cures, seeds } = decoded.success;
    const count = Object.keys(attacks).length * Object.keys(cures).length * seeds.length;
    if (count <= MOST_CELLS) return decoded.success;
    const message = `this bench has ${count} cells`;
    return yield* new SpecError({
      problems: [problem([], "value", { code: "bench-size", message, expected: `at most ${MOST_CELLS}` })],
    });
  }
  return yield* new SpecError({
    problems: problemsOf(decoded.failure.issue, { schema: Matrix, value: source.value, base: [], problem }),
  });
});

/** The cells, attack by attack so that cures of one attack share its cached steps. `file` is the bench file. */
export const cellsOf = (matrix: Matrix, file: string): Cell[] => {
  const folder = dirname(resolve(file));
  const inFolder = (value: unknown): unknown => {
    if (typeof value === "string") return /^\.{1,2}\//.test(value) ? resolve(folder, value) : value;
    if (Array.isArray(value)) return value.map(inFolder);
    if (typeof value !== "object" || value === null) return value;
    return Object.fromEntries(Object.entries(value).map(([key, inner]) => [key, inFolder(inner)]));
  };
  return Object.entries(matrix.attacks).flatMap(([attack, { family, set }]) =>
    matrix.seeds.flatMap((seed) =>
      Object.entries(matrix.cures).map(([cure, own]): Cell => ({
        attack,
        family,
        cure,
        seed,
        pipeline: resolve(folder, own.pipeline ?? matrix.pipeline),
        overrides: Object.entries({ ...matrix.set, ...set, ...own.set, seed })
          .map(([key, value]) => `${key}=${JSON.stringify(inFolder(value))}`),
      }))
    )
  );
};

/** `badt2i-pixel, auto, seed 0`. */
export const nameOf = ({ attack, cure, seed }: Pick<Cell, "attack" | "cure" | "seed">): string =>
  `${attack}, ${cure}, seed ${seed}`;
