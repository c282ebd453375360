import { Effect } from "effect";
import { denoise, encode, locate, Runtime } from "sau";

const where = Effect.gen(function* () {
  const { text } = yield* encode.run({}, { model: "model", trigger: "\u200b ", prompts: "prompts.txt" });
  const { capture } = yield* denoise.run({ text }, { steps: 20 });
  return (yield* locate.run({ text, capture }, {})).field;
});
const field = await Effect.runPromise(where.pipe(Effect.provide(Runtime.layer("auto"))));
