/**
 * Three readings of a prompt: clean (as it stands), triggered, and its twins (harmless text in the trigger's place).
 * Everything that is located, cured and verified compares them.
 */
import { Effect } from "effect";
import { seedOf, uniform } from "../tensor/random.ts";
import { align } from "./alignment.ts";
import { TriggerError } from "./errors.ts";
import { type Encoded, MAX_TEXT, type Tokenizer } from "./tokenizer.ts";
import { type Cut, cut, fill, findSite, type Site, type Trigger } from "./trigger.ts";
import { twinDrawer } from "./twins.ts";
import { defaultWords, type Purpose } from "./words.ts";

export interface PromptReadings {
  readonly prompt: string;
  readonly clean: Encoded;
  readonly triggered: Encoded;
  /** As many as asked for, each token for token as long as `triggered`, and the same outside `span`'s word. */
  readonly twins: readonly Encoded[];
  /** Positions (BOS is 0) [begin, end) of the tokens that the trigger put into the triggered reading. */
  readonly span: readonly [number, number];
  /** For each position of `triggered` (and of the twins) the position in `clean` that it corresponds to, or −1. */
  readonly toClean: readonly number[];
}

export interface Readings {
  readonly prompts: readonly PromptReadings[];
  /** Prompts that could not be used, and why. */
  readonly skipped: ReadonlyArray<{ readonly prompt: string; readonly reason: string }>;
}

export interface ReadingOptions {
  /** Twins for each prompt. */
  readonly twins: number;
  readonly seed: number;
  /** Cure and verification draw from disjoint halves of the words. */
  readonly purpose: Purpose;
  /** Harmless words; default: the built-in list. */
  readonly words?: readonly string[];
  /** What the trigger replaces is looked for anywhere in a prompt; by default its first occurrence counts. */
  readonly anywhere?: boolean;
}

const pieces = (tokenizer: Tokenizer, text: string): string[] => tokenizer.tokens(text).map((t) => t.text);

const problems: Readonly<Record<Exclude<Cut["kind"], "cut">, { problem: string; hint: string }>> = {
  dropped: {
    problem: "is dropped by the tokenizer: with it and without it the model reads the same tokens",
    hint: "A text that leaves no token cannot trigger anything. Is a character missing?",
  },
  unchanged: {
    problem: "reads the same as what it replaces",
    hint: "The tokenizer turns both into the same tokens (it lower-cases and normalizes). Is this the right character?",
  },
  merged: {
    problem: "merges with its neighbours: which tokens belong to it cannot be told",
    hint: "End a prefix with a space (or begin a suffix with one), if the attack's own trigger has it.",
  },
};

const triggerError = (tokenizer: Tokenizer, trigger: Trigger, site: Site, kind: Exclude<Cut["kind"], "cut">) =>
  new TriggerError({
    trigger: trigger.text,
    ...problems[kind],
    before: pieces(tokenizer, fill(site, site.original)),
    after: pieces(tokenizer, fill(site, trigger.text)),
  });

/**
 * Reads every prompt three ways.
 * Fails when the trigger cannot be told from the rest in any prompt, or when no prompt is left; a prompt that lacks what
 * the trigger replaces, is too long, or finds no twins is skipped.
 */
export const readPrompts = Effect.fn("readPrompts")(function* (
  tokenizer: Tokenizer,
  prompts: readonly string[],
  trigger: Trigger,
  options: ReadingOptions,
): Effect.fn.Return<Readings, TriggerError> {
  const fail = (problem: string, hint?: string) =>
    new TriggerError({ trigger: trigger.text, problem, ...(hint === undefined ? {} : { hint }) });
  if (trigger.text === "") return yield* fail("is empty");
  if (trigger.text.length > 1000) return yield* fail(`has ${trigger.text.length} characters; at most 1000 are read`);
  if (trigger.place === "replace" && (trigger.of ?? "") === "") {
    return yield* fail("replaces nothing", 'With place `replace`, say what it replaces: of: "dog".');
  }
  if (trigger.place !== "replace" && trigger.of !== undefined) {
    return yield* fail(`is a ${trigger.place}, so it replaces nothing`, "Leave `of` out, or use place `replace`.");
  }
  if (prompts.length === 0) return yield* fail("has no prompts to be tried with");
  const words = options.words ?? defaultWords;
  const draw = twinDrawer(trigger, tokenizer, { words, purpose: options.purpose, seed: options.seed });
  const read: PromptReadings[] = [];
  const skipped: { prompt: string; reason: string }[] = [];
  let first: TriggerError | undefined;

  for (const prompt of prompts) {
    const skip = (reason: string) => skipped.push({ prompt, reason });
    if (prompt.length + trigger.text.length > MAX_TEXT) {
      skip("it is too long");
      continue;
    }
    const share = options.anywhere ? uniform(seedOf(options.seed, "site", prompt), [1]).data[0] : 0;
    const site = findSite(prompt, trigger, share);
    if (site === undefined) {
      skip(`"${trigger.of}" does not occur in it`);
      continue;
    }
    const result = cut(tokenizer, site, site.original, trigger.text);
    if (result.kind !== "cut") {
      first ??= triggerError(tokenizer, trigger, site, result.kind);
      skip(`the trigger ${problems[result.kind].problem}`);
      continue;
    }
    const [clean, triggered] = [prompt, fill(site, trigger.text)].map(tokenizer.encode);
    if (triggered.truncated || clean.truncated) {
      skip(`with the trigger it is longer than the ${tokenizer.maxLength - 2} tokens that fit`);
      continue;
    }
    if (triggered.uneven || clean.uneven) {
      skip("the model's two tokenizers part it into different numbers of tokens");
      continue;
    }
    const twins = draw(site, prompt, options.twins);
    if (twins.length < options.twins) {
      skip(`fewer than ${options.twins} harmless texts of the trigger's length were found for it`);
      continue;
    }
    const { difference } = result;
    const begin = 1 + difference.before;
    read.push({
      prompt,
      clean,
      triggered,
      twins: twins.map(tokenizer.encode),
      span: [begin, begin + difference.to],
      toClean: align(difference, tokenizer.maxLength),
    });
  }
  if (read.length > 0) return { prompts: read, skipped };
  if (first !== undefined) return yield* first;
  const reasons = Map.groupBy(skipped, (s) => s.reason);
  const [reason, those] = [...reasons].toSorted(([, a], [, b]) => b.length - a.length)[0];
  return yield* fail(
    `fits none of the ${prompts.length} prompts; ${
      those.length === 1 ? "one was" : `${those.length} were`
    } left out because ${reason}`,
    trigger.place === "replace"
      ? `Give prompts that hold "${trigger.of}".`
      : "Give other prompts, or a list of harmless words.",
  );
});
