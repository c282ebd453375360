/** The autoencoder in a checkpoint's own layout (`encoder.down.0.block.0`): its names and its config. */
import type { Rule } from "./names.ts";
import { LayoutError } from "./unet.ts";
import type { Shapes } from "./shapes.ts";

export interface VaeLayout {
  readonly layers: number;
  /** Of each level of resolution, the finest first. */
  readonly channels: readonly number[];
}

/** Reads the layout off the encoder's blocks. @throws LayoutError */
export const vaeLayout = (file: Shapes): VaeLayout => {
  const count = file.count("encoder.down.");
  const layers = file.count("encoder.down.0.block.");
  const channels = Array.from({ length: count }, (_, i) => file.dims(`encoder.down.${i}.block.0.conv1.weight`)[0] ?? 0);
  if (count === 0 || layers === 0 || channels.includes(0)) {
    throw new LayoutError(`its autoencoder has ${count} levels with ${layers} residual blocks in the first`);
  }
  return { layers, channels };
};

const resnet = (file: string, network: string): Rule[] => [
  ...["norm1.", "conv1.", "norm2.", "conv2."].map((name) => ({ file: file + name, network: network + name })),
  { file: `${file}nin_shortcut.`, network: `${network}conv_shortcut.` },
];

/** Attention's weights are convolutions of 1×1 in the file. Newer files have matrices already. */
const attention = (file: string, network: string): Rule[] => [
  { file: `${file}norm.`, network: `${network}group_norm.` },
  ...[["q.", "to_q."], ["k.", "to_k."], ["v.", "to_v."], ["proj_out.", "to_out.0."]].map(([from, to]): Rule => ({
    file: file + from,
    network: network + to,
    as: "matrix",
  })),
];

/** Names of an autoencoder of this layout, without the prefix that all have in the file. */
export const vaeRules = ({ layers, channels }: VaeLayout): Rule[] => {
  const levels = channels.length;
  const rules: Rule[] = [
    { file: "quant_conv.", network: "quant_conv." },
    { file: "post_quant_conv.", network: "post_quant_conv." },
  ];
  for (const side of ["encoder.", "decoder."]) {
    rules.push(
      { file: `${side}conv_in.`, network: `${side}conv_in.` },
      { file: `${side}conv_out.`, network: `${side}conv_out.` },
      { file: `${side}norm_out.`, network: `${side}conv_norm_out.` },
      ...resnet(`${side}mid.block_1.`, `${side}mid_block.resnets.0.`),
      ...attention(`${side}mid.attn_1.`, `${side}mid_block.attentions.0.`),
      ...resnet(`${side}mid.block_2.`, `${side}mid_block.resnets.1.`),
    );
  }
  for (let i = 0; i < levels; i++) {
    // The file counts the decoder's levels from the finest on as well, diffusers in the order in which they come.
    const up = levels - 1 - i;
    for (let j = 0; j < layers; j++) {
      rules.push(...resnet(`encoder.down.${i}.block.${j}.`, `encoder.down_blocks.${i}.resnets.${j}.`));
    }
    for (let j = 0; j <= layers; j++) {
      rules.push(...resnet(`decoder.up.${up}.block.${j}.`, `decoder.up_blocks.${i}.resnets.${j}.`));
    }
    rules.push(
      { file: `encoder.down.${i}.downsample.conv.`, network: `encoder.down_blocks.${i}.downsamplers.0.conv.` },
      { file: `decoder.up.${up}.upsample.conv.`, network: `decoder.up_blocks.${i}.upsamplers.0.conv.` },
    );
  }
  return rules;
};

/**
 * config.json of the autoencoder.
 * @param sample side of the pictures, in pixels
 * @param scaling what latents are multiplied by after encoding
 */
export const vaeConfig = (
  file: Shapes,
  { layers, channels }: VaeLayout,
  sample: number,
  scaling = 0.18215,
): Record<string, unknown> => ({
  _class_name: "AutoencoderKL",
  act_fn: "silu",
  block_out_channels: channels,
  down_block_types: channels.map(() => "DownEncoderBlock2D"),
  in_channels: file.dims("encoder.conv_in.weight")[1],
  latent_channels: file.dims("decoder.conv_in.weight")[1],
  layers_per_block: layers,
  norm_num_groups: 32,
  out_channels: file.dims("decoder.conv_out.weight")[0],
  sample_size: sample,
  scaling_factor: scaling,
  up_block_types: channels.map(() => "UpDecoderBlock2D"),
  ...(file.any("encoder.mid.attn_1.") ? {} : { mid_block_add_attention: false }),
  ...(file.any("quant_conv.") ? {} : { use_quant_conv: false }),
  ...(file.any("post_quant_conv.") ? {} : { use_post_quant_conv: false }),
});
