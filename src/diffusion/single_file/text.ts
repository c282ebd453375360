/** Text encoders in a checkpoint: CLIP as transformers has it, and CLIP as OpenCLIP has it. */
import type { Rule } from "./names.ts";
import type { Shapes } from "./shapes.ts";

/** transformers' own names, with or without `text_model.`; what else lies there (a projection, say) is not of the encoder. */
export const clipRules = (file: Shapes): Rule[] =>
  file.any("text_model.")
    ? [{ file: "text_model.", network: "text_model." }]
    : ["embeddings.", "encoder.", "final_layer_norm."].map((name) => ({ file: name, network: `text_model.${name}` }));

/** config.json of a CLIPTextModel whose tensors have transformers' names: quick GELU, heads of width 64. */
export const clipConfig = (file: Shapes): Record<string, unknown> => {
  const stem = file.any("text_model.") ? "text_model." : "";
  const [vocabulary, width] = file.dims(`${stem}embeddings.token_embedding.weight`);
  return config({
    vocabulary,
    width,
    positions: file.dims(`${stem}embeddings.position_embedding.weight`)[0],
    inner: file.dims(`${stem}encoder.layers.0.mlp.fc1.weight`)[0],
    layers: file.count(`${stem}encoder.layers.`),
    activation: "quick_gelu",
  });
};

/**
 * OpenCLIP's names. Queries, keys and values are one tensor, in this order.
 * @param layers the first ones, of which the encoder is made
 * @param projection whether the encoder projects what it reads (`text_projection`, which the file holds transposed)
 */
export const openClipRules = (layers: number, projection = false): Rule[] => {
  const rules: Rule[] = [
    { file: "token_embedding.", network: "text_model.embeddings.token_embedding." },
    { file: "positional_embedding", network: "text_model.embeddings.position_embedding.weight" },
    { file: "ln_final.", network: "text_model.final_layer_norm." },
  ];
  if (projection) rules.push({ file: "text_projection", network: "text_projection.weight", as: "transposed" });
  for (let i = 0; i < layers; i++) {
    const from = `transformer.resblocks.${i}.`;
    const to = `text_model.encoder.layers.${i}.`;
    rules.push(
      { file: `${from}ln_1.`, network: `${to}layer_norm1.` },
      { file: `${from}ln_2.`, network: `${to}layer_norm2.` },
      { file: `${from}mlp.c_fc.`, network: `${to}mlp.fc1.` },
      { file: `${from}mlp.c_proj.`, network: `${to}mlp.fc2.` },
      { file: `${from}attn.out_proj.`, network: `${to}self_attn.out_proj.` },
    );
    ["q", "k", "v"].forEach((name, part) => {
      for (const kind of ["weight", "bias"]) {
        rules.push({
          file: `${from}attn.in_proj_${kind}`,
          network: `${to}self_attn.${name}_proj.${kind}`,
          rows: [part, 3],
        });
      }
    });
  }
  return rules;
};

/**
 * config.json of a CLIPTextModel whose tensors have OpenCLIP's names: GELU, heads of width 64.
 * @param skipped layers at the end that the encoder leaves out
 */
export const openClipConfig = (file: Shapes, skipped: number): Record<string, unknown> => {
  const [vocabulary, width] = file.dims("token_embedding.weight");
  return config({
    vocabulary,
    width,
    positions: file.dims("positional_embedding")[0],
    inner: file.dims("transformer.resblocks.0.mlp.c_fc.weight")[0],
    layers: file.count("transformer.resblocks.") - skipped,
    activation: "gelu",
  });
};

/** What config.json of a CLIPTextModelWithProjection has besides. */
export const projectedConfig = (file: Shapes): Record<string, unknown> => ({
  architectures: ["CLIPTextModelWithProjection"],
  projection_dim: file.dims("text_projection")[1],
});

interface Sizes {
  readonly vocabulary: number | undefined;
  readonly width: number | undefined;
  readonly positions: number | undefined;
  readonly inner: number | undefined;
  readonly layers: number;
  readonly activation: string;
}

const config = ({ vocabulary, width, positions, inner, layers, activation }: Sizes): Record<string, unknown> => ({
  architectures: ["CLIPTextModel"],
  model_type: "clip_text_model",
  // As the published configs have it: a text ends at its largest id.
  eos_token_id: 2,
  hidden_act: activation,
  hidden_size: width,
  intermediate_size: inner,
  layer_norm_eps: 1e-5,
  max_position_embeddings: positions,
  num_attention_heads: width === undefined ? undefined : width / 64,
  num_hidden_layers: layers,
  vocab_size: vocabulary,
});
