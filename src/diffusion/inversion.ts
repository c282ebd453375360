/**
 * Which tokens at an end of a prompt would change the U-Net's answer further: the gradient of a figure of the answers, through the
 * U-Net and the text encoder, down to the embeddings of those tokens, and from there to every row of the vocabulary.
 *
 * Trigger inversion asks for the input that does most (Wang et al. 2019, Neural Cleanse); for tokens, where there is
 * nothing in between two words, by the first-order change of exchanging one for another (Ebrahimi et al. 2018, HotFlip,
 * eq. 1; Shin et al. 2020, AutoPrompt, eq. 2).
 */
import { Effect } from "effect";
import { gradient, type GradientOptions, Graph, linear, matmul, mul, reduceSum, reshape } from "../graph/mod.ts";
import { type ClipTextConfig, clipTextStates, parseClipTextConfig } from "../models/clip_text.ts";
import { parseUnetConfig, unetCondition, type UnetConfig } from "../models/unet_2d_condition.ts";
import { slice0, type Tensor, zeros } from "../tensor/tensor.ts";
import type { Bundle } from "./bundle.ts";
import { BundleError } from "./errors.ts";
import { evenBatch, float32, inBatches, openSession, rows, scalar } from "./networks.ts";
import { latentDims } from "./sampler.ts";

/** Cells of latents whose backward pass is held at once; larger pictures are computed a second time in segments. */
const CELLS = 2048, SEGMENTS = 8;

/**
 * Adds to a graph which way texts would move the U-Net's answers along given directions.
 *
 * Inputs: `latents` and `along` [B, C, h, w], `context` [B, L, D], `timestep` [1].
 * Output: `towards` [B, L, D], the gradient of ⟨answer, along⟩ by the context.
 */
export const pullBack = (
  g: Graph,
  config: UnetConfig,
  [height, width]: readonly [number, number],
  batch: number,
  length: number,
  options: GradientOptions = {},
): Graph => {
  const dims = [batch, config.in_channels, height, width];
  const context = g.input("context", "float32", [batch, length, config.cross_attention_dim]);
  const { noise } = unetCondition(config)(g.weights("unet"), {
    sample: g.input("latents", "float32", dims),
    timestep: g.input("timestep", "float32", [1]),
    context,
  });
  const sum = reshape(reduceSum(mul(noise, g.input("along", "float32", dims)), [0, 1, 2, 3]), []);
  g.output("towards", gradient(g, sum, [context], options)[0]);
  return g;
};

/**
 * Adds to a graph what every token of the vocabulary would bring in the place of some.
 *
 * Inputs: `ids` int32 [B, L]; `towards` [B, L, D], a gradient by the hidden states; `chosen` [B, count, L], 1 where a row's
 * token is the text's k-th and 0 elsewhere.
 * Output: `gains` [count, V]: for each token of the text, ⟨gradient by its embedding, summed over the rows, row v of the
 * vocabulary⟩.
 */
export const exchange = (
  g: Graph,
  config: ClipTextConfig,
  batch: number,
  length: number,
  count: number,
): Graph => {
  const read = g.weights("text_encoder");
  const { tokens, hidden } = clipTextStates(config)(read, { ids: g.input("ids", "int32", [batch, length]) });
  const towards = g.input("towards", "float32", hidden.dims);
  const along = reshape(reduceSum(mul(hidden, towards), [0, 1, 2]), []);
  const [byTokens] = gradient(g, along, [tokens]);
  const chosen = g.input("chosen", "float32", [batch, count, length]);
  const own = reshape(reduceSum(matmul(chosen, byTokens), [0]), [count, config.hidden_size]);
  g.output(
    "gains",
    linear(own, read("embeddings.token_embedding.weight", [config.vocab_size, config.hidden_size])),
  );
  return g;
};

/**
 * Opens both graphs for P prompts on their latents [P, C, h, w]. The result maps ids [P][L], in which `count` positions from
 * `begins[p]` on hold the text that is looked at, their embeddings [P, L, D], and the gradient of a figure by the U-Net's
 * answers [P, C, h, w] to what tokens would bring: [count, V], to first order how much the figure grows when a position takes
 * a row of the vocabulary, up to a constant for each position.
 */
export const openSlope = Effect.fnUntraced(function* (
  bundle: Bundle,
  { latents, timestep }: { readonly latents: Tensor; readonly timestep: number },
  count: number,
) {
  const unet = parseUnetConfig(bundle.parts.unet.config);
  const text = parseClipTextConfig(bundle.parts.text_encoder.config);
  const [, height, width] = latentDims(unet);
  const length = bundle.tokenizer.maxLength, n = latents.dims[0];
  const batch = evenBatch(n, Math.max(1, Math.floor(CELLS / (height * width))), 1);
  const segments = batch * height * width > CELLS ? SEGMENTS : 1;
  const answers = yield* openSession(
    "slope of answers",
    pullBack(new Graph(), unet, [height, width], batch, length, { segments }),
    bundle,
    "unet",
  );
  const tokens = yield* openSession(
    "exchange of tokens",
    exchange(new Graph(), text, n, length, count),
    bundle,
    "text_encoder",
  );

  return Effect.fnUntraced(function* (
    ids: readonly (readonly number[])[],
    context: Tensor,
    along: Tensor,
    begins: readonly number[],
  ) {
    const towards = zeros(context.dims);
    yield* inBatches(
      answers,
      n,
      batch,
      Effect.fnUntraced(function* (begin, real) {
        const out = yield* answers.run({
          latents: rows(latents, begin, batch),
          along: rows(along, begin, batch),
          context: rows(context, begin, batch),
          timestep: scalar(timestep, [1]),
        });
        const own = slice0(yield* float32(out.towards), 0, real);
        towards.data.set(own.data, begin * (towards.data.length / n));
      }),
    );
    const data = Int32Array.from(ids.flat());
    const chosen = zeros([n, count, length]);
    begins.forEach((begin, p) => {
      for (let k = 0; k < count; k++) chosen.data[(p * count + k) * length + begin + k] = 1;
    });
    const out = yield* tokens.run({ ids: { dims: [n, length], data }, towards, chosen });
    const gains = yield* float32(out.gains);
    if (gains.data.every(Number.isFinite)) return gains;
    return yield* new BundleError({
      file: bundle.root.path,
      problem: "has a gradient that is no finite number, so texts cannot be searched for along it",
      expected: "weights whose answers and gradients are finite",
      hint: "Leave `inverted` out of `try`.",
    });
  });
});
