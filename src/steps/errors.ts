/**
 * Errors that a user can do something about, as data, and `explain`, which puts any failure in plain words:
 * what was wrong, where, what was expected, what to do.
 */
import { Predicate, Schema } from "effect";
import { ADVICE, type Code, CODES } from "./codes.ts";

/** One mistake in a pipeline file (or in `--set`, whose "file" is `--set`). Lines and columns count from 1. */
export const Problem = Schema.Struct({
  /** What kind of mistake; stays the same from version to version. docs/errors/CODE.md explains it. */
  code: Schema.Literals(Object.keys(CODES) as Code[]),
  file: Schema.String,
  line: Schema.Number,
  column: Schema.Number,
  message: Schema.String,
  expected: Schema.optionalKey(Schema.String),
  hint: Schema.optionalKey(Schema.String),
});
export type Problem = typeof Problem.Type;

/** `file:line:column: message`, then what was expected and what to do, indented. */
export const formatProblem = (p: Problem): string => {
  const place = p.line > 0 ? `${p.file}:${p.line}:${p.column}` : p.file;
  const rest = [p.expected && `expected: ${p.expected}`, p.hint].filter(Predicate.isString);
  return [`${place}: ${p.message} [${p.code}]`, ...rest.map((line) => `    ${line}`)].join("\n");
};

/** The pipeline file is wrong. Carries every mistake found, in the order of the file. */
export class SpecError extends Schema.TaggedError<SpecError>()("SpecError", { problems: Schema.Array(Problem) }) {
  constructor({ problems }: { readonly problems: ReadonlyArray<Problem> }) {
    super({ problems: problems.map((p): Problem => ({ ...p, hint: p.hint ?? ADVICE[p.code] })) });
  }
  override get message(): string {
    const n = this.problems.length;
    return `${n} ${n === 1 ? "mistake" : "mistakes"} in the pipeline:\n${this.problems.map(formatProblem).join("\n")}`;
  }
}

/** A step failed. `step` is its id in the pipeline (its name, in a script); `cause` is what went wrong in it. */
export class StepError extends Schema.TaggedError<StepError>()("StepError", {
  step: Schema.String,
  cause: Schema.Defect(),
}) {
  override get message(): string {
    return `step "${this.step}" failed: ${explain(this.cause)}`;
  }
}

/** A measured figure of a verdict, with its 95 % interval and its threshold where it has them. */
export const Figure = Schema.Struct({
  name: Schema.String,
  value: Schema.Number,
  interval: Schema.optionalKey(Schema.Tuple([Schema.Number, Schema.Number])),
  threshold: Schema.optionalKey(Schema.String),
  passed: Schema.optionalKey(Schema.Boolean),
  n: Schema.optionalKey(Schema.Number),
});
export type Figure = typeof Figure.Type;

/** What verification concluded. A verdict may carry more than this; this much the CLI shows and judges by. */
export const Verdict = Schema.Struct({
  passed: Schema.Boolean,
  /** The conclusion in one plain sentence. */
  sentence: Schema.String,
  figures: Schema.Array(Figure),
});
export type Verdict = typeof Verdict.Type;

/** Verification ran and a threshold was missed. For scripts that want a failure; `sau run` writes its results first. */
export class VerifyFailed extends Schema.TaggedError<VerifyFailed>()("VerifyFailed", {
  sentence: Schema.String,
  figures: Schema.Array(Figure),
}) {
  override get message(): string {
    const missed = this.figures.filter((f) => f.passed === false);
    return [this.sentence, ...missed.map((f) => `  ${f.name} is ${f.value}, required ${f.threshold ?? "otherwise"}`)]
      .join("\n");
  }
}

/** Reading or writing results failed (no room, no permission, a folder that is not ours). */
export class OutputError extends Schema.TaggedError<OutputError>()("OutputError", {
  path: Schema.String,
  message: Schema.String,
}) {}

/** A system error code in words, or undefined when it is not one that people meet. */
const systemError = (error: unknown): string | undefined => {
  if (!Predicate.isObject(error) || !("code" in error)) return undefined;
  const path = "path" in error && Predicate.isString(error.path) ? ` ${error.path}` : "";
  switch (error.code) {
    case "ENOSPC":
      return `no room left on the disk while writing${path}; free some space (or point SAU_CACHE and --out elsewhere)`;
    case "EDQUOT":
      return `the disk quota is used up while writing${path}`;
    case "ENOENT":
      return `no such file or folder:${path}`;
    case "EACCES":
    case "EPERM":
      return `no permission to use${path}`;
    case "EROFS":
      return `the file system is read-only:${path}`;
    case "EISDIR":
      return `a file was expected, but this is a folder:${path}`;
    case "ENOTDIR":
      return `a folder was expected, but this is a file:${path}`;
    default:
      return undefined;
  }
};

/** Any failure in plain words, for a terminal. Follows the cause of a StepError and of wrapped errors. */
export const explain = (error: unknown): string => {
  const known = systemError(error);
  if (known !== undefined) return known;
  if (error instanceof Error) {
    const own = error.message.trim();
    const cause = error.cause === undefined || error instanceof StepError ? "" : explain(error.cause);
    if (own === "") return cause || error.name;
    return cause === "" || own.includes(cause) ? own : `${own}: ${cause}`;
  }
  if (Predicate.isString(error)) return error;
  if (Predicate.isObject(error) && "message" in error && Predicate.isString(error.message)) return error.message;
  return String(error);
};
