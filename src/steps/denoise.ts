/**
 * denoise: samples the clean reading of each prompt and, at chosen steps, asks the U-Net about every reading on the same
 * latents. Since nothing but the text differs, what differs in the answers is what the text does.
 */
import { Effect, Schema } from "effect";
import { openEvaluator } from "../diffusion/evaluator.ts";
import { eachEmbedding, type Embeddings, splitEmbeddings } from "../diffusion/embeddings.ts";
import { withToken } from "../diffusion/tokenizer_pair.ts";
import { latentDims, openSampler } from "../diffusion/sampler.ts";
import { pictureNoise } from "../diffusion/picture_noise.ts";
import { planFor } from "../diffusion/plan.ts";
import { openTextEncoder } from "../diffusion/text.ts";
import { parseUnetConfig } from "../models/unet_2d_condition.ts";
import { concat0, size, type Tensor, zeros } from "../tensor/tensor.ts";
import { seedOf } from "../tensor/random.ts";
import { type Capture, FIRST_TWIN, type TokenAblation, TRIGGERED } from "./capture.ts";
import { CapturePort, type TextPairs, TextPort } from "./ports.ts";
import { report } from "./progress.ts";
import { defaulted, Fraction, Scheduler, Seed, Steps } from "./settings.ts";
import { Step } from "./step.ts";

export const denoise = Step.make("denoise", {
  version: 1,
  description: "Samples each prompt and captures how the U-Net answers its three readings on the same latents.",
  settings: Schema.Struct({
    steps: Steps,
    scheduler: Scheduler,
    guidance: defaulted(
      Schema.Finite.annotate({ description: "Classifier-free guidance scale of the sampled clean reading." }),
      4,
    ),
    seed: Seed,
    at: defaulted(
      Schema.Array(Fraction).check(Schema.isMinLength(1)).annotate({
        description:
          "Where along the sampling the readings are compared: 0 is the first step (pure noise), 1 the last.",
      }),
      [0.2, 0.45, 0.7],
    ),
    attention: defaulted(
      Schema.Boolean.annotate({ description: "Capture cross-attention too, for the scores per layer." }),
      true,
    ),
    tokens: defaulted(
      Schema.Int.annotate({
        description: "Prompts of which every token is tried without, for the score per token; 0 for none.",
      }),
      4,
    ),
  }),
  inputs: { text: TextPort },
  outputs: { capture: CapturePort },
  run: Effect.fnUntraced(function* ({ text }, settings) {
    const { model, embeddings } = text;
    const [prompts, readings] = embeddings.dims;
    const config = parseUnetConfig(model.bundle.parts.unet.config);
    const dims = latentDims(config);
    const beginning = pictureNoise(seedOf(settings.seed, "denoise", "noise"), prompts, dims);
    const timesteps = (yield* planFor(model.bundle, settings)).steps.map((step) => step.timestep);
    const indices = [...new Set(settings.at.map((x) => Math.round(x * (timesteps.length - 1))))].sort((a, b) => a - b);
    const work = prompts * timesteps.length;

    const captured = yield* Effect.scoped(Effect.gen(function* () {
      const sample = yield* openSampler(model.bundle, { pictures: prompts, scheduler: settings.scheduler });
      const result = yield* sample({ context: readingRows(embeddings, 0), uncond: text.empty }, beginning, {
        steps: settings.steps,
        guidance: settings.guidance,
        capture: indices,
        onStep: (done) => report({ done, total: work * 2, note: "sampling the clean reading" }),
      });
      return result.captured;
    }));

    const evaluated = yield* Effect.scoped(Effect.gen(function* () {
      const evaluate = yield* openEvaluator(model.bundle, readings, { prompts, attention: settings.attention });
      const results = [];
      for (const [i, index] of indices.entries()) {
        yield* report({
          done: work + (work * i) / indices.length / 2,
          total: work * 2,
          note: "comparing the readings",
        });
        results.push(yield* evaluate(captured[i], embeddings, timesteps[index]));
      }
      return results;
    }));

    const at = indices.map((i) => timesteps[i]);
    const latents = stack(captured);
    const noise = stack(evaluated.map((e) => e.noise));
    const ablated = yield* ablateTokens(
      text,
      latents,
      noise,
      at,
      settings.tokens,
      (share) => report({ done: work * (1.5 + share / 2), total: work * 2, note: "trying each token without" }),
    );

    return {
      capture: {
        timesteps: at,
        latents,
        noise,
        layers: evaluated[0].layers.map(({ layer }, i) => ({
          layer,
          maps: reshaped(mean(evaluated.map((e) => e.layers[i].maps)), [prompts, readings]),
          response: mean(evaluated.map((e) => e.layers[i].response)),
        })),
        ...ablated,
      } satisfies Capture,
    };
  }),
});

/** Reading r of every prompt: [P, R, L, D] → [P, L, D]. */
export const readingRows = (embeddings: Embeddings, r: number): Embeddings =>
  eachEmbedding(embeddings, ({ dims: [prompts, readings, ...rest], data: all }) => {
    const row = size(rest);
    const data = new Float32Array(prompts * row);
    for (let p = 0; p < prompts; p++) {
      const at = (p * readings + r) * row;
      data.set(all.subarray(at, at + row), p * row);
    }
    return { dims: [prompts, ...rest], data };
  });

/** Equal tensors as one with a new first axis. */
const stack = (parts: readonly Tensor[]): Tensor => concat0(parts.map((t) => ({ dims: [1, ...t.dims], data: t.data })));

const mean = (parts: readonly Tensor[]): Tensor => {
  const out = zeros(parts[0].dims);
  for (const t of parts) t.data.forEach((x, i) => out.data[i] += x / parts.length);
  return out;
};

/** Splits the first axis. */
const reshaped = (t: Tensor, first: readonly number[]): Tensor => ({
  dims: [...first, ...t.dims.slice(1)],
  data: t.data,
});

/**
 * Puts a harmless token in the place of each token of the first `count` triggered prompts, and of their first twins,
 * and measures what that changes in the predicted noise, per cell and averaged over the captured steps. The answers to
 * the whole readings are in `noise` already.
 */
const ablateTokens = Effect.fnUntraced(function* <E, R>(
  text: TextPairs,
  latents: Tensor,
  noise: Tensor,
  timesteps: readonly number[],
  count: number,
  progress: (share: number) => Effect.Effect<void, E, R>,
) {
  const [, , readings, channels, h, w] = noise.dims;
  const tokens: TokenAblation[] = [];
  const texts: (readonly number[])[] = [];
  for (const [p, prompt] of text.prompts.slice(0, text.substitute === undefined ? 0 : count).entries()) {
    const end = prompt.triggered.ids.indexOf(text.model.bundle.tokenizer.eos);
    for (let position = 1; position < end; position++) {
      tokens.push({
        prompt: p,
        position,
        piece: prompt.triggered.content[position - 1].text,
        ofTrigger: position >= prompt.span[0] && position < prompt.span[1],
      });
      for (const { ids } of [prompt.triggered, prompt.twins[0]]) {
        texts.push(withToken(ids, position, text.substitute!, text.model.bundle.tokenizer.maxLength));
      }
    }
  }
  const triggered = zeros([tokens.length, h, w]);
  const twin = zeros([tokens.length, h, w]);
  if (tokens.length === 0) return { tokens, tokenChange: { triggered, twin } };

  const flat = yield* Effect.scoped(Effect.flatMap(openTextEncoder(text.model.bundle), (encode) => encode(texts)));
  const contexts = splitEmbeddings(flat, [tokens.length, 2]);
  const size = channels * h * w;
  yield* Effect.scoped(Effect.gen(function* () {
    const evaluate = yield* openEvaluator(text.model.bundle, 2, { prompts: tokens.length });
    for (const [s, timestep] of timesteps.entries()) {
      yield* progress(s / timesteps.length);
      const at = (t: Tensor, row: number) => ({
        dims: [1, channels, h, w],
        data: t.data.subarray(row * size, (row + 1) * size),
      });
      const own = concat0(tokens.map(({ prompt }) => at(latents, s * latents.dims[1] + prompt)));
      const without = (yield* evaluate(own, contexts, timestep)).noise;
      for (const [i, { prompt }] of tokens.entries()) {
        const whole = (reading: number) => at(noise, (s * noise.dims[1] + prompt) * readings + reading);
        const add = (into: Tensor, a: Tensor, b: Tensor) => {
          for (let j = 0; j < size; j++) {
            into.data[i * h * w + (j % (h * w))] += (a.data[j] - b.data[j]) ** 2 / channels / timesteps.length;
          }
        };
        add(triggered, whole(TRIGGERED), at(without, 2 * i));
        add(twin, whole(FIRST_TWIN), at(without, 2 * i + 1));
      }
    }
  }));
  return { tokens, tokenChange: { triggered, twin } };
});
