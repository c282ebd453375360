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

const Seeds = Schema.NonEmptyArray(Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 2 ** 31 })));

export const Attack = Schema.Struct({
  family: Schema.String.annotate({ description: "kind of attack; attacks of a family stand together" }),
  set: Settings.pipe(Schema.withDecodingDefaultKey(empty)),
});

export const Cure = Schema.Struct({
  description: Schema.optionalKey(Schema.String),
  pipeline: Schema.optionalKey(Schema.String.annotate({ description: "a pipeline file of its own" })),
  set: Settings.pipe(Schema.withDecodingDefaultKey(empty)),
  seeds: Schema.optionalKey(Seeds.annotate({ description: "its own seeds, in place of the bench's" })),
});

export const Matrix = Schema.Struct({
  $schema: Schema.optionalKey(Schema.String),
  sau: Schema.Literal(FORMAT).annotate({ description: "version of the format" }),
  name: Schema.String.annotate({ description: "what the bench compares" }),
  pipeline: Schema.String.annotate({ description: "the pipeline file that each cell runs" }),
  set: Settings.pipe(Schema.withDecodingDefaultKey(empty)),
  attacks: Schema.Record(Schema.String, Attack),
  cures: Schema.Record(Schema.String, Cure),
  seeds: Seeds.pipe(Schema.withDecodingDefaultKey(Effect.succeed([0] as const))),
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
    const perAttack = Object.values(cures).reduce((sum, cure) => sum + (cure.seeds ?? seeds).length, 0);
    const count = Object.keys(attacks).length * perAttack;
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
  const seedsOf = (cure: string) => matrix.cures[cure].seeds ?? matrix.seeds;
  const seeds = new Set(Object.keys(matrix.cures).flatMap(seedsOf));
  return Object.entries(matrix.attacks).flatMap(([attack, { family, set }]) =>
    [...seeds].flatMap((seed) =>
      Object.entries(matrix.cures).filter(([cure]) => seedsOf(cure).includes(seed)).map(([cure, own]): Cell => ({
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

/** Which cells to run; every one of a kind where none is named. */
export interface Selected {
  readonly attacks: readonly string[];
  readonly cures: readonly string[];
  readonly seeds: readonly number[];
}

/** Whether a cell is to run. @throws Error for a name that the bench does not have */
export const selecting = (cells: readonly Cell[], { attacks, cures, seeds }: Selected): (cell: Cell) => boolean => {
  const check = (kind: string, wanted: readonly (string | number)[], known: readonly (string | number)[]) => {
    const strange = wanted.find((name) => !known.includes(name));
    if (strange === undefined) return;
    throw new Error(`the bench has no ${kind} ${strange}; it has ${[...new Set(known)].join(", ")}`);
  };
  check("attack", attacks, cells.map((c) => c.attack));
  check("cure", cures, cells.map((c) => c.cure));
  check("seed", seeds, cells.map((c) => c.seed));
  const among = <A>(wanted: readonly A[], value: A) => wanted.length === 0 || wanted.includes(value);
  return (cell) => among(attacks, cell.attack) && among(cures, cell.cure) && among(seeds, cell.seed);
};

/** `badt2i-pixel, auto, seed 0`. */
export const nameOf = ({ attack, cure, seed }: Pick<Cell, "attack" | "cure" | "seed">): string =>
  `${attack}, ${cure}, seed ${seed}`;
