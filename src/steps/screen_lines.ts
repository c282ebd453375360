/** Screens prompts as they come, for logs without an end: each result is handed on before the next prompts are read. */
import { Effect, Schema, Stream } from "effect";
export { promptLines } from "../diffusion/prompt_log.ts";
import { openModel } from "./open_model.ts";
import { screen } from "./screen.ts";
import { openScreener, TOGETHER } from "./screener.ts";
import type { ScreenedPrompt, Screening } from "./screen_ports.ts";
import { StepError } from "./errors.ts";

/** Prompts that came are not kept waiting for others. */
const PATIENCE = "100 millis";

export interface Streamed {
  readonly prompts: number;
  readonly flagged: number;
  readonly evaluations: number;
}

const decode = Schema.decodeUnknownEffect(screen.settings);

/** `settings` are those of the step screen, as a user writes them; prompts come from `lines` alone. */
export const screenLines = Effect.fnUntraced(function* (
  settings: typeof screen.settings["Encoded"],
  screening: Screening,
  lines: AsyncIterable<string>,
  onResult: (result: ScreenedPrompt) => Effect.Effect<void, unknown>,
) {
  const { false_positives: falsePositives, long, anyway, ...model } = yield* decode(settings).pipe(
    Effect.mapError((cause) => new StepError({ step: "screen", cause })),
  );
  const bundle = yield* openModel(model);
  const screener = yield* openScreener(bundle, screening, { falsePositives, long, anyway });
  let prompts = 0, flagged = 0;
  yield* Stream.fromAsyncIterable(lines, (cause) => cause).pipe(
    Stream.groupedWithin(TOGETHER, PATIENCE),
    Stream.runForEach((some) =>
      Effect.gen(function* () {
        for (const result of yield* screener.screen(some)) {
          prompts++;
          if (result.flagged) flagged++;
          yield* onResult(result);
        }
      })
    ),
  );
  return { prompts, flagged, evaluations: screener.evaluations() } satisfies Streamed;
}, Effect.scoped);
