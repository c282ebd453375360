/** CLIPVisionModel of transformers: pixels to picture features. */
import { add, concat, conv2d, expand, reshape, slice, transpose, type Value, type WeightReader } from "../graph/mod.ts";
import { clipEncoder, type ClipEncoderConfig, parseClipEncoderConfig } from "./clip_encoder.ts";
import { ConfigError, ConfigReader } from "./config.ts";
import { layerNormLayer, under } from "./layers.ts";

export interface ClipVisionConfig extends ClipEncoderConfig {
  readonly num_channels: number;
  /** Side of the square picture in pixels. */
  readonly image_size: number;
  readonly patch_size: number;
}

/** Reads the vision part of a CLIP config. @throws ConfigError */
export const parseClipVisionConfig = (json: unknown): ClipVisionConfig => {
  const c = new ConfigReader(json);
  const config = {
    ...parseClipEncoderConfig(c, { hidden: 768, inner: 3072, heads: 12 }),
    num_channels: c.integer("num_channels", 3),
    image_size: c.integer("image_size", 224),
    patch_size: c.integer("patch_size", 32),
  };
  if (config.image_size % config.patch_size !== 0) {
    throw new ConfigError("patch_size", `${config.patch_size} does not divide image_size ${config.image_size}`);
  }
  return config;
};

/** pixels [B, 3, image_size, image_size], normalised as the preprocessor says → pooled [B, hidden_size]. */
export const clipVision =
  (config: ClipVisionConfig) => (weights: WeightReader, { pixels }: { pixels: Value }): { pooled: Value } => {
    const { hidden_size: width, patch_size: patch, layer_norm_eps: eps } = config;
    const [batch] = pixels.dims;
    const w = under(weights, "embeddings.");
    const grid = conv2d(pixels, w("patch_embedding.weight", [width, config.num_channels, patch, patch]), undefined, {
      stride: patch,
    });
    const patches = transpose(reshape(grid, [batch, width, -1]), [0, 2, 1]);
    const first = expand(reshape(w("class_embedding", [width]), [1, 1, width]), [batch, 1, width]);
    const tokens = concat([first, patches], 1);
    const embedded = add(tokens, w("position_embedding.weight", [tokens.dims[1], width]));
    // "pre_layrnorm" is how the checkpoint spells it.
    const hidden = clipEncoder(config)(weights, layerNormLayer(under(weights, "pre_layrnorm."), embedded, eps));
    const pooled = reshape(slice(hidden, 1, 0, 1), [batch, width]);
    return { pooled: layerNormLayer(under(weights, "post_layernorm."), pooled, eps) };
  };
