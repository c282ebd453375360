/**
 * Published detectors of triggered prompts, run on a model: what bench/screen.ts compares screen with. Formulas and
 * sources stand in metrics/prompt_detectors.ts.
 */
import { Effect } from "effect";
import { openActivations } from "../diffusion/activations.ts";
import type { Bundle } from "../diffusion/bundle.ts";
import { openEvaluator } from "../diffusion/evaluator.ts";
import { latentDims, openSampler } from "../diffusion/sampler.ts";
import { pictureNoise } from "../diffusion/picture_noise.ts";
import { planFor } from "../diffusion/plan.ts";
import { openTextEncoder } from "../diffusion/text.ts";
import { activationVariation, assimilation, slowDissipation } from "../metrics/prompt_detectors.ts";
import { parseUnetConfig } from "../models/unet_2d_condition.ts";
import { normal, seedOf } from "../tensor/random.ts";
import { slice0, type Tensor, zeros } from "../tensor/tensor.ts";

/** Words that say nothing by themselves; NaviT2I does not mask them. */
const STOP = new Set(
  `i me my we our you your he him his she her it its they them their what which who this that these those am is are was
were be been being have has had do does did a an the and but if or because as until while of at by for with about
against between into through during before after above below to from up down in out on off over under again then
once here there when where why how all any both each few more most other some such no nor not only own same so than
too very s t can will just don should now d ll m o re ve y . , ? ! : ;`.split(/\s+/),
);

/** Where a text ends in its ids: the position of its first end token. */
const endOf = (ids: readonly number[], eos: number): number => ids.indexOf(eos);

/** Maps [n, cells, L] of several layers, rows turned to tokens and the layers averaged: [L, cells] of row i. */
const mapsOf = (layers: readonly { readonly maps: Tensor }[], row: number, end: number): Tensor => {
  // Only layers of the finest grid: the papers take those of a quarter of the latents' side, which are the most here.
  const cells = Math.max(...layers.map(({ maps }) => maps.dims[1]));
  const fine = layers.filter(({ maps }) => maps.dims[1] === cells);
  const out = zeros([end, cells]);
  for (const { maps } of fine) {
    const length = maps.dims[2];
    for (let l = 1; l <= end; l++) {
      for (let c = 0; c < cells; c++) {
        out.data[(l - 1) * cells + c] += maps.data[(row * cells + c) * length + l] / fine.length;
      }
    }
  }
  return out;
};

export interface Detected {
  /** One a prompt, more is more suspicious. */
  readonly scores: readonly number[];
  /** U-Net evaluations that the method takes for all of them. */
  readonly evaluations: number;
}

export interface AttentionOptions {
  readonly seed: number;
  readonly guidance: number;
  /** Sampling steps. DAA-I looks at the changes between those at 6 % to 10 % of the way, of its 50; the nearest here. */
  readonly steps: number;
}

/** T2IShield's FTT and DAA-I, both from the attention maps along one guided sampling of each prompt. */
export const openAttentionDetectors = Effect.fnUntraced(function* (bundle: Bundle, options: AttentionOptions) {
  const dims = latentDims(parseUnetConfig(bundle.parts.unet.config));
  const { tokenizer } = bundle;
  const encode = yield* openTextEncoder(bundle);
  const sample = yield* openSampler(bundle);
  const evaluate = yield* openEvaluator(bundle, 1, { attention: true });
  const plan = yield* planFor(bundle, { steps: options.steps, scheduler: "ddim" });
  const timesteps = plan.steps.map(({ timestep }) => timestep);
  const early = Math.max(1, Math.round(0.06 * options.steps));
  const late = Math.max(early, Math.round(0.1 * options.steps));

  return Effect.fnUntraced(function* (texts: readonly string[]) {
    const ids = texts.map((text) => tokenizer.encode(text).ids);
    const embedded = yield* encode([...ids, tokenizer.encode("").ids]);
    const n = texts.length, context = slice0(embedded, 0, n);
    const noise = pictureNoise(seedOf(options.seed, "detectors", "noise"), 1, dims, n);
    const { captured } = yield* sample({ context, uncond: slice0(embedded, n, n + 1) }, noise, {
      steps: options.steps,
      guidance: options.guidance,
      capture: timesteps.map((_, i) => i),
    });
    const contexts = { dims: [n, 1, ...context.dims.slice(1)], data: context.data };
    const ends = ids.map((row) => endOf(row, tokenizer.eos));
    const sums = ends.map((): Tensor | undefined => undefined);
    const steps: Tensor[][] = texts.map(() => []);
    for (const [s, timestep] of timesteps.entries()) {
      const { layers } = yield* evaluate(captured[s], contexts, timestep);
      for (let i = 0; i < n; i++) {
        const maps = mapsOf(layers, i, ends[i]);
        if (s >= early - 1 && s <= late) steps[i].push(maps);
        const sum = sums[i];
        if (sum === undefined) sums[i] = { dims: maps.dims, data: maps.data.slice() };
        else maps.data.forEach((x, j) => sum.data[j] += x);
      }
    }
    return {
      // The maximum of each map is scaled to 1, so that the sum over steps serves as well as the mean.
      ftt: { scores: sums.map((sum) => sum === undefined ? 0 : assimilation(sum)), evaluations: 2 * options.steps * n },
      daa: { scores: steps.map(slowDissipation), evaluations: 2 * (late + 1) * n },
    };
  });
});

/** Rows of one evaluation of NaviT2I: the whole prompt and its masked readings. */
const ROWS = 8;

/**
 * NaviT2I at the first step. Its public code divides by the text's change in a trusted, clean text encoder; without one
 * the suspected encoder's own is taken. `trusted` gives it its encoder, for the comparison.
 */
export const openActivationDetector = Effect.fnUntraced(
  function* (bundle: Bundle, options: { readonly seed: number; readonly steps: number; readonly trusted?: Bundle }) {
    const dims = latentDims(parseUnetConfig(bundle.parts.unet.config));
    const { tokenizer } = bundle;
    const encode = yield* openTextEncoder(bundle);
    const trusted = options.trusted === undefined ? encode : yield* openTextEncoder(options.trusted);
    const variation = yield* openActivations(bundle, ROWS);
    const { steps: [{ timestep: first }] } = yield* planFor(bundle, { steps: options.steps, scheduler: "ddim" });
    const latents = normal(seedOf(options.seed, "detectors", "noise"), [1, ...dims]);

    return Effect.fnUntraced(function* (texts: readonly string[]) {
      const scores: number[] = [], trustedScores: number[] = [];
      let evaluations = 0;
      for (const text of texts) {
        const { ids, content } = tokenizer.encode(text);
        const end = endOf(ids, tokenizer.eos);
        const masked = Array.from({ length: end - 1 }, (_, i) => i + 1).filter((p) => !STOP.has(content[p - 1].text));
        const readings = [ids, ...masked.map((p) => ids.map((id, i) => i === p ? tokenizer.pad : id))];
        const embedded = yield* encode(readings);
        const clean = options.trusted === undefined ? embedded : yield* trusted(readings);
        const [, length, width] = embedded.dims, row = length * width;
        const distances = (of: Tensor) =>
          masked.map((_, m) => {
            let sum = 0;
            for (let i = 0; i < row; i++) sum += (of.data[i] - of.data[(m + 1) * row + i]) ** 2;
            return Math.sqrt(sum);
          });
        const variations: number[] = [];
        for (let begin = 0; begin < masked.length; begin += ROWS - 1) {
          const count = Math.min(ROWS - 1, masked.length - begin);
          const contexts = zeros([ROWS, length, width]);
          for (let r = 0; r < ROWS; r++) {
            const from = r === 0 || r > count ? 0 : begin + r;
            contexts.data.set(embedded.data.subarray(from * row, (from + 1) * row), r * row);
          }
          const moved = yield* variation(latents, contexts, first);
          variations.push(...moved.data.subarray(1, 1 + count));
        }
        evaluations += 1 + masked.length;
        scores.push(activationVariation(variations, distances(embedded)));
        trustedScores.push(activationVariation(variations, distances(clean)));
      }
      return { own: { scores, evaluations }, trusted: { scores: trustedScores, evaluations } };
    });
  },
);
