/**
 * Which tokens before a prompt would change the U-Net's answer further: the gradient of how far the answer moves, through
 * the U-Net and the text encoder, down to the embeddings of those tokens, and from there to every row of the vocabulary.
 *
 * Trigger inversion asks for the input that does most (Wang et al. 2019, Neural Cleanse); for tokens, where there is
 * nothing in between two words, by the first-order change of exchanging one for another (Ebrahimi et al. 2018, HotFlip,
 * eq. 1; Shin et al. 2020, AutoPrompt, eq. 2).
 */
import { Effect } from "effect";
import {
  add,
  div,
  gradient,
  type GradientOptions,
  Graph,
  linear,
  log,
  mul,
  reduceMean,
  reduceSum,
  reshape,
  slice,
  sub,
} from "../graph/mod.ts";
import { type ClipTextConfig, clipTextStates, parseClipTextConfig } from "../models/clip_text.ts";
import { parseUnetConfig, unetCondition, type UnetConfig } from "../models/unet_2d_condition.ts";
import { slice0, type Tensor, zeros } from "../tensor/tensor.ts";
import type { Bundle } from "./bundle.ts";
import { BundleError } from "./errors.ts";
import { evenBatch, float32, inBatches, openSession, rows, scalar } from "./networks.ts";
import { latentDims } from "./sampler.ts";

/** Squared noise below this fraction of the answer's own cannot be told from rounding. */
const FLOOR = 1e-6;
/** Cells of latents whose backward pass is held at once; larger pictures are computed a second time in segments. */
const CELLS = 2048, SEGMENTS = 8;

/**
 * Adds to a graph how far the U-Net's answers move, and which way texts would move them further.
 *
 * Inputs: `latents` and `clean` (the answers to the prompts as they are) [B, C, h, w], `context` [B, L, D], `timestep` [1].
 * Outputs: `moved` [B], ln(mean (answer − clean)² + floor · mean clean²); `towards` [B, L, D], its gradient by the context.
 */
export const movement = (
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
  const clean = g.input("clean", "float32", dims);
  const apart = sub(noise, clean);
  const power = mul(reduceMean(mul(clean, clean), [1, 2, 3]), FLOOR);
  const moved = log(add(reduceMean(mul(apart, apart), [1, 2, 3]), power));
  g.output("moved", reshape(moved, [batch]));
  g.output("towards", gradient(g, reshape(reduceSum(moved, [0, 1, 2, 3]), []), [context], options)[0]);
  return g;
};

/**
 * Adds to a graph what every token of the vocabulary would bring in the place of some.
 *
 * Inputs: `ids` int32 [B, L]; `towards` [B, L, D], a gradient by the hidden states.
 * Output: `gains` [count, V]: for positions 1 to `count`, ⟨gradient by the token's embedding, summed over the rows, row v of
 * the vocabulary⟩.
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
  const own = reshape(reduceSum(slice(byTokens, 1, 1, 1 + count), [0]), [count, config.hidden_size]);
  g.output(
    "gains",
    linear(div(own, batch), read("embeddings.token_embedding.weight", [config.vocab_size, config.hidden_size])),
  );
  return g;
};

/** One look at a text: how far it moves the answers, and what exchanging tokens would bring. */
export interface Slope {
  /** Mean over prompts of ln of the mean squared change. */
  readonly moved: number;
  /** [count, V]: to first order, how much `moved` grows when a position takes a row, up to a constant for each position. */
  readonly gains: Tensor;
}

/**
 * Opens both graphs for `prompts` prompts on their latents [P, C, h, w]. The result maps ids [P][L], in which the
 * positions 1 to `count` hold the text that is looked at, and their embeddings [P, L, D] to a {@link Slope}.
 * @param clean the U-Net's answers to the prompts as they are, [P, C, h, w]
 */
export const openSlope = Effect.fnUntraced(function* (
  bundle: Bundle,
  { latents, clean, timestep }: { readonly latents: Tensor; readonly clean: Tensor; readonly timestep: number },
  count: number,
) {
  const unet = parseUnetConfig(bundle.parts.unet.config);
  const text = parseClipTextConfig(bundle.parts.text_encoder.config);
  const [, height, width] = latentDims(unet);
  const length = bundle.tokenizer.maxLength, n = latents.dims[0];
  const batch = evenBatch(n, Math.max(1, Math.floor(CELLS / (height * width))), 1);
  const segments = batch * height * width > CELLS ? SEGMENTS : 1;
  const answers = yield* openSession(
    "answers and their slope",
    movement(new Graph(), unet, [height, width], batch, length, { segments }),
    bundle,
    "unet",
  );
  const tokens = yield* openSession(
    "exchange of tokens",
    exchange(new Graph(), text, n, length, count),
    bundle,
    "text_encoder",
  );

  return Effect.fnUntraced(function* (ids: readonly (readonly number[])[], context: Tensor) {
    const towards = zeros(context.dims), moved = new Float32Array(n);
    yield* inBatches(
      answers,
      n,
      batch,
      Effect.fnUntraced(function* (begin, real) {
        const out = yield* answers.run({
          latents: rows(latents, begin, batch),
          clean: rows(clean, begin, batch),
          context: rows(context, begin, batch),
          timestep: scalar(timestep, [1]),
        });
        moved.set((yield* float32(out.moved)).data.subarray(0, real), begin);
        towards.data.set(
          slice0(yield* float32(out.towards), 0, real).data,
          begin * (towards.data.length / n),
        );
      }),
    );
    const data = Int32Array.from(ids.flat());
    const out = yield* tokens.run({ ids: { dims: [n, length], data }, towards });
    const gains = yield* float32(out.gains);
    if (![...moved, ...gains.data].every(Number.isFinite)) {
      return yield* new BundleError({
        file: bundle.root.path,
        problem: "has a slope that is no finite number, so texts cannot be searched for along it",
        expected: "weights whose answers and gradients are finite",
        hint: "Leave `inverted` out of `try`.",
      });
    }
    return { moved: moved.reduce((a, b) => a + b, 0) / n, gains } satisfies Slope;
  });
});
