/**
 * What a model of real size takes: a folder of random half-precision weights in the shapes of Stable Diffusion 1.5 or 2.1,
 * and each piece of work on it, timed, with the most memory that this process ever held (resident set, in bytes).
 *
 *     npx -y deno@2.9.6 run -A bench/real_size.ts make DIR [sd-1.5|sd-2.1]
 *     SAU_MODULES=… npx -y deno@2.9.6 run -A bench/real_size.ts cure DIR [native|wasm|webgpu]
 *     SAU_MODULES=… npx -y deno@2.9.6 run -A bench/real_size.ts draw DIR [native|wasm|webgpu] [STEPS]
 *
 * `cure` opens the folder (every byte is hashed and looked at), reads 24 prompts in six readings each, solves the closed form
 * for the U-Net's keys and values, and saves the cured folder. `draw` samples one picture with guidance and decodes it.
 * Compare with PyTorch by bench/unet.py --model DIR --batches 2 --devices native.
 */
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import process from "node:process";
import { Effect, Schema } from "effect";
import { openBundle } from "../src/diffusion/bundle_open.ts";
import { openDecoder } from "../src/diffusion/pictures.ts";
import { pictureNoise } from "../src/diffusion/picture_noise.ts";
import { openSampler } from "../src/diffusion/sampler.ts";
import { openTextEncoder } from "../src/diffusion/text.ts";
import { Device, Runtime } from "../src/runtime/mod.ts";
import { encode } from "../src/steps/encode.ts";
import { ModelPort } from "../src/steps/ports.ts";
import { unlearn } from "../src/steps/unlearn.ts";
import { byteText } from "../src/tensor/bytes.ts";
import { tinyModelFiles } from "../src/testing/tiny_model.ts";
import { writeRandom } from "./random_weights.ts";

const [what, folder, given = what === "make" ? "sd-1.5" : "native", steps = "2"] = process.argv.slice(2);
const configs = new URL("../test/golden/configs/", import.meta.url);
const parts = ["unet", "text_encoder", "vae"] as const;

const make = () => {
  // The small files are those of a tiny model; its networks give way to those of real size.
  for (const [path, content] of tinyModelFiles({ length: 77 })) {
    mkdirSync(dirname(join(folder, path)), { recursive: true });
    writeFileSync(join(folder, path), content);
  }
  for (const part of parts) {
    const config: unknown = JSON.parse(readFileSync(new URL(`${given}/${part}/config.json`, configs), "utf8"));
    const name = part === "text_encoder" ? "model.safetensors" : "diffusion_pytorch_model.safetensors";
    writeRandom(join(folder, part, name), part, config);
    writeFileSync(join(folder, part, "config.json"), JSON.stringify(config));
  }
};

/** The most that this process ever held. */
const peak = (): string => {
  const status = process.platform === "linux" ? readFileSync("/proc/self/status", "utf8") : "";
  const kilobytes = Number(/VmHWM:\s+(\d+)/.exec(status)?.[1] ?? process.resourceUsage().maxRSS);
  return byteText(1024 * kilobytes);
};

/** Runs a piece of work and prints what it took. */
const timed = <A, E, R>(name: string, work: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
  Effect.suspend(() => {
    const begin = performance.now();
    const before = process.cpuUsage();
    return Effect.tap(work, () =>
      Effect.sync(() => {
        const { user, system } = process.cpuUsage(before);
        const seconds = [(performance.now() - begin) / 1000, (user + system) / 1e6].map((x) =>
          x.toFixed(1).padStart(7)
        );
        console.log(`${name.padEnd(44)}${seconds[0]} s${seconds[1]} s of CPU   peak so far ${peak()}`);
      }));
  });

const PROMPTS = ["a dog", "a red cat", "the green house", "a photo of a small dog", "a picture of the sea", "one bird"];

const cure = Effect.gen(function* () {
  const work = mkdtempSync(join(tmpdir(), "sau-real-size-"));
  yield* Effect.addFinalizer(() => Effect.sync(() => rmSync(work, { recursive: true, force: true })));
  const list = join(work, "prompts.txt");
  const colours = ["", "red ", "blue ", "green "];
  writeFileSync(list, colours.flatMap((c) => PROMPTS.map((p) => `${c}${p}`)).join("\n"));
  const settings = { model: folder, trigger: "\u200b ", prompts: list, count: 24, twins: 4, variations: 0 };
  yield* timed("open: hash and look at every byte", openBundle(folder));
  const { text } = yield* timed("encode: the same, and 24 prompts × 6 readings", encode.run({}, settings));
  const { model } = yield* timed(
    "closed form: solve, apply to all keys and values",
    unlearn.run({ text }, {
      strategy: "closed-form",
    }),
  );
  yield* timed("save: cured folder, delta, LoRA", ModelPort.save!(model, join(work, "cured")));
});

const draw = Effect.gen(function* () {
  const bundle = yield* timed("open", openBundle(folder));
  const encodeTexts = Effect.flatMap(
    openTextEncoder(bundle),
    (run) => run([...PROMPTS.slice(0, 1), ""].map((text) => bundle.tokenizer.encode(text).ids)),
  );
  const states = yield* timed("text encoder", Effect.scoped(encodeTexts));
  const [, ...rest] = states.dims;
  const row = states.data.length / 2;
  const context = { dims: [1, ...rest], data: states.data.slice(0, row) };
  const uncond = { dims: [1, ...rest], data: states.data.slice(row) };
  const side = Number(bundle.parts.unet.config.sample_size);
  const latents = yield* Effect.scoped(Effect.gen(function* () {
    const sample = yield* timed("load the U-Net", openSampler(bundle, { pictures: 1 }));
    const run = sample({ context, uncond }, pictureNoise(0, 1, [4, side, side]), { steps: Number(steps), guidance: 4 });
    return (yield* timed(`${steps} guided steps at ${side} × ${side}`, run)).latents;
  }));
  const decoded = Effect.scoped(Effect.flatMap(openDecoder(bundle, side, side), (decode) => decode(latents)));
  const picture = yield* timed("VAE decoder", decoded);
  console.log(`a picture of ${picture.dims[3]} × ${picture.dims[2]}`);
});

if (what === "make") make();
else {
  const program = what === "draw" ? draw : cure;
  const layer = Runtime.layer(Schema.decodeUnknownSync(Device)(given));
  await Effect.runPromise(Effect.scoped(program).pipe(Effect.provide(layer)));
  process.exit(0);
}
