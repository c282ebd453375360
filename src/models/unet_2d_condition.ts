/** UNet2DConditionModel of diffusers: predicts the noise in latents, given the time and the text. */
import {
  activation,
  add,
  concat,
  expand,
  gelu,
  type Graph,
  mul,
  reshape,
  silu,
  sinCos,
  slice,
  transpose,
  upsampleNearest,
  type Value,
  type WeightReader,
} from "../graph/mod.ts";
import { ConfigError, ConfigReader } from "./config.ts";
import { attention, convLayer, groupNormLayer, layerNormLayer, linearLayer, under } from "./layers.ts";
import { resnetBlock } from "./resnet.ts";

/** One resolution of the U-Net; every number is for that block alone. */
export interface UnetBlockConfig {
  readonly channels: number;
  readonly layers: number;
  readonly heads: number;
  /** Transformer layers in each attention, 0 where the block has none. */
  readonly transformers: number;
  readonly crossAttentionDim: number;
}

export interface UnetConfig {
  readonly in_channels: number;
  readonly out_channels: number;
  /** Side of the latents the model was trained on, in cells. */
  readonly sample_size: number;
  readonly down: readonly UnetBlockConfig[];
  readonly up: readonly UnetBlockConfig[];
  readonly mid: UnetBlockConfig;
  readonly cross_attention_dim: number;
  readonly norm_num_groups: number;
  readonly norm_eps: number;
  readonly act_fn: string;
  readonly use_linear_projection: boolean;
  readonly flip_sin_to_cos: boolean;
  readonly freq_shift: number;
  readonly downsample_padding: number;
  readonly mid_block_scale_factor: number;
  /** SDXL's further condition, where the model has one. */
  readonly addition?: AdditionConfig;
}

/** `addition_embed_type: text_time` (Podell et al. 2023, §2.2): the pooled text and numbers about the picture's size. */
export interface AdditionConfig {
  /** Width of the pooled text. */
  readonly pooled: number;
  /** Width of each number's sinusoids. */
  readonly width: number;
}

/** Numbers that `text_time` takes: original height and width, crop's top and left, target height and width, in pixels. */
export const SIZE_NUMBERS = 6;

const BLOCKS: Readonly<Record<string, boolean>> = {
  CrossAttnDownBlock2D: true,
  DownBlock2D: false,
  CrossAttnUpBlock2D: true,
  UpBlock2D: false,
};

/** Reads config.json of a U-Net. @throws ConfigError for what the graph cannot build. */
export const parseUnetConfig = (json: unknown): UnetConfig => {
  const c = new ConfigReader(json);
  c.only(
    "addition_embed_type",
    ["text_time"],
    "of added conditions, pooled text and sizes (text_time) alone are built",
  );
  c.only("class_embed_type", [], "class embeddings are not built");
  c.only("num_class_embeds", [], "class embeddings are not built");
  c.only("encoder_hid_dim_type", [], "projected text states are not built");
  c.only("time_embedding_type", ["positional"], "only the positional time embedding is built");
  c.only("time_cond_proj_dim", [], "guidance embeddings are not built");
  c.only("resnet_time_scale_shift", ["default"], "only the additive time embedding is built");
  c.only("resnet_out_scale_factor", [1], "only 1 is built");
  c.only("mid_block_type", ["UNetMidBlock2DCrossAttn"], "only UNetMidBlock2DCrossAttn is built");
  c.only("attention_type", ["default"], "only the default attention is built");
  c.only("dual_cross_attention", [false], "dual cross attention is not built");
  c.only("only_cross_attention", [false], "cross attention alone is not built");
  c.only("conv_in_kernel", [3], "only 3×3 is built");
  c.only("conv_out_kernel", [3], "only 3×3 is built");
  c.only("center_input_sample", [false], "centred samples are not built");
  c.only("cross_attention_norm", [], "normalised text states are not built");
  c.only("mid_block_only_cross_attention", [false], "cross attention alone is not built");
  c.only("resnet_skip_time_act", [false], "the time embedding is always activated");
  c.only("reverse_transformer_layers_per_block", [], "asymmetric U-Nets are not built");
  c.only("time_embedding_act_fn", [], "only the activation that act_fn names is built");
  c.only("time_embedding_dim", [], "only four times the first block's width is built");
  c.only("timestep_post_act", [], "no activation after the time embedding is built");

  const channels = c.integers("block_out_channels");
  const count = channels.length;
  const downTypes = c.strings("down_block_types");
  const upTypes = c.strings("up_block_types");
  for (const [key, types] of [["down_block_types", downTypes], ["up_block_types", upTypes]] as const) {
    if (types.length !== count) {
      throw new ConfigError(key, `${types.length} blocks, but block_out_channels has ${count}`);
    }
    for (const t of types) {
      if (!Object.hasOwn(BLOCKS, t)) {
        throw new ConfigError(key, `"${t}" is not one of ${Object.keys(BLOCKS).join(", ")}`);
      }
    }
  }
  // diffusers calls the number of heads attention_head_dim in configs of SD 1.x and 2.x, and builds it so.
  const heads = c.perBlock(c.has("num_attention_heads") ? "num_attention_heads" : "attention_head_dim", count, 8);
  const layers = c.perBlock("layers_per_block", count, 2);
  const transformers = c.perBlock("transformer_layers_per_block", count, 1);
  const cross = c.perBlock("cross_attention_dim", count, 1280);
  const block = (i: number, attentive: boolean): UnetBlockConfig => {
    if (channels[i] % heads[i] !== 0) {
      throw new ConfigError("attention_head_dim", `${heads[i]} heads do not divide ${channels[i]} channels`);
    }
    return {
      channels: channels[i],
      layers: layers[i],
      heads: heads[i],
      transformers: attentive ? transformers[i] : 0,
      crossAttentionDim: cross[i],
    };
  };
  return {
    in_channels: c.integer("in_channels", 4),
    out_channels: c.integer("out_channels", 4),
    sample_size: c.integer("sample_size", 64),
    down: downTypes.map((t, i) => block(i, BLOCKS[t])),
    up: upTypes.map((t, i) => block(count - 1 - i, BLOCKS[t])),
    mid: block(count - 1, true),
    cross_attention_dim: cross[0],
    norm_num_groups: c.integer("norm_num_groups", 32),
    norm_eps: c.number("norm_eps", 1e-5),
    act_fn: c.string("act_fn", "silu"),
    use_linear_projection: c.boolean("use_linear_projection", false),
    flip_sin_to_cos: c.boolean("flip_sin_to_cos", true),
    freq_shift: c.number("freq_shift", 0),
    downsample_padding: c.integer("downsample_padding", 1, 0),
    mid_block_scale_factor: c.number("mid_block_scale_factor", 1),
    ...(c.has("addition_embed_type") ? { addition: additionOf(c) } : {}),
  };
};

const additionOf = (c: ConfigReader): AdditionConfig => {
  const width = c.integer("addition_time_embed_dim");
  const whole = c.integer("projection_class_embeddings_input_dim");
  const pooled = whole - SIZE_NUMBERS * width;
  if (pooled < 1) {
    throw new ConfigError(
      "projection_class_embeddings_input_dim",
      `${whole} leaves no room for a pooled text beside ${SIZE_NUMBERS} numbers of ${width}`,
    );
  }
  return { pooled, width };
};

export interface UnetInputs {
  /** [B, in_channels, h, w] */
  readonly sample: Value;
  /** float32 [1] for all, or [B] */
  readonly timestep: Value;
  /** [B, L, cross_attention_dim] */
  readonly context: Value;
  /** What a network with `addition` needs besides. */
  readonly added?: AddedInputs;
}

export interface AddedInputs {
  /** [B, addition.pooled] */
  readonly pooled: Value;
  /** float32 [1, 6] for all, or [B, 6]; see {@link SIZE_NUMBERS} */
  readonly sizes: Value;
}

/** Cross-attention of one layer: to which token each cell listens. */
export interface AttentionTap {
  /** The layer's key, `down_blocks.0.attentions.0.transformer_blocks.0.attn2`. */
  readonly name: string;
  /** [B, heads, cells, L], rows sum to 1. */
  readonly probabilities: Value;
  /** What the layer adds to the cells on behalf of the text, [B, cells, C]. */
  readonly contribution: Value;
  /** Height and width of the grid that the cells fill, row by row. */
  readonly grid: readonly [number, number];
}

/** What the U-Net adds to a graph: the predicted noise [B, out_channels, h, w] and the cross-attention of each layer. */
export interface UnetOutputs {
  readonly noise: Value;
  readonly attention: readonly AttentionTap[];
}

/** The network as a function from inputs to values; taps cost nothing unless they become outputs. */
export const unetCondition = (config: UnetConfig) => (weights: WeightReader, inputs: UnetInputs): UnetOutputs => {
  const { norm_num_groups: groups, norm_eps: epsilon, act_fn: act } = config;
  const factor = 2 ** (config.down.length - 1);
  const [, , height, width] = inputs.sample.dims;
  if (height % factor !== 0 || width % factor !== 0) {
    throw new ConfigError(
      "sample_size",
      `latents of ${height}×${width} cells; each side must be a multiple of ${factor}`,
    );
  }
  const taps: AttentionTap[] = [];
  const whole = addition(config, weights, timeEmbedding(config, weights, inputs.timestep), inputs.added);
  const time = activation(act)(whole);
  const resnet = (w: WeightReader, x: Value, out: number, scale = 1) =>
    resnetBlock(w, x, { out, groups, epsilon, act, time, scale });
  const attend = (prefix: string, x: Value, block: UnetBlockConfig) =>
    spatialTransformer(
      config,
      under(weights, prefix),
      x,
      inputs.context,
      block,
      (name, values) => taps.push({ ...values, name: `${prefix}${name}`, grid: [x.dims[2], x.dims[3]] }),
    );

  let x = convLayer(under(weights, "conv_in."), inputs.sample, config.down[0].channels, 3, { padding: 1 });
  const skips = [x];
  config.down.forEach((block, i) => {
    for (let j = 0; j < block.layers; j++) {
      x = resnet(under(weights, `down_blocks.${i}.resnets.${j}.`), x, block.channels);
      if (block.transformers > 0) x = attend(`down_blocks.${i}.attentions.${j}.`, x, block);
      skips.push(x);
    }
    if (i < config.down.length - 1) {
      const w = under(weights, `down_blocks.${i}.downsamplers.0.conv.`);
      // diffusers pads right and bottom alone where downsample_padding is 0, as the autoencoder does.
      const padding = config.downsample_padding === 0
        ? { top: 0, left: 0, bottom: 1, right: 1 }
        : config.downsample_padding;
      x = convLayer(w, x, block.channels, 3, { stride: 2, padding });
      skips.push(x);
    }
  });

  const { mid, mid_block_scale_factor: scale } = config;
  x = resnet(under(weights, "mid_block.resnets.0."), x, mid.channels, scale);
  x = attend("mid_block.attentions.0.", x, mid);
  x = resnet(under(weights, "mid_block.resnets.1."), x, mid.channels, scale);

  config.up.forEach((block, i) => {
    for (let j = 0; j <= block.layers; j++) {
      x = resnet(under(weights, `up_blocks.${i}.resnets.${j}.`), concat([x, skips.pop()!], 1), block.channels);
      if (block.transformers > 0) x = attend(`up_blocks.${i}.attentions.${j}.`, x, block);
    }
    if (i < config.up.length - 1) {
      x = convLayer(under(weights, `up_blocks.${i}.upsamplers.0.conv.`), upsampleNearest(x, 2), block.channels, 3, {
        padding: 1,
      });
    }
  });

  x = activation(act)(groupNormLayer(under(weights, "conv_norm_out."), x, groups, epsilon));
  return { noise: convLayer(under(weights, "conv_out."), x, config.out_channels, 3, { padding: 1 }), attention: taps };
};

/** values [N] → [N, width]: sinusoids (Vaswani et al. 2017, §3.5). */
const sinusoids = (config: UnetConfig, values: Value, width: number): Value => {
  const g: Graph = values.graph;
  const half = width / 2;
  const rates = Float32Array.from(
    { length: half },
    (_, i) => Math.exp((-Math.log(10000) * i) / (half - config.freq_shift)),
  );
  const angles = mul(reshape(values, [values.dims[0], 1]), g.constant({ dims: [1, half], data: rates }));
  const { sin, cos } = sinCos(angles);
  return concat(config.flip_sin_to_cos ? [cos, sin] : [sin, cos], 1);
};

/** timestep [B] → [B, 4 C]: sinusoids, then two linear layers. */
const timeEmbedding = (config: UnetConfig, weights: WeightReader, timestep: Value): Value => {
  const width = config.down[0].channels;
  const inner = linearLayer(
    under(weights, "time_embedding.linear_1."),
    sinusoids(config, timestep, width),
    4 * width,
  );
  const hidden = activation(config.act_fn)(inner);
  return linearLayer(under(weights, "time_embedding.linear_2."), hidden, 4 * width);
};

/** Adds what `text_time` makes of the pooled text and the sizes to the time embedding [1 or B, 4 C]. */
const addition = (config: UnetConfig, weights: WeightReader, time: Value, added: AddedInputs | undefined): Value => {
  if (config.addition === undefined) return time;
  if (added === undefined) {
    throw new ConfigError("addition_embed_type", "the network needs a pooled text and the picture's sizes");
  }
  const [batch] = added.pooled.dims, width = 4 * config.down[0].channels;
  const [rows] = added.sizes.dims;
  const numbers = reshape(
    sinusoids(config, reshape(added.sizes, [rows * SIZE_NUMBERS]), config.addition.width),
    [rows, SIZE_NUMBERS * config.addition.width],
  );
  const all = concat([added.pooled, rows === batch ? numbers : expand(numbers, [batch, numbers.dims[1]])], 1);
  // diffusers activates by SiLU here whatever act_fn says.
  const inner = silu(linearLayer(under(weights, "add_embedding.linear_1."), all, width));
  return add(time, linearLayer(under(weights, "add_embedding.linear_2."), inner, width));
};

type Tap = (name: string, values: Pick<AttentionTap, "probabilities" | "contribution">) => void;

/** Transformer2DModel: the cells of x [N, C, H, W] attend to each other and to the text, with a residual. */
const spatialTransformer = (
  config: UnetConfig,
  w: WeightReader,
  x: Value,
  context: Value,
  block: UnetBlockConfig,
  tap: Tap,
): Value => {
  const [batch, width, height, breadth] = x.dims;
  const normal = groupNormLayer(under(w, "norm."), x, config.norm_num_groups, 1e-6);
  const toCells = (y: Value) => transpose(reshape(y, [batch, width, height * breadth]), [0, 2, 1]);
  const toGrid = (y: Value) => reshape(transpose(y, [0, 2, 1]), [batch, width, height, breadth]);
  let h = config.use_linear_projection
    ? linearLayer(under(w, "proj_in."), toCells(normal), width)
    : toCells(convLayer(under(w, "proj_in."), normal, width, 1));
  for (let i = 0; i < block.transformers; i++) {
    const prefix = `transformer_blocks.${i}.`;
    h = transformerBlock(under(w, prefix), h, context, block, (name, values) => tap(`${prefix}${name}`, values));
  }
  const out = config.use_linear_projection
    ? toGrid(linearLayer(under(w, "proj_out."), h, width))
    : convLayer(under(w, "proj_out."), toGrid(h), width, 1);
  return add(x, out);
};

/** BasicTransformerBlock: attention among the cells, attention to the text, gated feed-forward (GEGLU, Shazeer 2020). */
const transformerBlock = (w: WeightReader, x: Value, context: Value, block: UnetBlockConfig, tap: Tap): Value => {
  const width = x.dims[2];
  const norm = (i: number, y: Value) => layerNormLayer(under(w, `norm${i}.`), y, 1e-5);
  const attend = (name: string, y: Value, states: Value) => {
    const project = (key: string, z: Value) => linearLayer(under(w, `${name}.${key}.`), z, width, { bias: false });
    const { out, probabilities } = attention(
      project("to_q", y),
      project("to_k", states),
      project("to_v", states),
      block.heads,
    );
    const contribution = linearLayer(under(w, `${name}.to_out.0.`), out, width);
    if (name === "attn2") tap(name, { probabilities, contribution });
    return contribution;
  };
  const own = norm(1, x);
  x = add(x, attend("attn1", own, own));
  x = add(x, attend("attn2", norm(2, x), context));
  const inner = linearLayer(under(w, "ff.net.0.proj."), norm(3, x), 8 * width);
  const gated = mul(slice(inner, 2, 0, 4 * width), gelu(slice(inner, 2, 4 * width, 8 * width)));
  return add(x, linearLayer(under(w, "ff.net.2."), gated, width));
};
