/** The U-Net in a checkpoint's own layout (`input_blocks`, `middle_block`, `output_blocks`): its names and its config. */
import type { Rule } from "./names.ts";
import type { Shapes } from "./shapes.ts";

/** How the numbered blocks of the file fall into levels of resolution, the finest first. */
export interface UnetLayout {
  /** Residual blocks of a level. */
  readonly layers: number;
  /** Transformer layers in the attention of each level; 0 where it has none. */
  readonly transformers: readonly number[];
  readonly channels: readonly number[];
}

/** A checkpoint's U-Net whose blocks no config.json could describe. */
export class LayoutError extends Error {
  override readonly name = "LayoutError";
}

/** Reads the layout off the blocks. @throws LayoutError where levels differ in a way that diffusers' U-Net does not know. */
export const unetLayout = (file: Shapes): UnetLayout => {
  const levels: { layers: number; transformers: number; channels: number }[] = [{
    layers: 0,
    transformers: 0,
    channels: 0,
  }];
  const count = file.count("input_blocks.");
  for (let n = 1; n < count; n++) {
    const block = `input_blocks.${n}.`;
    if (file.has(`${block}0.op.weight`)) {
      levels.push({ layers: 0, transformers: 0, channels: 0 });
      continue;
    }
    const level = levels[levels.length - 1];
    level.layers++;
    level.channels = file.dims(`${block}0.out_layers.3.weight`)[0] ?? 0;
    level.transformers = file.count(`${block}1.transformer_blocks.`);
  }
  const [{ layers }] = levels;
  const odd = levels.findIndex((level) => level.layers !== layers || level.channels === 0);
  if (layers === 0 || odd >= 0) {
    throw new LayoutError(
      `its U-Net has ${
        levels.map((l) => l.layers).join(", ")
      } residual blocks a level; the same number in each is read`,
    );
  }
  return { layers, transformers: levels.map((l) => l.transformers), channels: levels.map((l) => l.channels) };
};

const RESNET = [
  ["in_layers.0.", "norm1."],
  ["in_layers.2.", "conv1."],
  ["emb_layers.1.", "time_emb_proj."],
  ["out_layers.0.", "norm2."],
  ["out_layers.3.", "conv2."],
  ["skip_connection.", "conv_shortcut."],
] as const;

const resnet = (file: string, network: string): Rule[] =>
  RESNET.map(([from, to]) => ({ file: `${file}${from}`, network: `${network}${to}` }));

/** Names of a U-Net of this layout, without the prefix that all have in the file. */
export const unetRules = ({ layers, transformers }: UnetLayout): Rule[] => {
  const levels = transformers.length;
  const rules: Rule[] = [
    { file: "time_embed.0.", network: "time_embedding.linear_1." },
    { file: "time_embed.2.", network: "time_embedding.linear_2." },
    // Added conditions, as SDXL has them.
    { file: "label_emb.0.0.", network: "add_embedding.linear_1." },
    { file: "label_emb.0.2.", network: "add_embedding.linear_2." },
    { file: "input_blocks.0.0.", network: "conv_in." },
    { file: "out.0.", network: "conv_norm_out." },
    { file: "out.2.", network: "conv_out." },
    ...resnet("middle_block.0.", "mid_block.resnets.0."),
    { file: "middle_block.1.", network: "mid_block.attentions.0." },
    ...resnet("middle_block.2.", "mid_block.resnets.1."),
  ];
  let n = 1;
  transformers.forEach((depth, i) => {
    const to = `down_blocks.${i}.`;
    for (let j = 0; j < layers; j++, n++) {
      rules.push(...resnet(`input_blocks.${n}.0.`, `${to}resnets.${j}.`));
      if (depth > 0) rules.push({ file: `input_blocks.${n}.1.`, network: `${to}attentions.${j}.` });
    }
    if (i < levels - 1) rules.push({ file: `input_blocks.${n++}.0.op.`, network: `${to}downsamplers.0.conv.` });
  });
  transformers.toReversed().forEach((depth, i) => {
    const to = `up_blocks.${i}.`;
    for (let j = 0; j <= layers; j++) {
      const from = `output_blocks.${i * (layers + 1) + j}.`;
      rules.push(...resnet(`${from}0.`, `${to}resnets.${j}.`));
      if (depth > 0) rules.push({ file: `${from}1.`, network: `${to}attentions.${j}.` });
      if (j === layers && i < levels - 1) {
        rules.push({ file: `${from}${depth > 0 ? 2 : 1}.conv.`, network: `${to}upsamplers.0.conv.` });
      }
    }
  });
  return rules;
};

/** What config.json has besides where pooled text and sizes are conditions: of each size, sinusoids of the width that SDXL has. */
export const addedConfig = (file: Shapes): Record<string, unknown> => ({
  addition_embed_type: "text_time",
  addition_time_embed_dim: 256,
  projection_class_embeddings_input_dim: file.dims("label_emb.0.0.weight")[1],
});

/**
 * config.json of the U-Net, from the shapes and from what no shape tells: Stable Diffusion 1.x has 8 attention heads at every
 * level, 2.x has heads of width 64.
 * @param sample side of the latents, in cells
 */
export const unetConfig = (file: Shapes, layout: UnetLayout, sample: number): Record<string, unknown> => {
  const { layers, transformers, channels } = layout;
  const attentive = transformers.findIndex((depth) => depth > 0);
  // The first block of that level, past those of the levels above and their downsamplers.
  const first = `input_blocks.${attentive * (layers + 1) + 1}.1.`;
  const linear = file.dims(`${first}proj_in.weight`).length === 2;
  const depth = transformers[attentive] ?? 1;
  return {
    _class_name: "UNet2DConditionModel",
    act_fn: "silu",
    attention_head_dim: linear ? channels.map((c) => c / 64) : 8,
    block_out_channels: channels,
    center_input_sample: false,
    cross_attention_dim: file.dims(`${first}transformer_blocks.0.attn2.to_k.weight`)[1],
    down_block_types: transformers.map((d) => d > 0 ? "CrossAttnDownBlock2D" : "DownBlock2D"),
    downsample_padding: 1,
    flip_sin_to_cos: true,
    freq_shift: 0,
    in_channels: file.dims("input_blocks.0.0.weight")[1],
    layers_per_block: layers,
    mid_block_scale_factor: 1,
    norm_eps: 1e-5,
    norm_num_groups: 32,
    out_channels: file.dims("out.2.weight")[0],
    sample_size: sample,
    ...(transformers.every((d) => d === 0 || d === 1)
      ? {}
      : { transformer_layers_per_block: transformers.map((d) => d || depth) }),
    up_block_types: transformers.toReversed().map((d) => d > 0 ? "CrossAttnUpBlock2D" : "UpBlock2D"),
    ...(linear ? { use_linear_projection: true } : {}),
  };
};
