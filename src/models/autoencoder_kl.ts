/** AutoencoderKL of diffusers: pixels to latents and back. */
import { add, reshape, silu, slice, transpose, upsampleNearest, type Value, type WeightReader } from "../graph/mod.ts";
import { ConfigError, ConfigReader } from "./config.ts";
import { attention, convLayer, groupNormLayer, linearLayer, under } from "./layers.ts";
import { resnetBlock } from "./resnet.ts";

export interface AutoencoderKlConfig {
  readonly in_channels: number;
  readonly out_channels: number;
  readonly latent_channels: number;
  readonly block_out_channels: readonly number[];
  readonly layers_per_block: number;
  readonly norm_num_groups: number;
  readonly act_fn: string;
  readonly mid_block_add_attention: boolean;
  readonly use_quant_conv: boolean;
  readonly use_post_quant_conv: boolean;
  /** Latents are multiplied by it after encoding and divided by it before decoding. */
  readonly scaling_factor: number;
  readonly shift_factor: number;
}

/** Reads config.json of a VAE. @throws ConfigError */
export const parseAutoencoderKlConfig = (json: unknown): AutoencoderKlConfig => {
  const c = new ConfigReader(json);
  c.only("latents_mean", [], "latents normalised channel by channel are not built");
  c.only("latents_std", [], "latents normalised channel by channel are not built");
  for (const type of c.strings("down_block_types")) {
    if (type !== "DownEncoderBlock2D") {
      throw new ConfigError("down_block_types", `"${type}"; only DownEncoderBlock2D is supported`);
    }
  }
  for (const type of c.strings("up_block_types")) {
    if (type !== "UpDecoderBlock2D") {
      throw new ConfigError("up_block_types", `"${type}"; only UpDecoderBlock2D is supported`);
    }
  }
  return {
    in_channels: c.integer("in_channels", 3),
    out_channels: c.integer("out_channels", 3),
    latent_channels: c.integer("latent_channels", 4),
    block_out_channels: c.integers("block_out_channels"),
    layers_per_block: c.integer("layers_per_block", 1),
    norm_num_groups: c.integer("norm_num_groups", 32),
    act_fn: c.string("act_fn", "silu"),
    mid_block_add_attention: c.boolean("mid_block_add_attention", true),
    use_quant_conv: c.boolean("use_quant_conv", true),
    use_post_quant_conv: c.boolean("use_post_quant_conv", true),
    scaling_factor: c.number("scaling_factor", 0.18215),
    shift_factor: c.number("shift_factor", 0),
  };
};

/** How many pixels a latent cell spans on each side. */
export const latentFactor = (config: AutoencoderKlConfig): number => 2 ** (config.block_out_channels.length - 1);

const EPSILON = 1e-6;

export const autoencoderKl = (config: AutoencoderKlConfig) => {
  const { norm_num_groups: groups, act_fn: act, block_out_channels: channels } = config;
  const resnet = (w: WeightReader, x: Value, out: number) => resnetBlock(w, x, { out, groups, epsilon: EPSILON, act });

  const midBlock = (w: WeightReader, x: Value): Value => {
    const width = channels.at(-1)!;
    x = resnet(under(w, "resnets.0."), x, width);
    if (config.mid_block_add_attention) x = selfAttention(under(w, "attentions.0."), x, groups);
    return resnet(under(w, "resnets.1."), x, width);
  };

  // diffusers uses SiLU here whatever act_fn says.
  const finish = (w: WeightReader, x: Value, out: number): Value =>
    convLayer(under(w, "conv_out."), silu(groupNormLayer(under(w, "conv_norm_out."), x, groups, EPSILON)), out, 3, {
      padding: 1,
    });

  return {
    /** pixels [B, 3, H, W] in −1…1 → mean and log variance of the latents [B, C, H/f, W/f], not yet scaled. */
    encode: (weights: WeightReader, pixels: Value): { mean: Value; logvar: Value } => {
      const w = under(weights, "encoder.");
      let x = convLayer(under(w, "conv_in."), pixels, channels[0], 3, { padding: 1 });
      channels.forEach((out, i) => {
        const block = under(w, `down_blocks.${i}.`);
        for (let j = 0; j < config.layers_per_block; j++) x = resnet(under(block, `resnets.${j}.`), x, out);
        if (i < channels.length - 1) {
          const padding = { top: 0, left: 0, bottom: 1, right: 1 };
          x = convLayer(under(block, "downsamplers.0.conv."), x, out, 3, { stride: 2, padding });
        }
      });
      let moments = finish(w, midBlock(under(w, "mid_block."), x), 2 * config.latent_channels);
      if (config.use_quant_conv) {
        moments = convLayer(under(weights, "quant_conv."), moments, 2 * config.latent_channels, 1);
      }
      const half = config.latent_channels;
      return { mean: slice(moments, 1, 0, half), logvar: slice(moments, 1, half, 2 * half) };
    },

    /** latents [B, C, h, w], already divided by scaling_factor → pixels [B, 3, h·f, w·f] in about −1…1. */
    decode: (weights: WeightReader, latents: Value): Value => {
      const w = under(weights, "decoder.");
      const widths = [...channels].reverse();
      const z = config.use_post_quant_conv
        ? convLayer(under(weights, "post_quant_conv."), latents, config.latent_channels, 1)
        : latents;
      let x = midBlock(under(w, "mid_block."), convLayer(under(w, "conv_in."), z, widths[0], 3, { padding: 1 }));
      widths.forEach((out, i) => {
        const block = under(w, `up_blocks.${i}.`);
        for (let j = 0; j <= config.layers_per_block; j++) x = resnet(under(block, `resnets.${j}.`), x, out);
        if (i < widths.length - 1) {
          x = convLayer(under(block, "upsamplers.0.conv."), upsampleNearest(x, 2), out, 3, { padding: 1 });
        }
      });
      return finish(w, x, config.out_channels);
    },
  };
};

/** One-head self-attention over the cells of [N, C, H, W], with a residual. */
const selfAttention = (w: WeightReader, x: Value, groups: number): Value => {
  const [batch, width, height, breadth] = x.dims;
  const flat = transpose(reshape(groupNormLayer(under(w, "group_norm."), x, groups, EPSILON), [batch, width, -1]), [
    0,
    2,
    1,
  ]);
  const project = (name: string, y: Value) => linearLayer(under(w, `${name}.`), y, width);
  const { out } = attention(project("to_q", flat), project("to_k", flat), project("to_v", flat), 1);
  return add(x, reshape(transpose(project("to_out.0", out), [0, 2, 1]), [batch, width, height, breadth]));
};
