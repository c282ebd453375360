/** CLIPModel of transformers: the text and picture towers with their projections into one space, for scoring. */
import { linear, type Value, type WeightReader } from "../graph/mod.ts";
import { clipText, type ClipTextConfig, parseClipTextConfig, pooledAt } from "./clip_text.ts";
import { clipVision, type ClipVisionConfig, parseClipVisionConfig } from "./clip_vision.ts";
import { ConfigReader } from "./config.ts";
import { under } from "./layers.ts";

export interface ClipConfig {
  readonly text: ClipTextConfig;
  readonly vision: ClipVisionConfig;
  readonly projection_dim: number;
}

/** Reads config.json of a CLIPModel folder. @throws ConfigError */
export const parseClipConfig = (json: unknown): ClipConfig => {
  const c = new ConfigReader(json);
  return {
    text: parseClipTextConfig(c.raw("text_config") ?? {}),
    vision: parseClipVisionConfig(c.raw("vision_config") ?? {}),
    projection_dim: c.integer("projection_dim", 512),
  };
};

/** ids int32 [B, L] and a one-hot float row [B, L] at each text's end → features [B, projection_dim], not normalised. */
export const clipTextFeatures =
  (config: ClipConfig) => (weights: WeightReader, { ids, end }: { ids: Value; end: Value }): Value => {
    const { hidden } = clipText(config.text)(under(weights, "text_model."), { ids });
    const projection = weights("text_projection.weight", [config.projection_dim, config.text.hidden_size]);
    return linear(pooledAt(hidden, end), projection);
  };

/** pixels [B, 3, H, W] → features [B, projection_dim], not normalised. */
export const clipImageFeatures =
  (config: ClipConfig) => (weights: WeightReader, { pixels }: { pixels: Value }): Value => {
    const { pooled } = clipVision(config.vision)(under(weights, "vision_model."), { pixels });
    return linear(pooled, weights("visual_projection.weight", [config.projection_dim, config.vision.hidden_size]));
  };
