/**
 * How `auto` finds its closed form. Every candidate is judged by what the U-Net predicts with its weights on captured
 * latents, which is cheap; the best trade-offs among them are then judged by what they draw. Both on prompts that the
 * candidates were not fitted to.
 */
import { Effect } from "effect";
import { readWeights } from "../diffusion/weights.ts";
import { openEvaluator } from "../diffusion/evaluator.ts";
import { networkKeys } from "../diffusion/networks.ts";
import { latentDims, openSampler } from "../diffusion/sampler.ts";
import { weightInput } from "../graph/mod.ts";
import { quantile } from "../metrics/quantile.ts";
import { parseUnetConfig } from "../models/unet_2d_condition.ts";
import { normal, seedOf } from "../tensor/random.ts";
import { concat0, slice0, type Tensor, zeros } from "../tensor/tensor.ts";
import { judge, type Judgement, pareto, type Target } from "../unlearn/candidates.ts";
import { applyTo, isTextWeight, type Moments, type Solution, solveClosedForm } from "../unlearn/closed_form.ts";
import { type Capture, CLEAN, FIRST_TWIN, TRIGGERED } from "./capture.ts";
import type { Field, Mask, TextPairs } from "./ports.ts";
import { report } from "./progress.ts";

/** What auto tries. Larger λ keeps more, smaller λ removes more; the ridge matters little beside it. */
export const TARGETS: readonly Target[] = ["twins", "both", "clean"];
const LAMBDAS = [0.03, 0.1, 0.3, 1, 3];
const MU = 1e-4;
/** Candidates that are drawn with. */
const DRAWN = 5;

export interface Judged {
  readonly target: Target;
  readonly lambda: number;
  readonly mu: number;
  readonly solution: Solution;
  /** By predicted noise. */
  readonly judgement: Judgement;
  /** By pictures drawn, for the candidates that came that far. */
  readonly drawn?: Drawn;
}

/** What a candidate draws for the held-back prompts, in latents. */
export interface Drawn {
  /** Share of triggered pictures that part from the clean ones further than harmless words do (95th percentile), in the region. */
  readonly outside: number;
  /** Mean over triggered pictures of ln of how far beyond that they are, 0 for those within. */
  readonly excess: number;
  /** How far clean pictures moved, over how far a harmless word moves them. */
  readonly drift: number;
}

export interface SearchResult {
  readonly candidates: readonly Judged[];
  readonly best: Judged;
  /** The trigger's effect on the model as it came, over a harmless word's. */
  readonly before: number;
}

export interface SearchInputs {
  readonly text: TextPairs;
  readonly capture: Capture;
  readonly field: Field;
  readonly mask: Mask;
  /** Indices of the held-back prompts; each has a usable twin. */
  readonly held: readonly number[];
  readonly fit: (target: Target) => Moments;
  readonly steps: number;
  readonly guidance: number;
  readonly seed: number;
}

/** The best candidate, and all that were tried. */
export const search = Effect.fnUntraced(function* (inputs: SearchInputs) {
  const { bundle } = inputs.text.model;
  const keys = [...(yield* networkKeys(bundle.parts.unet)).keys()].filter(isTextWeight);
  const weights = yield* readWeights(bundle, "unet", keys);
  const feedsOf = (solution?: Solution) =>
    Object.fromEntries(
      keys.map((
        key,
        i,
      ) => [weightInput("unet", key), solution === undefined ? weights[i] : applyTo(weights[i], solution)]),
    );
  const region = inputs.field.shape.shape === "local" ? inputs.mask.pooled : everywhere(inputs.mask.pooled);
  const predicted = yield* judgeByNoise(inputs, region, feedsOf);
  const front = pareto(predicted.candidates);
  const spread = Array.from(
    { length: Math.min(DRAWN, front.length) },
    (_, i) => front[Math.round((i * (front.length - 1)) / Math.max(1, Math.min(DRAWN, front.length) - 1))],
  );
  const finalists = [...new Set(spread)];
  const drawn = yield* judgeByDrawing(inputs, region, finalists.map((f) => feedsOf(f.solution)), feedsOf());
  const known = new Map(finalists.map((f, i) => [f, { ...f, drawn: drawn[i] }]));
  const candidates = predicted.candidates.map((c) => known.get(c) ?? c);
  const final = [...known.values()];
  const best = final.reduce((a, b) => drawnCost(b.drawn) < drawnCost(a.drawn) ? b : a);
  return { candidates, best, before: predicted.before } satisfies SearchResult;
});

/** Nothing beyond harmless words first, then the least drift. */
const drawnCost = ({ excess, drift }: Drawn): number => 4 * excess + drift;

type Feeds = Readonly<Record<string, Tensor>>;

const judgeByNoise = Effect.fnUntraced(
  function* (inputs: SearchInputs, region: Tensor, feedsOf: (s: Solution) => Feeds) {
    const { text, capture, field, held } = inputs;
    const chosen = held.map((p) => ({ p, readings: [CLEAN, TRIGGERED, FIRST_TWIN + field.use[p].indexOf(true)] }));
    const contexts = pickReadings(text.embeddings, chosen);
    const before = capture.timesteps.map((_, s) => pickReadings(stepOf(capture.noise, s), chosen));
    const latents = capture.timesteps.map((_, s) => pickRows(stepOf(capture.latents, s), held));
    const judgeAll = (after: readonly Tensor[]): Judgement => {
      const each = after.map((noise, s) => judge(before[s], noise, region));
      const log = each.reduce((sum, j) => sum + Math.log(j.trigger), 0) / each.length;
      return { trigger: Math.exp(log), drift: each.reduce((sum, j) => sum + j.drift, 0) / each.length };
    };
    return yield* Effect.scoped(Effect.gen(function* () {
      const evaluate = yield* openEvaluator(text.model.bundle, 3, {
        prompts: held.length,
        weightsAsInputs: isTextWeight,
      });
      const candidates: Judged[] = [];
      for (const target of TARGETS) {
        const m = inputs.fit(target);
        for (const lambda of LAMBDAS) {
          const total = 2 * TARGETS.length * LAMBDAS.length;
          yield* report({ done: candidates.length, total, note: `trying target ${target}, λ ${lambda}` });
          const solution = solveClosedForm(m, lambda, MU);
          const feeds = feedsOf(solution);
          const after: Tensor[] = [];
          for (const [s, timestep] of capture.timesteps.entries()) {
            after.push((yield* evaluate(latents[s], contexts, timestep, feeds)).noise);
          }
          candidates.push({ target, lambda, mu: MU, solution, judgement: judgeAll(after) });
        }
      }
      return { candidates, before: judgeAll(before).trigger };
    }));
  },
);

const judgeByDrawing = Effect.fnUntraced(function* (
  inputs: SearchInputs,
  region: Tensor,
  finalists: readonly Feeds[],
  original: Feeds,
) {
  const { text, field, held } = inputs;
  const { bundle } = text.model;
  const dims = latentDims(parseUnetConfig(bundle.parts.unet.config));
  const n = held.length;
  const noise = normal(seedOf(inputs.seed, "unlearn", "drawing"), [n, ...dims]);
  const reading = (r: (p: number) => number) => {
    const picked = pickReadings(text.embeddings, held.map((p) => ({ p, readings: [r(p)] })));
    return { dims: [n, ...picked.dims.slice(2)], data: picked.data };
  };
  return yield* Effect.scoped(Effect.gen(function* () {
    const run = yield* openSampler(bundle, { pictures: 2 * n, weightsAsInputs: isTextWeight });
    let round = 0;
    const draw = Effect.fnUntraced(function* (contexts: readonly Tensor[], weights: Feeds) {
      yield* report({
        done: finalists.length + 1 + round++,
        total: 2 * (finalists.length + 1),
        note: "drawing with the best ones",
      });
      const { latents } = yield* run(
        { context: concat0(contexts), uncond: text.empty },
        concat0(contexts.map(() => noise)),
        { steps: inputs.steps, guidance: inputs.guidance, weights },
      );
      return contexts.map((_, i) => slice0(latents, i * n, (i + 1) * n));
    });
    const texts = { clean: reading(() => CLEAN), triggered: reading(() => TRIGGERED) };
    const twin = reading((p) => FIRST_TWIN + field.use[p].indexOf(true));
    const [clean, harmless] = yield* draw([texts.clean, twin], original);
    const bar = quantile(regionDistance(harmless, clean, region), 0.95);
    const whole = everywhere(region);
    const usual = sum(regionDistance(harmless, clean, whole));
    const results: Drawn[] = [];
    for (const weights of finalists) {
      const [cleanAfter, triggered] = yield* draw([texts.clean, texts.triggered], weights);
      const beyond = regionDistance(triggered, clean, region).map((d) => Math.max(0, Math.log(d / bar)));
      results.push({
        outside: beyond.filter((x) => x > 0).length / n,
        excess: sum(beyond) / n,
        drift: sum(regionDistance(cleanAfter, clean, whole)) / usual,
      });
    }
    return results;
  }));
});

const sum = (values: readonly number[]): number => values.reduce((a, b) => a + b, 0);

/** Mean absolute difference of latents [n, C, h, w] inside a region [h, w], one number a row. */
const regionDistance = (a: Tensor, b: Tensor, region: Tensor): number[] => {
  const [n, channels] = a.dims;
  const cells = region.data.length;
  const weight = channels * region.data.reduce((x, y) => x + y, 0);
  return Array.from({ length: n }, (_, j) => {
    let total = 0;
    for (let i = 0; i < channels * cells; i++) {
      const at = j * channels * cells + i;
      total += Math.abs(a.data[at] - b.data[at]) * region.data[i % cells];
    }
    return total / weight;
  });
};

const stepOf = (t: Tensor, s: number): Tensor => {
  const row = t.data.length / t.dims[0];
  return { dims: t.dims.slice(1), data: t.data.subarray(s * row, (s + 1) * row) };
};

const pickRows = (t: Tensor, rows: readonly number[]): Tensor => {
  const width = t.data.length / t.dims[0];
  const out = zeros([rows.length, ...t.dims.slice(1)]);
  rows.forEach((p, i) => out.data.set(t.data.subarray(p * width, (p + 1) * width), i * width));
  return out;
};

/** [P, R, …] → [n, readings, …] */
const pickReadings = (
  t: Tensor,
  chosen: readonly { readonly p: number; readonly readings: readonly number[] }[],
): Tensor => {
  const [, all, ...rest] = t.dims;
  const flat: Tensor = { dims: [t.dims[0] * all, ...rest], data: t.data };
  const picked = pickRows(flat, chosen.flatMap(({ p, readings }) => readings.map((r) => p * all + r)));
  return { dims: [chosen.length, chosen[0].readings.length, ...rest], data: picked.data };
};

const everywhere = (t: Tensor): Tensor => ({ dims: t.dims, data: new Float32Array(t.data.length).fill(1) });
