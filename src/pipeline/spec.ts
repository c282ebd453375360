/**
 * A pipeline as data: what a file decodes to and what a script builds. Pure description; `link.ts` checks it against
 * the steps that exist.
 */
import { Effect, Result, Schema, SchemaIssue } from "effect";
import type { Problem } from "../steps/errors.ts";
import { describeAt, keysAt, wordsAt } from "./describe.ts";
import { type Path, showPath, type Source } from "./source.ts";
import { listNames, nearest } from "./suggest.ts";

/** The version of the format that this sau reads. */
export const FORMAT = 1;

const empty = Effect.succeed({});

/** A list, or a parameter that holds one. */
const Values = Schema.Union([Schema.Array(Schema.Unknown), Schema.String]);

/** One use of a step. Inputs and settings share `with`; an input is a reference to another step's output. */
export const StepUse = Schema.Struct({
  use: Schema.String.annotate({
    description: "name of a step, ./steps/my-step.ts#myStep, or another pipeline file ./other.yaml",
  }),
  if: Schema.optionalKey(Schema.Union([Schema.Boolean, Schema.String])).annotate({
    description: "whether the step runs: true, false, ${{ params.NAME }}, or ${{ params.NAME }} == VALUE",
  }),
  matrix: Schema.optionalKey(Schema.Record(Schema.String, Values)).annotate({
    description: "lists of values; the step runs once for each combination, and so do the steps that follow from it",
  }),
  foreach: Schema.optionalKey(Values).annotate({ description: "a list; the step runs once for each ${{ item }}" }),
  with: Schema.Record(Schema.String, Schema.Unknown).pipe(Schema.withDecodingDefaultKey(empty)),
});

export const Spec = Schema.Struct({
  $schema: Schema.optionalKey(Schema.String),
  sau: Schema.Literal(FORMAT).annotate({ description: "version of the format" }),
  name: Schema.String.annotate({ description: "what the pipeline does, in a few words" }),
  description: Schema.optionalKey(Schema.String),
  params: Schema.Record(Schema.String, Schema.Unknown).pipe(Schema.withDecodingDefaultKey(empty)),
  steps: Schema.Record(Schema.String, StepUse),
  outputs: Schema.Record(Schema.String, Schema.String).pipe(Schema.withDecodingDefaultKey(empty)),
});
export type Spec = typeof Spec.Type;

/** Value at a path, or undefined. */
export const valueAt = (value: unknown, path: Path): unknown =>
  path.reduce<unknown>(
    (v, key) => typeof v === "object" && v !== null && Object.hasOwn(v, key) ? Reflect.get(v, key) : undefined,
    value,
  );

/** A value in an error text: short, and with its type where that is what is wrong. */
export const showValue = (value: unknown): string => {
  if (value === undefined) return "nothing";
  const text = typeof value === "number" || typeof value === "bigint" ? String(value) : JSON.stringify(value);
  return text.length > 60 ? `${text.slice(0, 57)}…` : text;
};

/** What is wrong, without its place. */
export type Complaint = Omit<Problem, "file" | "line" | "column">;

/** Puts a mistake at a place of the pipeline on the list. */
export type Complain = (path: Path, which: "key" | "value", text: Complaint) => void;

interface Leaf {
  readonly path: Path;
  readonly issue: SchemaIssue.Issue;
}

/** The mistakes in a tree of issues. A failed check or union counts as one. */
const leaves = (issue: SchemaIssue.Issue, path: Path = []): Leaf[] => {
  switch (issue._tag) {
    case "Pointer":
      return leaves(issue.issue, [...path, ...issue.path]);
    case "Encoding":
      return leaves(issue.issue, path);
    case "Composite":
      return issue.issues.flatMap((inner) => leaves(inner, path));
    default:
      return [{ path, issue }];
  }
};

const inWords = SchemaIssue.makeFormatterDefault();

/**
 * Schema issues as problems. `base` is where the decoded value stands in the file; `value` is what was decoded.
 */
export const problemsOf = (
  issue: SchemaIssue.Issue,
  context: {
    readonly schema: Schema.Constraint;
    readonly value: unknown;
    readonly base: Path;
    readonly problem: (path: Path, which: "key" | "value", text: Complaint) => Problem;
  },
): Problem[] =>
  leaves(issue).map(({ path, issue }) => {
    const { ast } = context.schema;
    const full = [...context.base, ...path];
    const key = String(path[path.length - 1] ?? "");
    if (issue._tag === "UnexpectedKey") {
      const names = keysAt(ast, path.slice(0, -1));
      const near = nearest(key, names);
      return context.problem(full, "key", {
        code: "unknown-key",
        message: `unknown key "${key}" in ${showPath(full.slice(0, -1)) || "the pipeline"}`,
        expected: listNames(names),
        ...(near === undefined ? {} : { hint: `did you mean "${near}"?` }),
      });
    }
    if (issue._tag === "MissingKey") {
      const expected = describeAt(ast, path);
      return context.problem(full.slice(0, -1), "key", {
        code: "missing-key",
        message: `${showPath(full.slice(0, -1)) || "the pipeline"} lacks "${key}"`,
        ...(expected === undefined ? {} : { expected }),
      });
    }
    const value = valueAt(context.value, path);
    const checked = issue._tag === "Filter" || issue._tag === "InvalidValue";
    const expected = checked ? inWords(issue).replace(/^Expected /, "") : describeAt(ast, path);
    const near = typeof value === "string" ? nearest(value, wordsAt(ast, path)) : undefined;
    return context.problem(full, "value", {
      code: "wrong-value",
      message: `${showPath(full) || "the pipeline"} is ${showValue(value)}`,
      ...(expected === undefined ? {} : { expected }),
      ...(near === undefined ? {} : { hint: `did you mean "${near}"?` }),
    });
  });

/** A problem at a place of a source. */
export const problemIn = (source: Source) =>
(
  path: Path,
  which: "key" | "value",
  text: Complaint,
): Problem => ({ file: source.file, ...source.locate(path, which), ...text });

/** What decoding found: every mistake of shape, and the spec if it can be read in spite of them (unknown keys). */
export interface DecodedSpec {
  readonly spec?: Spec;
  readonly problems: ReadonlyArray<Problem>;
}

const strictly = (value: unknown) =>
  Effect.result(Schema.decodeUnknownEffect(Spec)(value, { errors: "all", onExcessProperty: "error" }));

export const isMapping = (value: unknown): value is Record<string, unknown> =>
  typeof value === "object" && value !== null && !Array.isArray(value);

/** A key, and the one that was meant. */
interface Slip {
  readonly path: Path;
  readonly meant: string;
}

/** Unknown keys that are near to one which may stand there and does not. */
const misspelt = (issue: SchemaIssue.Issue, value: unknown): Slip[] =>
  leaves(issue).flatMap(({ path, issue }) => {
    const parent = path.slice(0, -1);
    const meant = issue._tag === "UnexpectedKey"
      ? nearest(String(path[path.length - 1]), keysAt(Spec.ast, parent))
      : undefined;
    return meant === undefined || valueAt(value, [...parent, meant]) !== undefined ? [] : [{ path, meant }];
  });

/** A value with the key at the path of a slip under its right name. */
const renamed = (value: unknown, { path: [key, ...rest], meant }: Slip): unknown => {
  if (!isMapping(value)) return value;
  return Object.fromEntries(
    Object.entries(value).map(([name, inner]) =>
      name !== key ? [name, inner] : rest.length === 0 ? [meant, inner] : [name, renamed(inner, { path: rest, meant })]
    ),
  );
};

/** Decodes the shape of a pipeline (not yet its references, steps and settings). */
export const decodeSpec = Effect.fnUntraced(function* (source: Source): Effect.fn.Return<DecodedSpec> {
  const problem = problemIn(source);
  const version = valueAt(source.value, ["sau"]);
  if (typeof version === "number" && version !== FORMAT) {
    // Other versions may have another shape: complaining about the rest would mislead.
    const message = `this pipeline is written in version ${version} of the format`;
    const hint = version > FORMAT ? { hint: "a newer sau may read it" } : {};
    return {
      problems: [problem(["sau"], "value", { code: "format-version", message, expected: `sau: ${FORMAT}`, ...hint })],
    };
  }
  const first = yield* strictly(source.value);
  if (Result.isSuccess(first)) return { spec: first.success, problems: [] };
  // A key that is another misspelt is read as that one: what would be missing without it is no mistake of its own.
  const slips = misspelt(first.failure.issue, source.value);
  const value = slips.reduce(renamed, source.value);
  const second = slips.length === 0 ? first : yield* strictly(value);
  const problems = [
    ...problemsOf(first.failure.issue, { schema: Spec, value: source.value, base: [], problem })
      .filter(({ code }) => slips.length === 0 || code === "unknown-key"),
    ...(slips.length === 0 || Result.isSuccess(second)
      ? []
      : problemsOf(second.failure.issue, { schema: Spec, value, base: [], problem })
        .filter(({ code }) => code !== "unknown-key")),
  ];
  // Neither unknown keys nor a missing name keep the rest from being checked.
  const lenient = yield* Effect.result(
    Schema.decodeUnknownEffect(Spec)(isMapping(value) ? { name: "", ...value } : value),
  );
  return Result.isSuccess(lenient) ? { spec: lenient.success, problems } : { problems };
});
