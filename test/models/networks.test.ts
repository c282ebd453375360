/** The networks of a real checkpoint, and whole guided sampling, answer as diffusers and transformers do. */
import { describe, it } from "node:test";
import { existsSync } from "node:fs";
import { join } from "node:path";
import assert from "node:assert/strict";
import { autoencoderKl, parseAutoencoderKlConfig } from "../../src/models/autoencoder_kl.ts";
import { clipImageFeatures, clipTextFeatures, parseClipConfig } from "../../src/models/clip.ts";
import { clipText, parseClipTextConfig } from "../../src/models/clip_text.ts";
import { parseUnetConfig, unetCondition } from "../../src/models/unet_2d_condition.ts";
import { Schema } from "effect";
import { SchedulerConfig } from "../../src/diffusion/scheduler.ts";
import { ddim } from "../../src/diffusion/schedules/ddim.ts";
import { concat0, slice0, type Tensor } from "../../src/tensor/tensor.ts";
import { endOf } from "../support/clip.ts";
import { assertClose, base, goldenOf, missing, model, network, readJson, Stored } from "../support/golden.ts";

/** Bun gives a test five seconds where none are said. */
const options = { skip: missing, timeout: 120_000 };
const withoutClip = existsSync(join(model, "clip")) ? false : `no clip/ in ${model}`;

const part = (folder: string, file: string) => ({
  config: readJson(join(folder, "config.json")),
  weights: new Stored(join(folder, file)),
});
const textEncoder = () => part(join(base, "text_encoder"), "model.safetensors");
const unet = () => part(join(base, "unet"), "diffusion_pytorch_model.safetensors");
const vae = () => part(join(base, "vae"), "diffusion_pytorch_model.safetensors");

/** Text encoder for a batch of token ids. */
const textNetwork = ({ config, weights }: ReturnType<typeof part>, dims: readonly number[]) =>
  network(
    { text_encoder: weights },
    (graph, read) =>
      clipText(parseClipTextConfig(config))(read("text_encoder"), { ids: graph.input("ids", "int32", dims) }),
  );

interface UnetDims {
  readonly sample: readonly number[];
  readonly timestep: readonly number[];
  readonly context: readonly number[];
}

const unetNetwork = ({ config, weights }: ReturnType<typeof part>, dims: UnetDims, taps: readonly string[] = []) =>
  network({ unet: weights }, (graph, read) => {
    const { noise, attention } = unetCondition(parseUnetConfig(config))(read("unet"), {
      sample: graph.input("sample", "float32", dims.sample),
      timestep: graph.input("timestep", "float32", dims.timestep),
      context: graph.input("context", "float32", dims.context),
    });
    const chosen = attention.filter((a) => taps.includes(a.name));
    return { noise, ...Object.fromEntries(chosen.map((a) => [a.name, a.probabilities])) };
  });

describe("networks of a checkpoint", () => {
  it("text encoder: hidden states are transformers'", options, async () => {
    const text = textEncoder();
    const golden = goldenOf("networks/text.safetensors", { text_encoder: text.weights });
    const ids = golden.ints("ids");
    const encoder = await textNetwork(text, ids.dims);
    const { hidden } = await encoder.run({ ids });
    await encoder.release();
    assertClose(hidden, golden.floats("hidden"), "hidden");
  });

  it(
    "U-Net: noise at early, middle and late times and with two times in a batch, and attention, are diffusers'",
    options,
    async () => {
      const parts = unet();
      const golden = goldenOf("networks/unet.safetensors", { unet: parts.weights });
      const [sample, context, times] = ["sample", "context", "timesteps"].map((key) => golden.floats(key));
      const prefix = "attention.";
      const taps = golden.keys.filter((key) => key.startsWith(prefix)).map((key) => key.slice(prefix.length));
      assert.ok(taps.length > 1);
      const shared = await unetNetwork(parts, { sample: sample.dims, timestep: [1], context: context.dims }, taps);
      for (let i = 0; i < times.dims[0]; i++) {
        const results = await shared.run({ sample, context, timestep: slice0(times, i, i + 1) });
        assertClose(results.noise, golden.floats(`noise.${i}`), `noise.${i}`);
        if (i === 1) {
          for (const name of taps) assertClose(slice0(results[name], 0, 1), golden.floats(`${prefix}${name}`), name);
        }
      }
      await shared.release();
      const each = await unetNetwork(parts, { sample: sample.dims, timestep: [2], context: context.dims });
      const mixed = await each.run({
        sample,
        context,
        timestep: { dims: [2], data: Float32Array.of(times.data[0], times.data[2]) },
      });
      await each.release();
      assertClose(mixed.noise, golden.floats("noise.mixed"), "noise.mixed");
    },
  );

  it("VAE: moments and pixels are diffusers'", options, async () => {
    const { config, weights } = vae();
    const golden = goldenOf("networks/vae.safetensors", { vae: weights });
    const pixels = golden.floats("pixels");
    const { encode, decode } = autoencoderKl(parseAutoencoderKlConfig(config));
    const session = await network({ vae: weights }, (graph, read) => {
      const { mean, logvar } = encode(read("vae"), graph.input("pixels", "float32", pixels.dims));
      return { mean, logvar, decoded: decode(read("vae"), mean) };
    });
    const results = await session.run({ pixels });
    await session.release();
    for (const key of ["mean", "logvar"]) assertClose(results[key], golden.floats(key), key);
    assertClose(slice0(results.decoded, 0, 1), golden.floats("decoded"), "decoded");
  });

  it(
    "scoring CLIP: features of texts and pictures are transformers'",
    { ...options, skip: missing || withoutClip },
    async () => {
      const { config, weights } = part(join(model, "clip"), "model.safetensors");
      const golden = goldenOf("networks/clip.safetensors", { clip: weights });
      const [ids, pixels] = [golden.ints("ids"), golden.floats("pixels")];
      const { eos_token_id } = readJson(join(base, "text_encoder/config.json")) as { eos_token_id: number };
      const end = endOf(ids, eos_token_id);
      const clip = await network({ clip: weights }, (graph, read) => ({
        text: clipTextFeatures(parseClipConfig(config))(read("clip"), {
          ids: graph.input("ids", "int32", ids.dims),
          end: graph.input("end", "float32", end.dims),
        }),
        image: clipImageFeatures(parseClipConfig(config))(read("clip"), {
          pixels: graph.input("pixels", "float32", pixels.dims),
        }),
      }));
      const results = await clip.run({ ids, end, pixels });
      await clip.release();
      for (const key of ["text", "image"]) assertClose(results[key], golden.floats(key), key);
    },
  );
});

/** Guided DDIM sampling spelt out on the host: what the fused step of src/diffusion must come to as well. */
const sample = async (
  predict: (latents: Tensor, timestep: number) => Promise<Tensor>,
  start: Tensor,
  steps: number,
  guidance: number,
): Promise<Tensor> => {
  const config = Schema.decodeUnknownSync(SchedulerConfig)(readJson(join(base, "scheduler/scheduler_config.json")));
  const n = start.data.length;
  let latents = start;
  for (const { timestep, x, answer } of ddim(config).plan(steps).steps) {
    const noise = (await predict(latents, timestep)).data;
    const guided = (k: number) => noise[k] + guidance * (noise[n + k] - noise[k]);
    latents = { dims: start.dims, data: latents.data.map((v, k) => x * v + answer * guided(k)) };
  }
  return latents;
};

describe("whole sampling", () => {
  it("12 guided DDIM steps from ids to picture end where StableDiffusionPipeline's end", options, async () => {
    const [text, net, auto] = [textEncoder(), unet(), vae()];
    const golden = goldenOf("networks/sampling.safetensors", {
      text_encoder: text.weights,
      unet: net.weights,
      vae: auto.weights,
    });
    const [start, prompts, empty] = [golden.floats("latents"), golden.ints("ids"), golden.ints("empty")];
    const ids = { dims: [3, prompts.dims[1]], data: Int32Array.of(...empty.data, ...prompts.data) };
    const encoder = await textNetwork(text, ids.dims);
    const { hidden } = await encoder.run({ ids });
    await encoder.release();
    const none = slice0(hidden, 0, 1);
    const context = concat0([none, none, slice0(hidden, 1, 3)]);

    const dims = { sample: [4, ...start.dims.slice(1)], timestep: [1], context: context.dims };
    const session = await unetNetwork(net, dims);
    const { steps, guidance } = golden.header.metadata;
    const final = await sample(
      async (latents, t) => {
        const timestep = { dims: [1], data: Float32Array.of(t) };
        return (await session.run({ sample: concat0([latents, latents]), timestep, context })).noise;
      },
      start,
      Number(steps),
      Number(guidance),
    );
    await session.release();
    assertClose(final, golden.floats("final"), "latents");

    const config = parseAutoencoderKlConfig(auto.config);
    const decoder = await network({ vae: auto.weights }, (graph, read) => ({
      pixels: autoencoderKl(config).decode(read("vae"), graph.input("latents", "float32", final.dims)),
    }));
    const { pixels } = await decoder.run({
      latents: { dims: final.dims, data: final.data.map((v) => v / config.scaling_factor) },
    });
    await decoder.release();
    assertClose(pixels, golden.floats("pictures"), "pictures");
  });
});
