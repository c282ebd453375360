/** CLIPTextModel of transformers: token ids to the hidden states that condition the U-Net. */
import { add, gather, linear, mul, reduceSum, reshape, slice, type Value, type WeightReader } from "../graph/mod.ts";
import { type ClipEncoderConfig, clipLayers, parseClipEncoderConfig } from "./clip_encoder.ts";
import { ConfigError, ConfigReader } from "./config.ts";
import { layerNormLayer, under } from "./layers.ts";

export interface ClipTextConfig extends ClipEncoderConfig {
  readonly vocab_size: number;
  readonly max_position_embeddings: number;
  /** The token at which a text is pooled; 2 in older configs, which means the largest id. */
  readonly eos_token_id: number;
}

/** Reads config.json of a text encoder. @throws ConfigError */
export const parseClipTextConfig = (json: unknown): ClipTextConfig => {
  const c = new ConfigReader(json);
  const config = {
    ...parseClipEncoderConfig(c, { hidden: 512, inner: 2048, heads: 8 }),
    vocab_size: c.integer("vocab_size", 49408),
    max_position_embeddings: c.integer("max_position_embeddings", 77),
    eos_token_id: c.integer("eos_token_id", 49407, 0),
  };
  if (config.hidden_size % config.num_attention_heads !== 0) {
    throw new ConfigError(
      "num_attention_heads",
      `${config.num_attention_heads} heads do not divide ${config.hidden_size}`,
    );
  }
  return config;
};

/** Hidden states of texts, [B, L, hidden_size] each. */
export interface TextStates {
  /** What the tokens bring, before their positions are added: what a search for tokens differentiates by. */
  readonly tokens: Value;
  /** After the final layer norm: what Stable Diffusion 1 and 2 condition on. */
  readonly hidden: Value;
  /** Before the last layer, without a norm: what SDXL conditions on. */
  readonly penultimate: Value;
}

/**
 * ids int32 [B, L] → hidden states. Attention is causal and sees padding, as Stable Diffusion runs it. Keys stand without
 * the `text_model.` prefix that some files add.
 */
export const clipText =
  (config: ClipTextConfig) => (weights: WeightReader, { ids }: { ids: Value }): { hidden: Value } => ({
    hidden: clipTextStates(config)(weights, { ids }).hidden,
  });

export const clipTextStates =
  (config: ClipTextConfig) => (weights: WeightReader, { ids }: { ids: Value }): TextStates => {
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
    const { last, penultimate } = clipLayers(config)(weights, add(tokens, slice(positions, 0, 0, length)), mask);
    const hidden = layerNormLayer(under(weights, "final_layer_norm."), last, config.layer_norm_eps);
    return { tokens, hidden, penultimate };
  };

/** A score that softmax turns into exactly 0, and that stays finite when added to. */
const LOWEST = -1e30;

/** hidden [B, L, D] and a one-hot float row [B, L] that marks the end of each text → its state there [B, D]. */
export const pooledAt = (hidden: Value, end: Value): Value => {
  const [batch, length, width] = hidden.dims;
  return reshape(reduceSum(mul(hidden, reshape(end, [batch, length, 1])), [1]), [batch, width]);
};

/** CLIPTextModelWithProjection, which SDXL calls text_encoder_2. Its keys have the prefix `text_model.`. */
export interface ProjectedTextConfig extends ClipTextConfig {
  /** Width of the pooled text. */
  readonly projection_dim: number;
}

/** Reads config.json of a text encoder with a projection. @throws ConfigError */
export const parseProjectedTextConfig = (json: unknown): ProjectedTextConfig => ({
  ...parseClipTextConfig(json),
  projection_dim: new ConfigReader(json).integer("projection_dim", 512),
});

/** ids int32 [B, L] and a float row [B, L] that marks each text's end → penultimate states, and pooled [B, projection_dim]. */
export const clipTextProjected =
  (config: ProjectedTextConfig) =>
  (weights: WeightReader, { ids, end }: { ids: Value; end: Value }): TextStates & { readonly pooled: Value } => {
    const states = clipTextStates(config)(under(weights, "text_model."), { ids });
    const projection = weights("text_projection.weight", [config.projection_dim, config.hidden_size]);
    return { ...states, pooled: linear(pooledAt(states.hidden, end), projection) };
  };

/** Where a text is pooled: at its first end token, or at its first largest id where the config is of the older kind. */
export const endPosition = ({ eos_token_id }: Pick<ClipTextConfig, "eos_token_id">, ids: readonly number[]): number => {
  if (eos_token_id === 2) return ids.indexOf(ids.reduce((a, b) => Math.max(a, b), 0));
  return Math.max(0, ids.indexOf(eos_token_id));
};
