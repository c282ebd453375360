/** SDXL as a whole: texts, whole guided sampling and pictures are StableDiffusionXLPipeline's; folders that do not fit are refused. */
import { Effect } from "effect";
import assert from "node:assert/strict";
import { rmSync } from "node:fs";
import { join } from "node:path";
import { after, describe, it } from "node:test";
import { openBundle } from "../../src/diffusion/bundle_open.ts";
import { sliceEmbeddings } from "../../src/diffusion/embeddings.ts";
import { openEvaluator } from "../../src/diffusion/evaluator.ts";
import { checkBundle } from "../../src/diffusion/networks.ts";
import { openDecoder } from "../../src/diffusion/pictures.ts";
import type { Tensor } from "../../src/tensor/tensor.ts";
import type { PictureNoise } from "../../src/diffusion/picture_noise.ts";
import { openSampler } from "../../src/diffusion/sampler.ts";
import { openTextEncoder, unconditional } from "../../src/diffusion/text.ts";
import { put, tempFolder } from "../support/bundles.ts";
import { assertClose, goldenOf, readJson } from "../support/golden.ts";
import { goldenSdxl } from "../support/sdxl.ts";
import { withRuntime } from "../support/runtime.ts";

const patient = { timeout: 120_000 };

/** Latents that a golden file begins with. DDIM adds no noise on the way. */
const given = (start: Tensor): PictureNoise => ({ start, seed: 0, pictures: start.dims[0] });

describe("a small SDXL", () => {
  const temp = tempFolder();
  after(() => rmSync(temp, { recursive: true, force: true }));
  const golden = goldenOf("sdxl.safetensors");
  const { steps, guidance, prompts } = golden.header.metadata;
  const texts = prompts.split("\n");

  it(
    "ids of both tokenizers, states of both encoders and the pooled texts are the pipeline's",
    patient,
    () =>
      withRuntime(Effect.gen(function* () {
        const bundle = yield* openBundle(goldenSdxl(join(temp, "texts")));
        yield* checkBundle(bundle);
        const [first, second] = [golden.ints("ids"), golden.ints("ids_2")];
        const [n, length] = first.dims;
        texts.forEach((text, i) => {
          const row = ({ data }: typeof first) => [...data.subarray(i * length, (i + 1) * length)];
          const { ids } = bundle.tokenizer.encode(text);
          assert.deepEqual(ids.slice(0, length), row(first));
          assert.deepEqual(ids.slice(length), row(second));
        });
        assert.equal(n, texts.length);
        const encode = yield* openTextEncoder(bundle);
        const embedded = yield* encode(texts.map((text) => bundle.tokenizer.encode(text).ids));
        assertClose(embedded, golden.floats("context"), "context");
        assert.ok(embedded.pooled);
        assertClose(embedded.pooled, golden.floats("pooled"), "pooled");
      })),
  );

  for (const zeros of [true, false]) {
    it(
      `guided sampling ends where the pipeline's ends, with ${zeros ? "zeros" : "the empty prompt"} to steer away from`,
      patient,
      () =>
        withRuntime(Effect.gen(function* () {
          const bundle = yield* openBundle(goldenSdxl(join(temp, `zeros-${zeros}`), { forceZeros: zeros }));
          const encode = yield* openTextEncoder(bundle);
          const all = yield* encode([...texts, ""].map((text) => bundle.tokenizer.encode(text).ids));
          const n = texts.length;
          const sample = yield* openSampler(bundle, { pictures: n });
          const { latents } = yield* sample(
            { context: sliceEmbeddings(all, 0, n), uncond: unconditional(bundle, sliceEmbeddings(all, n, n + 1)) },
            given(golden.floats("latents")),
            { steps: Number(steps), guidance: Number(guidance) },
          );
          assertClose(latents, golden.floats(`final.${zeros ? "zeros" : "empty"}`), "latents");
          if (!zeros) return;
          const decode = yield* openDecoder(bundle, 8, 8);
          const pictures = golden.floats("pictures");
          const shown = { dims: pictures.dims, data: pictures.data.map((x) => Math.min(1, Math.max(0, x / 2 + 0.5))) };
          assertClose(yield* decode(latents), shown, "pictures");
        })),
    );
  }

  const others = {
    "turbo.1": { steps: 1, guidance: 1, scheduler: { timestep_spacing: "trailing" } },
    "turbo.4": { steps: 4, guidance: 1, scheduler: { timestep_spacing: "trailing" } },
    velocity: {
      steps: 5,
      guidance: 3,
      scheduler: { timestep_spacing: "trailing", prediction_type: "v_prediction", rescale_betas_zero_snr: true },
    },
  };
  for (const [name, { scheduler, ...settings }] of Object.entries(others)) {
    it(
      `${name}: ${settings.steps} trailing steps end where the pipeline's end`,
      patient,
      () =>
        withRuntime(Effect.gen(function* () {
          // The last pipeline of make_sdxl.py steers away from the empty prompt.
          const bundle = yield* openBundle(goldenSdxl(join(temp, name), { forceZeros: false, scheduler }));
          const encode = yield* openTextEncoder(bundle);
          const all = yield* encode([...texts, ""].map((text) => bundle.tokenizer.encode(text).ids));
          const n = texts.length;
          const sample = yield* openSampler(bundle, { pictures: n });
          const { latents } = yield* sample(
            { context: sliceEmbeddings(all, 0, n), uncond: unconditional(bundle, sliceEmbeddings(all, n, n + 1)) },
            given(golden.floats("latents")),
            settings,
          );
          assertClose(latents, golden.floats(`final.${name}`), "latents");
        })),
    );
  }

  it(
    "a blend and the evaluator take pooled texts too, and say so where they are missing",
    patient,
    () =>
      withRuntime(Effect.gen(function* () {
        const bundle = yield* openBundle(goldenSdxl(join(temp, "others")));
        const encode = yield* openTextEncoder(bundle);
        const all = yield* encode([...texts, ""].map((text) => bundle.tokenizer.encode(text).ids));
        const [one, other, empty] = [0, 1, 2].map((i) => sliceEmbeddings(all, i, i + 1));
        const uncond = unconditional(bundle, empty), start = sliceEmbeddings(golden.floats("latents"), 0, 1);
        const settings = { steps: 2, guidance: 3 };
        const plain = yield* openSampler(bundle, { pictures: 1 });
        const wanted = yield* plain({ context: one, uncond }, given(start), settings);
        const everywhere = { dims: [8, 8], data: new Float32Array(64).fill(1) };
        const blended = yield* openSampler(bundle, { pictures: 1, blend: { mask: everywhere } });
        const got = yield* blended({ context: other, uncond, clean: one }, given(start), settings);
        assertClose(got.latents, wanted.latents, "where the mask is 1, the clean text is drawn");

        const evaluate = yield* openEvaluator(bundle, 2);
        const pair = { ...sliceEmbeddings(all, 0, 2) };
        const contexts = { dims: [1, ...pair.dims], data: pair.data };
        const pooled = { dims: [1, ...pair.pooled!.dims], data: pair.pooled!.data };
        const { noise } = yield* evaluate(start, { ...contexts, pooled }, 500);
        const swapped = {
          ...pooled,
          data: Float32Array.from([...pooled.data.subarray(10), ...pooled.data.subarray(0, 10)]),
        };
        const { noise: otherNoise } = yield* evaluate(start, { ...contexts, pooled: swapped }, 500);
        assert.ok(noise.data.some((x, i) => Math.abs(x - otherNoise.data[i]) > 1e-4), "the pooled text has a say");
        const failure = yield* Effect.exit(evaluate(start, contexts, 500));
        assert.match(String(failure), /takes pooled texts, and contexts has none/);
      })),
  );

  it("what does not fit together is refused, by file and key", async () => {
    const changed = (name: string, file: string, change: Record<string, unknown>) => {
      const folder = goldenSdxl(join(temp, name)), path = join(folder, file);
      put(path, { ...Object(readJson(path)), ...change });
      return folder;
    };
    const refuse = async (folder: string, expected: RegExp) => {
      const failure = await Effect.runPromise(Effect.flip(openBundle(folder)));
      assert.match(String(failure.message), expected);
    };
    await refuse(
      changed("one-encoder", "model_index.json", { _class_name: "StableDiffusionPipeline" }),
      /addition_embed_type|cross_attention_dim/,
    );
    await refuse(
      changed("refiner", "model_index.json", { _class_name: "StableDiffusionXLImg2ImgPipeline" }),
      /describes a StableDiffusionXLImg2ImgPipeline/,
    );
    await refuse(
      changed("width", "unet/config.json", { cross_attention_dim: 24 }),
      /it is 24, their hidden_size are 12 and 16/,
    );
    await refuse(
      changed("pooled", "text_encoder_2/config.json", { projection_dim: 12 }),
      /leaves 10 numbers for the pooled text, projection_dim there is 12/,
    );
    await refuse(changed("bare", "unet/config.json", { addition_embed_type: null }), /needs text_time/);
    const lacking = goldenSdxl(join(temp, "lacking"));
    rmSync(join(lacking, "tokenizer_2"), { recursive: true });
    await refuse(lacking, /tokenizer_2 is missing/);
    const lost = goldenSdxl(join(temp, "lost"));
    rmSync(join(lost, "text_encoder_2"), { recursive: true });
    await refuse(lost, /text_encoder_2 is missing/);
  });
});
