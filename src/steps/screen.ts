/** screen: which prompts of a list carry a trigger, and which words of them it is likely to be. */
import { Effect, Schema } from "effect";
import { createReadStream } from "node:fs";
import { BundleError } from "../diffusion/errors.ts";
import { promptLines } from "../diffusion/prompt_log.ts";
import { system } from "../diffusion/files.ts";
import { modelFiles, openModel } from "./open_model.ts";
import { PathString } from "./path_string.ts";
import { type Verdict, VerdictPort } from "./ports.ts";
import { report } from "./progress.ts";
import { Anyway, screenModel } from "./screen_calibrate.ts";
import { openScreener, TOGETHER } from "./screener.ts";
import { type ScreenedPrompt, ScreeningPort, ScreenPort, type ScreenResult } from "./screen_ports.ts";
import { defaulted, given, maybe } from "./settings.ts";
import { Step } from "./step.ts";

/** Prompts that one result holds. */
const MOST = 20_000;

/** The prompts of a file. */
const readLog = Effect.fnUntraced(function* (path: string) {
  const prompts = yield* system(path, "cannot be read", async () => {
    const found: string[] = [];
    for await (const line of promptLines(createReadStream(path))) if (found.push(line) > MOST) break;
    return found;
  });
  if (prompts.length === 0) {
    return yield* new BundleError({
      file: path,
      problem: "is an empty log: no line of it holds anything",
      expected: "one prompt a line",
    });
  }
  if (prompts.length > MOST) {
    return yield* new BundleError({
      file: path,
      problem: `holds more than ${MOST} prompts`,
      expected: "fewer, for a result and a report of them all",
      hint: "`sau screen MODEL --prompts FILE` without --out takes logs of any length.",
    });
  }
  return prompts;
});

export const screen = Step.make("screen", {
  version: 3,
  description: "Says of each prompt how far it stands out from harmless ones, and which words are likely a trigger.",
  settings: Schema.Struct({
    ...screenModel,
    prompts: maybe(PathString).annotate({ description: "Text file of prompts to screen, one a line." }),
    texts: defaulted(
      Schema.Array(Schema.String).check(Schema.isMaxLength(MOST)).annotate({
        description: "Prompts themselves, beside those of the file or instead of them.",
      }),
      [],
    ),
    false_positives: defaulted(
      Schema.Finite.check(Schema.isBetween({ minimum: 1e-4, maximum: 0.5 })).annotate({
        description: "Share of harmless prompts that may be flagged.",
      }),
      0.02,
    ),
    long: defaulted(
      Schema.Literals(["cut", "windows"]).annotate({
        description: "Prompts longer than the context: judged by what the model reads of them, or window by window.",
      }),
      "cut",
    ),
    anyway: Anyway,
  }),
  inputs: { screening: ScreeningPort },
  outputs: { screen: ScreenPort, verdict: VerdictPort },
  files: (settings) => [...modelFiles(settings), ...given(settings.prompts)],
  run: Effect.fnUntraced(function* ({ screening }, settings) {
    yield* report({ done: 0, total: 1, note: "opening the model" });
    const texts = [...settings.texts, ...(settings.prompts ? yield* readLog(settings.prompts) : [])];
    if (texts.length === 0) {
      return yield* new BundleError({
        file: "prompts",
        problem: "there is no prompt to screen",
        expected: "a file of prompts (prompts), or prompts themselves (texts)",
      });
    }
    const bundle = yield* openModel(settings);
    const { false_positives: falsePositives, long, anyway } = settings;
    const screener = yield* openScreener(bundle, screening, { falsePositives, long, anyway });
    const prompts: ScreenedPrompt[] = [];
    for (let begin = 0; begin < texts.length; begin += TOGETHER) {
      yield* report({ done: begin, total: texts.length, note: "screening prompts" });
      prompts.push(...yield* screener.screen(texts.slice(begin, begin + TOGETHER)));
    }
    const { calibration, ...about } = screening;
    const result: ScreenResult = {
      screening: { ...about, harmless: calibration.scores.plain.length + calibration.scores.letters.length },
      falsePositives,
      thresholds: screener.thresholds,
      prompts,
      flagged: prompts.filter(({ flagged }) => flagged).length,
      evaluations: screener.evaluations(),
    };
    return { screen: result, verdict: verdictOf(result) };
  }, Effect.scoped),
});

const verdictOf = ({ prompts, flagged, falsePositives, screening }: ScreenResult): Verdict => {
  const cut = prompts.filter((p) => p.cut > 0).length;
  const expected = Math.round(falsePositives * prompts.length * 10) / 10;
  const first = prompts.reduce((a, b) => b.score > a.score ? b : a);
  const suspect = first.suspects[0];
  return {
    passed: flagged === 0,
    sentence:
      (flagged > 0
        ? `${flagged} of ${prompts.length} prompts ${
          flagged === 1 ? "stands" : "stand"
        } out, where about ${expected} of ` +
          `as many harmless ones would; the furthest is "${first.prompt.slice(0, 80)}"` +
          (suspect === undefined ? "." : `, by "${suspect.text}".`)
        : `None of ${prompts.length} prompts stands out from ${screening.harmless} harmless ones.`) +
      (cut > 0 ? ` ${cut} ${cut === 1 ? "is" : "are"} longer than the model reads, and judged by what it reads.` : ""),
    figures: [
      { name: "flagged", value: flagged, threshold: "<= 0", passed: flagged === 0, n: prompts.length },
      { name: "false_positives_allowed", value: falsePositives, n: screening.harmless },
    ],
    missing: [],
    sheets: [],
  };
};
