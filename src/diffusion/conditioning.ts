/** What a model's U-Net is given besides latents and the states of texts: for SDXL pooled texts and the picture's size. */
import type { Graph, Value } from "../graph/mod.ts";
import { latentFactor, parseAutoencoderKlConfig } from "../models/autoencoder_kl.ts";
import { parseUnetConfig, SIZE_NUMBERS, type UnetConfig } from "../models/unet_2d_condition.ts";
import type { Tensor } from "../tensor/tensor.ts";
import type { Bundle } from "./bundle.ts";
import type { Embeddings } from "./embeddings.ts";

/** Side of the pictures that a model draws here, in pixels: of those it was trained on. */
export const pictureSide = ({ parts }: Bundle): number =>
  parseUnetConfig(parts.unet.config).sample_size * latentFactor(parseAutoencoderKlConfig(parts.vae.config));

/**
 * SDXL's numbers [1, 6]: the picture was as large when it came, nothing was cropped off, and it is to be as large, as
 * StableDiffusionXLPipeline has it by default. Undefined where the U-Net takes none.
 */
export const sizesOf = (bundle: Bundle): Tensor | undefined => {
  if (parseUnetConfig(bundle.parts.unet.config).addition === undefined) return undefined;
  const side = pictureSide(bundle);
  return { dims: [1, SIZE_NUMBERS], data: Float32Array.of(side, side, 0, 0, side, side) };
};

/** An input [...first, Q] for pooled texts; undefined where the U-Net takes none. */
export const pooledInput = (
  g: Graph,
  { addition }: UnetConfig,
  name: string,
  first: readonly number[],
): Value | undefined => addition === undefined ? undefined : g.input(name, "float32", [...first, addition.pooled]);

/** What unetCondition takes besides, of pooled texts [B, Q] and {@link sizesOf}. */
export const addedOf = (g: Graph, pooled: Value | undefined, sizes: Tensor | undefined) =>
  pooled === undefined || sizes === undefined ? {} : { added: { pooled, sizes: g.constant(sizes) } };

/**
 * Feeds of texts by input name, with their pooled form where the U-Net takes one.
 * @throws TypeError when a U-Net that takes pooled texts is given texts without
 */
export const textFeedsOf = (
  { addition }: UnetConfig,
  texts: Readonly<Record<string, readonly [pooledName: string, texts: Embeddings]>>,
): Record<string, Tensor> => {
  const feeds: Record<string, Tensor> = {};
  for (const [name, [pooledName, { dims, data, pooled }]] of Object.entries(texts)) {
    feeds[name] = { dims, data };
    if (addition === undefined) continue;
    if (pooled === undefined) throw new TypeError(`the U-Net takes pooled texts, and ${name} has none`);
    feeds[pooledName] = pooled;
  }
  return feeds;
};
