import { denoise, Effect, encode, locate, mask, Runtime } from "sau";

const region = Effect.gen(function* () {
  const { text } = yield* encode.run({}, { model: "model", trigger: "\u200b ", prompts: "prompts.txt" });
  const { capture } = yield* denoise.run({ text }, { steps: 12 });
  const { field } = yield* locate.run({ text, capture }, {});
  return yield* mask.run({ field }, { edge: 12 });
});
const found = await Effect.runPromise(region.pipe(Effect.provide(Runtime.layer("auto"))));
console.log(found.mask.pooled.dims);
