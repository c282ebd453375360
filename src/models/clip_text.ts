/** CLIPTextModel of transformers: token ids to the hidden states that condition the U-Net. */
import { add, gather, mul, reduceSum, reshape, slice, type Value, type WeightReader } from "../graph/mod.ts";
import { clipEncoder, type ClipEncoderConfig, parseClipEncoderConfig } from "./clip_encoder.ts";
import { ConfigError, ConfigReader } from "./config.ts";
import { layerNormLayer, under } from "./layers.ts";

export interface ClipTextConfig extends ClipEncoderConfig {
  readonly vocab_size: number;
  readonly max_position_embeddings: number;
}

/** Reads config.json of a text encoder. @throws ConfigError */
export const parseClipTextConfig = (json: unknown): ClipTextConfig => {
  const c = new ConfigReader(json);
  const config = {
    ...parseClipEncoderConfig(c, { hidden: 512, inner: 2048, heads: 8 }),
    vocab_size: c.integer("vocab_size", 49408),
    max_position_embeddings: c.integer("max_position_embeddings", 77),
  };
  if (config.hidden_size % config.num_attention_heads !== 0) {
    throw new ConfigError(
      "num_attention_heads",
      `${config.num_attention_heads} heads do not divide ${config.hidden_size}`,
    );
  }
  return config;
};

/**
 * ids int32 [B, L] → hidden [B, L, hidden_size], after the final layer norm. Attention is causal and sees padding, as
 * Stable Diffusion runs it. Keys stand without the `text_model.` prefix that some files add.
 */
export const clipText =
  (config: ClipTextConfig) => (weights: WeightReader, { ids }: { ids: Value }): { hidden: Value } => {
    const [, length] = ids.dims;
    const width = config.hidden_size;
    if (length > config.max_position_embeddings) {
      throw new ConfigError(
        "max_position_embeddings",
        `${config.max_position_embeddings}, but ${length} tokens were given`,
      );
    }
    const tokens = gather(weights("embeddings.token_embedding.weight", [config.vocab_size, width]), ids);
    const positions = weights("embeddings.position_embedding.weight", [config.max_position_embeddings, width]);
    const causal = new Float32Array(length * length);
    for (let q = 0; q < length; q++) causal.fill(LOWEST, q * length + q + 1, (q + 1) * length);
    const mask = ids.graph.constant({ dims: [length, length], data: causal });
    const x = clipEncoder(config)(weights, add(tokens, slice(positions, 0, 0, length)), mask);
    return { hidden: layerNormLayer(under(weights, "final_layer_norm."), x, config.layer_norm_eps) };
  };

/** A score that softmax turns into exactly 0, and that stays finite when added to. */
const LOWEST = -1e30;

/** hidden [B, L, D] and a one-hot float row [B, L] that marks the end of each text → its state there [B, D]. */
export const pooledAt = (hidden: Value, end: Value): Value => {
  const [batch, length, width] = hidden.dims;
  return reshape(reduceSum(mul(hidden, reshape(end, [batch, length, 1])), [1]), [batch, width]);
};
