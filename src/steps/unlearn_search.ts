/**
 * How `auto` finds its closed form. Every candidate is judged by what the U-Net predicts with its weights on captured
 * latents, which is cheap; the best trade-offs among them are then judged by what they draw. Both on prompts that the
 * candidates were not fitted to.
 */
import { Effect } from "effect";
import { readWeights } from "../diffusion/weights.ts";
import { eachEmbedding } from "../diffusion/embeddings.ts";
import { openEvaluator } from "../diffusion/evaluator.ts";
import { networkKeys } from "../diffusion/networks.ts";
import type { SchedulerName } from "../diffusion/schedules/choose.ts";
import { weightInput } from "../graph/mod.ts";
import { seedOf } from "../tensor/random.ts";
import type { Tensor } from "../tensor/tensor.ts";
import { judge, type Judgement, spreadOf, type Target } from "../unlearn/candidates.ts";
import { applyTo, isTextWeight, type Moments, type Solution, solveClosedForm } from "../unlearn/closed_form.ts";
import { type Capture, CLEAN, FIRST_TWIN, TRIGGERED } from "./capture.ts";
import { drawnCost, type Measure, openDrawing, regionOf } from "./drawing.ts";
import type { Drawn, Field, Mask, TextPairs } from "./ports.ts";
import { report } from "./progress.ts";
import { pickReadings, pickRows, repeated } from "./rows.ts";

/** What auto tries. Larger λ keeps more, smaller λ removes more; the ridge matters little beside it. */
export const TARGETS: readonly Target[] = ["twins", "both", "clean"];
const LAMBDAS = [0.03, 0.1, 0.3, 1, 3];
const MU = 1e-4;
/** Candidates that are drawn with. */
const DRAWN = 4;
/** Triggered pictures of each, at least. */
const PICTURES = 24;

/** A closed form and what it was made with. */
export interface ClosedForm {
  readonly target: Target;
  readonly lambda: number;
  readonly mu: number;
  /** Whether it was fitted to variations of the prompts, too. */
  readonly varied: boolean;
  readonly solution: Solution;
}

export interface Judged extends ClosedForm {
  /** By predicted noise. */
  readonly judgement: Judgement;
  /** By pictures drawn, for the candidates that came that far. */
  readonly drawn?: Drawn;
}

export interface SearchResult {
  readonly candidates: readonly Judged[];
  readonly best: Judged;
  /** The trigger's effect on the model as it came, over a harmless word's. */
  readonly before: number;
  /** Share of harmless words' pictures that draw what the trigger draws. */
  readonly spill: number;
}

export interface SearchInputs {
  readonly text: TextPairs;
  readonly capture: Capture;
  readonly field: Field;
  readonly mask: Mask;
  /** Indices of the held-back prompts; each has a usable twin. */
  readonly held: readonly number[];
  readonly fit: (target: Target, varied: boolean) => Moments;
  /** Triggered pictures that the best one is drawn with again. */
  readonly again: number;
  readonly steps: number;
  readonly scheduler: SchedulerName;
  readonly guidance: number;
  readonly seed: number;
}

/** The best candidate, all that were tried, and how to draw with the best one again. */
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
  const region = regionOf(bundle, inputs.field, inputs.mask);
  const predicted = yield* judgeByNoise(inputs, region, feedsOf);
  const finalists = spreadOf(predicted.candidates, DRAWN);
  const original = feedsOf();
  const { drawn, measure } = yield* judgeByDrawing(
    inputs,
    region,
    finalists.map((f) => feedsOf(f.solution)),
    original,
    {
      pictures: PICTURES,
      seed: inputs.seed,
      note: "drawing with the best ones",
    },
  );
  const known = new Map(finalists.map((f, i) => [f, { ...f, drawn: drawn[i] }]));
  const candidates = predicted.candidates.map((c) => known.get(c) ?? c);
  const final = [...known.values()];
  const best = final.reduce((a, b) => drawnCost(b.drawn) < drawnCost(a.drawn) ? b : a);
  const again = judgeByDrawing(inputs, region, [feedsOf(best.solution)], original, {
    pictures: inputs.again,
    seed: seedOf(inputs.seed, "unlearn", "again"),
    measure,
    note: "drawing more with the best one",
  }).pipe(Effect.map(({ drawn }) => drawn[0]));
  const found: SearchResult = { candidates, best, before: predicted.before, spill: measure.spill };
  return { ...found, again };
});

type Feeds = Readonly<Record<string, Tensor>>;

const judgeByNoise = Effect.fnUntraced(
  function* (inputs: SearchInputs, region: Tensor, feedsOf: (s: Solution) => Feeds) {
    const { text, capture, field, held } = inputs;
    const chosen = held.map((p) => ({ p, readings: [CLEAN, TRIGGERED, FIRST_TWIN + field.use[p].indexOf(true)] }));
    const contexts = eachEmbedding(text.embeddings, (t) => pickReadings(t, chosen));
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
      const fits = TARGETS.flatMap((target) =>
        (text.variations.length === 0 ? [false] : [false, true]).map((varied) => ({ target, varied }))
      );
      const candidates: Judged[] = [];
      for (const { target, varied } of fits) {
        const m = inputs.fit(target, varied);
        for (const lambda of LAMBDAS) {
          const total = 2 * fits.length * LAMBDAS.length;
          yield* report({ done: candidates.length, total, note: `trying target ${target}, λ ${lambda}` });
          const solution = solveClosedForm(m, lambda, MU);
          const feeds = feedsOf(solution);
          const after: Tensor[] = [];
          for (const [s, timestep] of capture.timesteps.entries()) {
            after.push((yield* evaluate(latents[s], contexts, timestep, feeds)).noise);
          }
          candidates.push({ target, lambda, mu: MU, varied, solution, judgement: judgeAll(after) });
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
  { pictures, note, ...rest }: {
    readonly pictures: number;
    readonly seed: number;
    readonly note: string;
    readonly measure?: Measure;
  },
) {
  const { text, field, held, steps, scheduler, guidance } = inputs;
  return yield* Effect.scoped(Effect.gen(function* () {
    const total = 2 * (finalists.length + 1);
    const { judge, measure } = yield* openDrawing({
      bundle: text.model.bundle,
      texts: text,
      held: repeated(held, pictures),
      use: field.use,
      region,
      steps,
      scheduler,
      guidance,
      ...rest,
      weightsAsInputs: isTextWeight,
      original,
      onDraw: (round) => report({ done: finalists.length + 1 + round, total, note }),
    });
    const drawn = yield* Effect.forEach(finalists, (weights) => judge({ weights }));
    return { drawn, measure };
  }));
});

const stepOf = (t: Tensor, s: number): Tensor => {
  const row = t.data.length / t.dims[0];
  return { dims: t.dims.slice(1), data: t.data.subarray(s * row, (s + 1) * row) };
};
