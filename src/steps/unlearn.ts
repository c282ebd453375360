/**
 * unlearn: takes the trigger out of the weights. The input model is never touched: a cure is a set of changed tensors
 * over it.
 */
import { Effect, Schema } from "effect";
import { withChanges } from "../diffusion/bundle.ts";
import { complete } from "../diffusion/alignment.ts";
import { openEvaluator } from "../diffusion/evaluator.ts";
import { networkKeys } from "../diffusion/networks.ts";
import { readWeights } from "../diffusion/weights.ts";
import { weightInput } from "../graph/mod.ts";
import { seedOf, shuffle } from "../tensor/random.ts";
import { type Tensor, zeros } from "../tensor/tensor.ts";
import {
  closedFormRows,
  cost,
  isTextPoisoned,
  judge,
  type Judgement,
  type Target,
  textShift,
} from "../unlearn/candidates.ts";
import { applyTo, isTextWeight, moments, type Solution, solveClosedForm } from "../unlearn/closed_form.ts";
import { type Capture, FIRST_TWIN } from "./capture.ts";
import { StepError } from "./errors.ts";
import {
  type Account,
  AccountPort,
  type Candidate,
  CapturePort,
  type Field,
  FieldPort,
  type Mask,
  MaskPort,
  ModelPort,
  type TextPairs,
  TextPort,
} from "./ports.ts";
import { Port } from "./port.ts";
import { report } from "./progress.ts";
import { defaulted, Fraction, Seed } from "./settings.ts";
import { Step } from "./step.ts";

const Positive = Schema.Finite.check(Schema.isGreaterThan(0));
const Settings = Schema.Struct({
  strategy: defaulted(
    Schema.Literals(["auto", "closed-form", "blend"]).annotate({
      description:
        "auto tries candidates on prompts held back for that and explains its choice; closed-form takes the one " +
        "that target, lambda and mu name; blend changes no weight and blends latents while sampling.",
    }),
    "auto",
  ),
  target: defaulted(
    Schema.Literals(["clean", "twins", "both"]).annotate({
      description:
        "closed-form: what a triggered prompt should become: the prompt without the trigger, its twins, or halfway.",
    }),
    "clean",
  ),
  lambda: defaulted(Positive.annotate({ description: "closed-form: weight of the embeddings to keep." }), 1),
  mu: defaulted(Positive.annotate({ description: "closed-form: weight of the ridge that holds W' near W." }), 1e-3),
  holdout: defaulted(
    Fraction.annotate({ description: "auto: share of the prompts that candidates are judged on, not fitted to." }),
    0.25,
  ),
  seed: Seed,
});

export const unlearn = Step.make("unlearn", {
  version: 1,
  description: "Takes the trigger out of the weights through which text enters the U-Net.",
  settings: Settings,
  inputs: {
    text: TextPort,
    capture: Port.optional(CapturePort),
    field: Port.optional(FieldPort),
    mask: Port.optional(MaskPort),
  },
  outputs: { model: ModelPort, account: AccountPort },
  run: Effect.fnUntraced(function* ({ text, capture, field, mask }, settings) {
    const use = field?.use ?? text.prompts.map((p) => p.twins.map(() => true));
    const alignment = text.prompts.map((p) => complete(p.toClean));
    const shift = textShift(text.embeddings, alignment, use);

    if (settings.strategy === "blend") {
      if (mask === undefined) return yield* wants("blend", "a mask");
      const account: Account = {
        strategy: "blend",
        why: "asked for; no weight changes, the latents of the clean reading flow into the masked cells while sampling",
        candidates: [],
        text: shift,
        weights: [],
      };
      return { model: { ...text.model, blend: mask.pooled }, account };
    }

    const fitOn = (chosen: readonly number[], target: Target) => {
      const rows = closedFormRows(text.embeddings, alignment, use, chosen, target);
      return moments(rows.triggered, rows.wanted, rows.keep);
    };
    const everyPrompt = text.prompts.map((_, p) => p);

    if (settings.strategy === "closed-form") {
      const solution = solveClosedForm(fitOn(everyPrompt, settings.target), settings.lambda, settings.mu);
      const chosen = candidateOf(settings.target, settings.lambda, settings.mu, solution);
      const { model, weights } = yield* applySolution(text, solution);
      return {
        model,
        account: { strategy: "closed-form", why: "asked for", candidates: [chosen], chosen, text: shift, weights },
      };
    }

    if (capture === undefined || field === undefined || mask === undefined) {
      return yield* wants("auto", "capture, field and mask, to judge candidates with");
    }
    const held = Math.max(1, Math.round(settings.holdout * everyPrompt.length));
    const order = shuffle(seedOf(settings.seed, "unlearn", "holdout"), everyPrompt);
    const [validation, fit] = [order.slice(0, held), order.slice(held)];
    if (fit.length === 0) return yield* wants("auto", "more prompts than are held back");
    const judged = yield* search(text, capture, field, mask, validation, (target) => fitOn(fit, target));
    const best = judged.reduce((a, b) => cost(b.judgement) < cost(a.judgement) ? b : a);
    // The chosen setting is solved again with every prompt: the held-back ones have done their work.
    const solution = solveClosedForm(fitOn(everyPrompt, best.target), best.lambda, best.mu);
    const { model, weights } = yield* applySolution(text, solution);
    const candidates = judged.map((j) => ({ ...candidateOf(j.target, j.lambda, j.mu, j.solution), ...j.judgement }));
    return {
      model,
      account: {
        strategy: "closed-form",
        why: explainChoice(shift, judged[0].before, best),
        candidates,
        chosen: candidates[judged.indexOf(best)],
        before: { trigger: judged[0].before },
        text: shift,
        weights,
      },
    };
  }),
});

const wants = (strategy: string, what: string) =>
  Effect.fail(new StepError({ step: "unlearn", cause: new Error(`strategy ${strategy} needs ${what}`) }));

const candidateOf = (target: Target, lambda: number, mu: number, s: Solution): Candidate => ({
  name: `target ${target}, λ ${lambda}, μ ${mu}`,
  residual: s.residual,
  keepResidual: s.keepResidual,
});

/** What auto tries. Larger λ keeps more, smaller λ removes more; the ridge matters little beside it. */
const TARGETS: readonly Target[] = ["twins", "both", "clean"];
const LAMBDAS = [0.03, 0.1, 0.3, 1, 3];
const MU = 1e-4;

interface Judged {
  readonly target: Target;
  readonly lambda: number;
  readonly mu: number;
  readonly solution: Solution;
  readonly judgement: Judgement;
  /** The trigger's effect before any cure. */
  readonly before: number;
}

/** Judges every candidate on the validation prompts, by what the U-Net predicts with its weights, on captured latents. */
const search = Effect.fnUntraced(function* (
  text: TextPairs,
  capture: Capture,
  field: Field,
  mask: Mask,
  validation: readonly number[],
  fit: (target: Target) => ReturnType<typeof moments>,
) {
  const bundle = text.model.bundle;
  // Clean, triggered and the first usable twin of each validation prompt.
  const chosen = validation.flatMap((p) => {
    const twin = field.use[p].indexOf(true);
    return twin < 0 ? [] : [{ p, readings: [0, 1, FIRST_TWIN + twin] }];
  });
  if (chosen.length === 0) {
    return yield* wants("auto", "validation prompts whose twins do not show the backdoor themselves");
  }
  const contexts = pickReadings(text.embeddings, chosen);
  const before = capture.timesteps.map((_, s) => pickReadings(stepOf(capture.noise, s), chosen));
  const latents = capture.timesteps.map((_, s) => pickRows(stepOf(capture.latents, s), chosen.map(({ p }) => p)));
  const region = field.shape.shape === "local" ? mask.pooled : everywhere(mask.pooled);
  const keys = [...(yield* networkKeys(bundle.parts.unet)).keys()].filter(isTextWeight);
  const weights = yield* readWeights(bundle, "unet", keys);
  const judgeAll = (after: readonly Tensor[]): Judgement => {
    const each = after.map((noise, s) => judge(before[s], noise, region));
    const log = each.reduce((sum, j) => sum + Math.log(j.trigger), 0) / each.length;
    return { trigger: Math.exp(log), drift: each.reduce((sum, j) => sum + j.drift, 0) / each.length };
  };
  const uncured = judgeAll(before).trigger;

  return yield* Effect.scoped(Effect.gen(function* () {
    const evaluate = yield* openEvaluator(bundle, 3, { weightsAsInputs: isTextWeight });
    const judged: Judged[] = [];
    for (const target of TARGETS) {
      const m = fit(target);
      for (const lambda of LAMBDAS) {
        yield* report({
          done: judged.length,
          total: TARGETS.length * LAMBDAS.length,
          note: `trying target ${target}, λ ${lambda}`,
        });
        const solution = solveClosedForm(m, lambda, MU);
        const feeds = Object.fromEntries(
          keys.map((key, i) => [weightInput("unet", key), applyTo(weights[i], solution)]),
        );
        const after: Tensor[] = [];
        for (const [s, timestep] of capture.timesteps.entries()) {
          after.push((yield* evaluate(latents[s], contexts, timestep, feeds)).noise);
        }
        judged.push({ target, lambda, mu: MU, solution, judgement: judgeAll(after), before: uncured });
      }
    }
    return judged;
  }));
});

/** Writes W X over every text weight. */
const applySolution = Effect.fnUntraced(function* (text: TextPairs, solution: Solution) {
  const { bundle } = text.model;
  const stored = yield* networkKeys(bundle.parts.unet);
  const keys = [...stored.keys()].filter(isTextWeight);
  const old = yield* readWeights(bundle, "unet", keys);
  const changed = old.map((weight) => applyTo(weight, solution));
  const weights = keys.map((key, i) => ({ key, change: relativeChange(old[i], changed[i]) }));
  const changes = new Map(keys.map((key, i) => [stored.get(key) ?? key, changed[i]]));
  return { model: { bundle: withChanges(bundle, "unet", changes) }, weights };
});

/** ‖b − a‖ / ‖a‖ */
const relativeChange = (a: Tensor, b: Tensor): number => {
  let apart = 0, whole = 0;
  a.data.forEach((x, i) => {
    apart += (b.data[i] - x) ** 2;
    whole += x * x;
  });
  return Math.sqrt(apart / whole);
};

const explainChoice = ({ shift, spread }: { shift: number; spread: number }, before: number, best: Judged): string => {
  const { target, lambda, judgement } = best;
  const found =
    `Of ${
      TARGETS.length * LAMBDAS.length
    } closed forms, target ${target} with λ ${lambda} did best on prompts it was ` +
    `not fitted to: the trigger's effect there falls from ${before.toFixed(1)} to ${
      judgement.trigger.toFixed(1)
    } times a harmless ` +
    `word's, and other prompts move by ${(100 * judgement.drift).toFixed(1)} % of what a harmless word moves.`;
  if (!isTextPoisoned({ shift, spread })) {
    return `The text encoder treats the trigger like any word (it moves the embeddings ${
      shift.toFixed(1)
    } times as far, and prompts stay ` +
      `${spread.toFixed(1)} times as different), so the backdoor sits in the U-Net. ${found}`;
  }
  return `The backdoor sits in the text encoder: the trigger moves the embeddings ${
    shift.toFixed(1)
  } times as far as harmless words do, and ` +
    `triggered prompts are ${
      spread.toFixed(2)
    } times as different from each other as with harmless words. Weights of the U-Net can only ` +
    `soften that; distilling the text encoder is what cures it, and this version cannot do that yet. ${found}`;
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
