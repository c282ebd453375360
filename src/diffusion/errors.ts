/** Errors of the parts that read a user's files and prompts. Each says what was wrong, where, what was expected, what to do. */
import { Predicate, Schema } from "effect";

/** A model folder that cannot be used or written: a missing, damaged or mismatched file, key or shape. */
export class BundleError extends Schema.TaggedError<BundleError>()("BundleError", {
  /** File or folder. */
  file: Schema.String,
  /** What is wrong with it, as the rest of a sentence that starts with the file's name. */
  problem: Schema.String,
  /** Tensor or config key, where one is to blame. */
  key: Schema.optionalKey(Schema.String),
  expected: Schema.optionalKey(Schema.String),
  /** What to do about it. */
  hint: Schema.optionalKey(Schema.String),
}) {
  override get message(): string {
    const rest = [this.expected && `expected: ${this.expected}`, this.hint].filter(Predicate.isString);
    return [`${this.file} ${this.problem}`, ...rest.map((line) => `    ${line}`)].join("\n");
  }
}

/** A trigger that cannot be told from harmless text once the tokenizer has read it. */
export class TriggerError extends Schema.TaggedError<TriggerError>()("TriggerError", {
  /** The trigger's text. */
  trigger: Schema.String,
  problem: Schema.String,
  /** Token pieces without and with the trigger, where a prompt shows the trouble. */
  before: Schema.optionalKey(Schema.Array(Schema.String)),
  after: Schema.optionalKey(Schema.Array(Schema.String)),
  hint: Schema.optionalKey(Schema.String),
}) {
  override get message(): string {
    const rest = [
      this.before && `tokens without it: ${this.before.join(" ")}`,
      this.after && `tokens with it:    ${this.after.join(" ")}`,
      this.hint,
    ].filter(Predicate.isString);
    return [`trigger ${visible(this.trigger)} ${this.problem}`, ...rest.map((line) => `    ${line}`)].join("\n");
  }
}

/** A text in quotes, with characters that do not show (or could change the terminal) written as \u{…}. */
export const visible = (text: string): string => {
  const shown = [...text].map((c) =>
    /[\p{C}\p{Zl}\p{Zp}\p{M}"\\]|(?! )\p{Zs}/u.test(c) ? `\\u{${c.codePointAt(0)?.toString(16)}}` : c
  );
  return `"${shown.join("")}"`;
};
