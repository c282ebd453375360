/**
 * What it costs to capture: one evaluation of the U-Net that also gives the cross-attention of every layer (reduced in the
 * graph) against one that gives the noise alone, in turns in one process.
 *
 *     SAU_MODULES=… npx -y deno@2.9.6 run -A bench/capture.ts [native|wasm|webgpu] [MODEL] [ROUNDS]
 */
import process from "node:process";
import { fileURLToPath } from "node:url";
import { Effect, Schema } from "effect";
import { openBundle } from "../src/diffusion/bundle_open.ts";
import { openEvaluator } from "../src/diffusion/evaluator.ts";
import { latentDims } from "../src/diffusion/sampler.ts";
import { parseUnetConfig } from "../src/models/unet_2d_condition.ts";
import { Device, Runtime } from "../src/runtime/mod.ts";
import { normal } from "../src/tensor/random.ts";

const READINGS = 5;
const example = fileURLToPath(new URL("../examples/mini-sd/base", import.meta.url));
const [device = "native", model = example, rounds = "11"] = process.argv.slice(2);

const program = Effect.gen(function* () {
  const bundle = yield* openBundle(model);
  const config = parseUnetConfig(bundle.parts.unet.config);
  const prompts = model === example ? 8 : 1;
  const latents = normal(1, [prompts, ...latentDims(config)]);
  const contexts = normal(2, [prompts, READINGS, bundle.tokenizer.maxLength, config.cross_attention_dim]);
  const plain = yield* openEvaluator(bundle, READINGS, { prompts });
  const capturing = yield* openEvaluator(bundle, READINGS, { prompts, attention: true });
  const time = Effect.fnUntraced(function* (evaluate: typeof plain) {
    const begin = performance.now();
    yield* evaluate(latents, contexts, 500);
    return performance.now() - begin;
  });
  const pairs: { readonly without: number; readonly with: number }[] = [];
  for (let round = -1; round < Number(rounds); round++) {
    const first = round % 2 === 0 ? yield* time(plain) : undefined;
    const captured = yield* time(capturing);
    const without = first ?? (yield* time(plain));
    // The first round warms both up.
    if (round >= 0) pairs.push({ without, with: captured });
  }
  const middle = (values: readonly number[]) => values.toSorted((a, b) => a - b)[values.length >> 1];
  const [without, captured] = [middle(pairs.map((p) => p.without)), middle(pairs.map((p) => p.with))];
  console.log(
    `${prompts} prompts × ${READINGS} readings on ${device}, medians of ${pairs.length}: noise alone ` +
      `${without.toFixed(1)} ms, with attention ${captured.toFixed(1)} ms, ratio ` +
      `${middle(pairs.map((p) => p.with / p.without)).toFixed(3)}`,
  );
});
const layer = Runtime.layer(Schema.decodeUnknownSync(Device)(device));
await Effect.runPromise(program.pipe(Effect.scoped, Effect.provide(layer)));
process.exit(0);
