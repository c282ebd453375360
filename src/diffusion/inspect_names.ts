/** What a tensor's key says: the layer that it belongs to, what it is there, and under which name another file has it. */
import { sameTensorName } from "./keys.ts";

export interface Place {
  /** Resolution or layer: `down_blocks.1`, `encoder.layers.3`. */
  readonly block: string;
  /** Module: `down_blocks.1.resnets.0`. */
  readonly layer: string;
  /** What it is in the module, weight and bias alike: `conv1`, `attn2.to_k`. */
  readonly role: string;
}

/** Prefixes that a checkpoint in one file puts before a network's keys, and the part that they stand for. */
export const LONE_PREFIXES: ReadonlyArray<readonly [string, string]> = [
  ["model.diffusion_model.", "unet"],
  ["model_ema.", "unet_ema"],
  ["first_stage_model.", "vae"],
  ["cond_stage_model.", "text_encoder"],
  ["conditioner.embedders.0.", "text_encoder"],
  ["conditioner.embedders.1.", "text_encoder_2"],
];

const WRAPPERS =
  /^(?:model\.diffusion_model\.|model_ema\.|first_stage_model\.|cond_stage_model\.|conditioner\.embedders\.\d\.)?(?:transformer\.)?(?:text_model\.|model\.(?=transformer\.))?(?:transformer\.(?=resblocks\.))?/;

/** The innermost numbered module of a key, in the names of diffusers, transformers, and of checkpoints in one file. */
const MODULES = [
  /^((?:input_blocks|output_blocks)\.\d+\.\d+|middle_block\.\d+)\.(?:transformer_blocks\.0\.)?((?!transformer_blocks\.).+)$/,
  /^(.*\battentions\.\d+)\.transformer_blocks\.0\.(.+)$/,
  /^(.*\b(?:transformer_blocks|resnets|attentions|downsamplers|upsamplers|layers|resblocks)\.\d+)\.(.+)$/,
  /^((?:encoder|decoder)\.(?:down|up)\.\d+\.(?:block|attn)\.\d+|(?:encoder|decoder)\.mid\.\w+?_\d+)\.(.+)$/,
];

const BLOCK =
  /^(?:(?:encoder|decoder)\.)?(?:(?:down_blocks|up_blocks|layers|resblocks|input_blocks|output_blocks)\.\d+|mid_block|middle_block|(?:down|up)\.\d+|mid)\b/;

const withoutKind = (key: string): string => key.replace(/\.(?:weight|bias)$/, "");

const LORA = /^(.*?)[._](lora[_.](?:A|B|up|down|mid)|alpha|dora_scale|hada_w\d_[ab]|lokr_w\d(?:_[ab])?)\b.*$/;

/** Layer, role and block by a key. */
export const placeOf = (key: string): Place => {
  const lora = LORA.exec(key);
  if (lora !== null) {
    const [, target, role] = lora;
    return { block: blockOfLora(target), layer: target, role };
  }
  const name = withoutKind(key.replace(WRAPPERS, ""));
  const block = BLOCK.exec(name)?.[0] ?? name.split(".")[0];
  for (const pattern of MODULES) {
    const found = pattern.exec(name);
    if (found !== null) return { block, layer: found[1], role: found[2].replace(/\.to_out\.0$/, ".to_out") };
  }
  return { block, layer: name.split(".").slice(0, -1).join(".") || name, role: name.split(".").at(-1) ?? name };
};

const blockOfLora = (target: string): string =>
  /(?:down_blocks|up_blocks|layers|input_blocks|output_blocks)[._]\d+|mid_block|middle_block/.exec(target)?.[0] ?? "";

/** What kind of tensor it is, by its key and dimensions. */
export const kindOf = (key: string, dims: readonly number[]): string => {
  if (LORA.test(key)) return "lora";
  if (/embedding(?:s)?(?:\.weight)?$/.test(key) && dims.length === 2) return "embedding";
  if (dims.length >= 3) return "conv";
  if (dims.length === 2) return "linear";
  if (/bias$/.test(key)) return "bias";
  return dims.length === 1 && /\.weight$/.test(key) ? "norm" : "other";
};

/** The name under which tensors of two files are the same one. */
export const commonName = (key: string): string => sameTensorName(key);
