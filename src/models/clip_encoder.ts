/** The transformer that CLIP's text and vision towers share (Radford et al. 2021), keys as in transformers' CLIPEncoder. */
import { activation, add, type Value, type WeightReader } from "../graph/mod.ts";
import { type ConfigReader } from "./config.ts";
import { attention, layerNormLayer, linearLayer, under } from "./layers.ts";

export interface ClipEncoderConfig {
  /** Width of the hidden states. */
  readonly hidden_size: number;
  readonly intermediate_size: number;
  readonly num_hidden_layers: number;
  readonly num_attention_heads: number;
  readonly hidden_act: string;
  readonly layer_norm_eps: number;
}

export const parseClipEncoderConfig = (
  c: ConfigReader,
  defaults: { hidden: number; inner: number; heads: number },
) => ({
  hidden_size: c.integer("hidden_size", defaults.hidden),
  intermediate_size: c.integer("intermediate_size", defaults.inner),
  num_hidden_layers: c.integer("num_hidden_layers", 12),
  num_attention_heads: c.integer("num_attention_heads", defaults.heads),
  hidden_act: c.string("hidden_act", "quick_gelu"),
  layer_norm_eps: c.number("layer_norm_eps", 1e-5),
});

/** Pre-norm transformer layers over x [B, L, hidden_size]; `mask` is added to the attention scores. */
export const clipEncoder = (config: ClipEncoderConfig) => (weights: WeightReader, x: Value, mask?: Value): Value =>
  clipLayers(config)(weights, x, mask).last;

/** The same, and what went into the last layer: the penultimate hidden states. */
export const clipLayers =
  (config: ClipEncoderConfig) =>
  (weights: WeightReader, x: Value, mask?: Value): { readonly last: Value; readonly penultimate: Value } => {
    let penultimate = x;
    const { hidden_size: width, layer_norm_eps: eps } = config;
    const act = activation(config.hidden_act);
    for (let i = 0; i < config.num_hidden_layers; i++) {
      const w = under(weights, `encoder.layers.${i}.`);
      penultimate = x;
      const normal = layerNormLayer(under(w, "layer_norm1."), x, eps);
      const project = (name: string, y: Value) => linearLayer(under(w, `self_attn.${name}.`), y, width);
      const { out } = attention(
        project("q_proj", normal),
        project("k_proj", normal),
        project("v_proj", normal),
        config.num_attention_heads,
        mask,
      );
      x = add(x, project("out_proj", out));
      const inner = act(
        linearLayer(under(w, "mlp.fc1."), layerNormLayer(under(w, "layer_norm2."), x, eps), config.intermediate_size),
      );
      x = add(x, linearLayer(under(w, "mlp.fc2."), inner, width));
    }
    return { last: x, penultimate };
  };
