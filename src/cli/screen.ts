/** `sau screen`: which prompts of a log carry a trigger, prompt by prompt as they come, or as a run with its report. */
import { Effect, Option } from "effect";
import { Argument, Command, Flag } from "effect/cli";
import { createReadStream } from "node:fs";
import { appendFile, readFile, stat } from "node:fs/promises";
import process from "node:process";
import { loadFile } from "../pipeline/load.ts";
import { run } from "../pipeline/run.ts";
import { select } from "../pipeline/select.ts";
import { explain } from "../steps/errors.ts";
import type { ScreenedPrompt, Screening } from "../steps/screen_ports.ts";
import { promptLines, type Streamed } from "../steps/screen_lines.ts";
import type { AppOptions, RunArguments } from "./app.ts";
import { userCache } from "./cache.ts";
import * as flags from "./flags.ts";
import { loraOverrides } from "./lora.ts";
import { plainView } from "./progress.ts";
import { shown } from "./visible.ts";

/** Screens lines with the settings of the step screen. */
export type ScreenLines<R> = (
  settings: { readonly model: string },
  screening: Screening,
  lines: AsyncIterable<string>,
  onResult: (result: ScreenedPrompt) => Effect.Effect<void, unknown>,
) => Effect.Effect<Streamed, unknown, R>;

/** A results file's prompts, to go on after them; a last line that was cut off is an error, since it must not be doubled. */
const doneIn = async (path: string): Promise<string[]> => {
  const known = await stat(path).catch(() => undefined);
  if (known === undefined) return [];
  const lines = (await readFile(path, "utf8")).split("\n");
  if (lines.pop() !== "") throw new Error(`${path} ends in the middle of a line; take that line out, then go on`);
  return lines.map((text, i) => {
    const value: unknown = JSON.parse(text);
    if (typeof value === "object" && value !== null && "prompt" in value && typeof value.prompt === "string") {
      return value.prompt;
    }
    throw new Error(`${path}:${i + 1} is no result of sau screen; choose another file for --results`);
  });
};

/** The prompts after those that are done; the log must begin with them. */
const after = async function* (lines: AsyncIterable<string>, done: readonly string[], path: string) {
  let i = 0;
  for await (const line of lines) {
    if (i < done.length) {
      if (line !== done[i]) {
        throw new Error(`${path}:${i + 1} is the result of another prompt than the log's; choose another --results`);
      }
    } else yield line;
    i++;
  }
};

/** The prompts, with an error where there is none at all. */
const some = async function* (lines: AsyncIterable<string>, name: string) {
  let any = false;
  for await (const line of lines) {
    any = true;
    yield line;
  }
  if (!any) throw new Error(`${name} is an empty log: no line of it holds anything; expected one prompt a line`);
};

/** A result as one line for people. */
const lineOf = ({ flagged, score, p, prompt, suspects, channel, cut }: ScreenedPrompt): string => {
  const words = suspects.map(({ text }) => `"${shown(text)}"`).join(", ");
  const why = flagged ? `  ${words}${channel === null ? "" : ` (${channel})`}` : "";
  const end = cut > 0 ? `  [${cut} tokens are not read]` : "";
  return `${flagged ? "✗" : "✓"} ${score.toFixed(2).padStart(6)}  p ${p.toFixed(3)}  ${shown(prompt)}${why}${end}`;
};

interface Given {
  readonly model: string;
  readonly prompts: string;
  readonly results: string | undefined;
  readonly overrides: readonly string[];
  readonly json: boolean;
  readonly noCache: boolean;
  readonly device: RunArguments["device"];
  readonly precision: RunArguments["precision"];
}

const stream = <R>(app: AppOptions<R>, screenLines: ScreenLines<R>, given: Given) =>
  Effect.scoped(Effect.gen(function* () {
    const { screen } = app;
    const loaded = yield* loadFile(app.screenPipeline, {
      steps: app.steps,
      overrides: given.overrides,
      allowCode: false,
    });
    const { pipeline, again } = yield* select(loaded, { only: ["calibrate"] });
    // Before minutes are spent: is there a log, and may its results be written?
    const name = given.prompts === "-" ? "standard input" : given.prompts;
    if (given.prompts !== "-") {
      yield* Effect.tryPromise({ try: () => stat(given.prompts), catch: (e) => new Error(explain(e)) });
    }
    const done = given.results === undefined ? [] : yield* Effect.tryPromise({
      try: () => doneIn(given.results!),
      catch: (e) => new Error(`--results: ${explain(e)}`),
    });
    const environment = yield* app.environment(given.device, given.precision);
    const view = plainView(screen);
    const calibrated = yield* run(pipeline, {
      environment,
      again,
      onEvent: view.onEvent,
      ...(given.noCache ? {} : { cache: yield* userCache }),
    }).pipe(Effect.onExit(() => Effect.sync(view.end)));
    const screening = calibrated.steps.find(({ id }) => id === "calibrate")?.outputs.screening;
    const settings = loaded.steps.find(({ id }) => id === "screen")?.encoded;
    const bytes = given.prompts === "-" ? process.stdin : createReadStream(given.prompts);
    const lines = after(some(promptLines(bytes), name), done, given.results ?? "");
    const write = (result: ScreenedPrompt) =>
      Effect.gen(function* () {
        const text = JSON.stringify(result);
        if (given.results !== undefined) {
          const path = given.results;
          yield* Effect.tryPromise({ try: () => appendFile(path, `${text}\n`), catch: (e) => new Error(explain(e)) });
        }
        screen.out(`${given.json ? text : lineOf(result)}\n`);
      });
    const program = screenLines(settings as { model: string }, screening as Screening, lines, write);
    const end = yield* environment.provide(program);
    if (end.flagged > 0) app.verdictFailed();
    screen.err(
      `${end.flagged} of ${end.prompts} prompts flagged, ${end.evaluations} network evaluations.${
        done.length > 0 ? ` ${done.length} were done before.` : ""
      }\n`,
    );
  }));

export const screenCommand = <R>(
  app: AppOptions<R>,
  runPipeline: (args: RunArguments) => Effect.Effect<void, unknown>,
) =>
  Command.make("screen", {
    model: Argument.String("MODEL").pipe(
      Argument.withDescription("diffusers folder of the checkpoint, or its one .safetensors file"),
    ),
    prompts: Flag.String("prompts").pipe(Flag.withDescription("File of prompts, one a line; - reads standard input")),
    harmless: flags.optionalText(
      "harmless",
      "File of prompts known to be harmless, best of your own users; else built-in ones",
    ),
    unet: flags.optionalText("replace-unet", "Folder of a U-Net to use in place of the model's"),
    text_encoder: flags.optionalText("replace-text-encoder", "Folder of a text encoder to use in place of the model's"),
    ...flags.form,
    lora: flags.lora,
    false_positives: flags.optionalText("false-positives", "Share of harmless prompts that may be flagged (0.02)"),
    results: flags.optionalText(
      "results",
      "NDJSON file that results are added to; the same command goes on after them",
    ),
    out: flags.optionalText("out", "Folder for a report of all prompts (as a run with its cache), in place of lines"),
    set: flags.set,
    device: flags.device,
    precision: flags.precision,
    json: flags.json,
    noCache: flags.noCache,
  }, ({ model, prompts, harmless, unet, text_encoder, config, tokenizer, lora, ...others }) => {
    const { false_positives, results, out, set, ...rest } = others;
    const own = { harmless, unet, text_encoder, config, tokenizer };
    const overrides = [
      `model=${model}`,
      "texts=[]",
      ...Object.entries(own).map(([name, value]) => `${name}=${Option.getOrElse(value, () => "null")}`),
      ...loraOverrides(lora),
      ...(Option.isSome(false_positives) ? [`false_positives=${false_positives.value}`] : []),
      ...set,
    ];
    const { screenLines } = app;
    if (Option.isSome(out)) {
      if (prompts === "-") {
        return Effect.fail(
          new Error("--out takes a file of prompts: a report is of all of them, and a stream has no end"),
        );
      }
      return runPipeline({
        ...rest,
        out: out.value,
        allowCode: false,
        selection: {},
        file: app.screenPipeline,
        overrides: [...overrides, `prompts=${prompts}`],
      });
    }
    if (screenLines === undefined) return Effect.fail(new Error("this command line screens with --out alone"));
    return stream(app, screenLines, { ...rest, model, prompts, results: Option.getOrUndefined(results), overrides });
  }).pipe(
    Command.withDescription(
      "Say which prompts carry a trigger, and which words: pipelines/screen.yaml by a short name. Exit code 1 when one is flagged",
    ),
  );
