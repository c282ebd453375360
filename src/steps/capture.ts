/** What denoise hands to locate and unlearn: how the U-Net answers each reading of each prompt, about the same latents. */
import type { Tensor } from "../tensor/tensor.ts";

/** Readings stand in one order everywhere: 0 clean, 1 triggered, from 2 on the twins. */
export const CLEAN = 0, TRIGGERED = 1, FIRST_TWIN = 2;

/** Cross-attention of one layer, averaged over heads, captured steps and neighbouring cells. */
export interface LayerCapture {
  /** The layer's key, `down_blocks.0.attentions.0.transformer_blocks.0.attn2`. */
  readonly layer: string;
  /** [P, R, cells, L]: how much each cell listens to each token. */
  readonly maps: Tensor;
  /** [P, R]: squared distance of the layer's text contribution to the clean reading's, over the latter's square. */
  readonly response: Tensor;
}

/** One token of a triggered prompt, and what changes when a harmless token stands in its place. */
export interface TokenAblation {
  /** Index of the prompt. */
  readonly prompt: number;
  /** Position in the token ids, BOS is 0. */
  readonly position: number;
  readonly piece: string;
  /** True when the trigger put the token there. */
  readonly ofTrigger: boolean;
}

export interface Capture {
  /** Training timesteps at which the U-Net was asked, S of them. */
  readonly timesteps: readonly number[];
  /** Latents along the clean reading's own way, [S, P, C, h, w]. */
  readonly latents: Tensor;
  /** Predicted noise of each reading there, [S, P, R, C, h, w]. */
  readonly noise: Tensor;
  readonly layers: readonly LayerCapture[];
  readonly tokens: readonly TokenAblation[];
  /** For each ablated token, squared change per cell without it: in the triggered reading [A, h, w], in a twin [A, h, w]. */
  readonly tokenChange: { readonly triggered: Tensor; readonly twin: Tensor };
}

/** Mean over channels of (a − b)², for two readings of every step and prompt: [S, P, h, w]. */
export const readingDistance = (noise: Tensor, a: number, b: number): Tensor => {
  const [steps, prompts, readings, channels, h, w] = noise.dims;
  const cells = h * w;
  const out = new Float32Array(steps * prompts * cells);
  for (let sp = 0; sp < steps * prompts; sp++) {
    const at = (reading: number) => (sp * readings + reading) * channels * cells;
    const [x, y] = [at(a), at(b)];
    for (let i = 0; i < channels * cells; i++) {
      const apart = noise.data[x + i] - noise.data[y + i];
      out[sp * cells + (i % cells)] += (apart * apart) / channels;
    }
  }
  return { dims: [steps, prompts, h, w], data: out };
};
