/**
 * Whether a checkpoint's U-Net answers with noise or with velocity (Salimans & Ho 2022). A file does not say; these are the hints
 * that programs go by.
 */
import type { Header } from "../../tensor/safetensors.ts";

export type Prediction = "epsilon" | "v_prediction";

export interface Guess {
  readonly prediction: Prediction;
  /** What it was told by; absent where nothing speaks of it and nothing has to. */
  readonly by?: string;
}

/** What is known of a file besides its header. */
export interface Hints {
  /** Text of the .yaml beside the file, which other programs read as its configuration. */
  readonly yaml?: string;
  /** Training step, where the file names it. */
  readonly globalStep?: number;
  /** Values of the U-Net's {@link BIAS}. */
  readonly bias?: Float32Array;
}

/** A bias whose spread tells the two kinds of Stable Diffusion 2.x apart (ComfyUI, supported_models.py). */
export const BIAS = "model.diffusion_model.output_blocks.11.1.transformer_blocks.0.norm1.bias";

const spread = (values: Float32Array): number => {
  const mean = values.reduce((a, b) => a + b, 0) / values.length;
  return Math.sqrt(values.reduce((sum, v) => sum + (v - mean) ** 2, 0) / values.length);
};

/** The file's own words: a tensor that stands for them (NoobAI's convention), Stability's ModelSpec, a configuration. */
const told = ({ entries, metadata }: Header, { yaml }: Hints): Guess | undefined => {
  if (entries.has("v_pred")) return { prediction: "v_prediction", by: "the file's tensor v_pred" };
  const spec = metadata["modelspec.prediction_type"] ?? metadata["modelspec.predict_key"];
  if (spec !== undefined) {
    const prediction = /^v/i.test(spec) ? "v_prediction" : "epsilon";
    return { prediction, by: `the file's metadata (${spec.slice(0, 20)})` };
  }
  const parameterization = yaml === undefined ? undefined : /^\s*parameterization:\s*["']?(\w+)/m.exec(yaml)?.[1];
  if (parameterization !== undefined) {
    return { prediction: parameterization === "v" ? "v_prediction" : "epsilon", by: "the .yaml beside the file" };
  }
  return undefined;
};

/** @param second whether it is Stable Diffusion 2.x, of which there are both kinds; 1.x answers with noise unless told */
export const guessPrediction = (header: Header, hints: Hints, second: boolean): Guess => {
  const words = told(header, hints);
  if (words !== undefined) return words;
  if (!second) return { prediction: "epsilon" };
  // Stability's own files: 875000 is the step of 2.1-base (diffusers, single_file_utils.py).
  if (hints.globalStep === 875000) return { prediction: "epsilon", by: "its training step, 2.1-base's" };
  const { bias } = hints;
  if (bias !== undefined && bias.length > 0) {
    const sigma = spread(bias);
    return {
      prediction: sigma > 0.09 ? "v_prediction" : "epsilon",
      by: `the spread of a bias (${sigma.toFixed(3)}; a rule of thumb: above 0.09 it is velocity)`,
    };
  }
  return { prediction: "epsilon", by: "nothing; noise is the more common" };
};
