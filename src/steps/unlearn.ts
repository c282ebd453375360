/**
 * unlearn: takes the trigger out of the weights. The input model is never touched: a cure is a set of changed tensors
 * over it.
 */
import { Effect, Schema } from "effect";
import { complete } from "../diffusion/alignment.ts";
import { readWeights, withChanges } from "../diffusion/bundle.ts";
import { networkKeys } from "../diffusion/networks.ts";
import { seedOf, shuffle } from "../tensor/random.ts";
import type { Tensor } from "../tensor/tensor.ts";
import { isTextPoisoned, type Target, type TextShift, textShift } from "../unlearn/candidates.ts";
import { applyTo, isTextWeight, type Solution, solveClosedForm } from "../unlearn/closed_form.ts";
import { StepError } from "./errors.ts";
import { Port } from "./port.ts";
import {
  type Account,
  AccountPort,
  type Candidate,
  CapturePort,
  FieldPort,
  MaskPort,
  ModelPort,
  type TextPairs,
  TextPort,
} from "./ports.ts";
import { defaulted, Fraction, Seed, Steps } from "./settings.ts";
import { Step } from "./step.ts";
import { openFit } from "./unlearn_fit.ts";
import { type Judged, search, TARGETS } from "./unlearn_search.ts";

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
  steps: Steps,
  guidance: defaulted(
    Schema.Finite.annotate({ description: "auto: guidance scale of the pictures that candidates are judged by." }),
    4,
  ),
  seed: Seed,
});

export const unlearn = Step.make("unlearn", {
  version: 2,
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

    const everyPrompt = text.prompts.map((_, p) => p);

    if (settings.strategy === "closed-form") {
      const fit = yield* openFit(text, use, [settings.target], []);
      const solution = solveClosedForm(fit(everyPrompt, settings.target), settings.lambda, settings.mu);
      const chosen = candidateOf(settings.target, settings.lambda, settings.mu, solution);
      const { model, weights } = yield* applySolution(text, solution);
      return {
        model,
        account: { strategy: "closed-form", why: "asked for", candidates: [chosen], chosen, text: shift, weights },
      };
    }

    if (isTextPoisoned(shift)) {
      // Closed forms on the U-Net's side were seen to spoil clean pictures here and to leave the backdoor: better none.
      return {
        model: text.model,
        account: { strategy: "none", why: explainText(shift), candidates: [], text: shift, weights: [] },
      };
    }
    if (capture === undefined || field === undefined || mask === undefined) {
      return yield* wants("auto", "capture, field and mask, to judge candidates with");
    }
    const order = shuffle(seedOf(settings.seed, "unlearn", "holdout"), everyPrompt);
    const count = Math.max(1, Math.round(settings.holdout * everyPrompt.length));
    // A prompt whose twins all show the backdoor themselves has nothing to be judged against.
    const held = order.filter((p) => use[p].includes(true)).slice(0, count);
    const rest = order.filter((p) => !held.includes(p));
    if (held.length === 0) return yield* wants("auto", "twins that do not show the backdoor themselves");
    if (rest.length === 0) return yield* wants("auto", "more prompts than are held back");
    const { steps, guidance, seed } = settings;
    const fit = yield* openFit(text, use, TARGETS, held);
    const { candidates: judged, best, before } = yield* search({
      text,
      capture,
      field,
      mask,
      held,
      fit: (target) => fit(rest, target),
      steps,
      guidance,
      seed,
    });
    // The chosen setting is solved again with every prompt: the held-back ones have done their work.
    const solution = solveClosedForm(fit(everyPrompt, best.target), best.lambda, best.mu);
    const { model, weights } = yield* applySolution(text, solution);
    const candidates = judged.map((j) => ({
      ...candidateOf(j.target, j.lambda, j.mu, j.solution),
      ...j.judgement,
      ...(j.drawn === undefined ? {} : { drawn: j.drawn }),
    }));
    return {
      model,
      account: {
        strategy: "closed-form",
        why: explainChoice(text, shift, before, best, judged.length),
        candidates,
        chosen: candidates[judged.indexOf(best)],
        before: { trigger: before },
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

const explainChoice = (
  { prompts, variations }: TextPairs,
  { shift, spread }: { shift: number; spread: number },
  before: number,
  { target, lambda, judgement, drawn }: Judged,
  tried: number,
): string => {
  const [trigger, was] = [judgement.trigger, before].map((x) => x.toFixed(1));
  const pictures = drawn === undefined
    ? ""
    : ` Drawn with it, ${
      Math.round(100 * drawn.outside)
    } % of triggered pictures still part from the clean ones further than harmless ` +
      `words do, and clean pictures move by ${Math.round(100 * drawn.drift)} % of what a harmless word moves.`;
  const found =
    `Of ${tried} closed forms, fitted to ${prompts.length} prompts and ${variations.length} variations, target ${target} with λ ${lambda} did best on prompts it was not fitted to: the trigger's ` +
    `effect on the predicted noise falls from ${was} to ${trigger} times a harmless word's.${pictures}`;
  return `The text encoder treats the trigger like any word (it moves the embeddings ${
    shift.toFixed(1)
  } times as far, and prompts stay ` +
    `${spread.toFixed(1)} times as different), so the backdoor sits in the U-Net. ${found}`;
};

const explainText = ({ shift, spread }: TextShift): string =>
  `The backdoor sits in the text encoder: the trigger moves the embeddings ${
    shift.toFixed(1)
  } times as far as harmless words do, and ` +
  `triggered prompts are ${
    spread.toFixed(2)
  } times as different from each other as with harmless words. No weight of the U-Net can undo ` +
  `that, so none was changed. Distilling the text encoder is what cures it; this version cannot do that yet.`;
