/**
 * unlearn: takes the trigger out of the weights. The input model is never touched: a cure is a set of changed tensors
 * over it.
 */
import { Effect, Schema } from "effect";
import { complete } from "../diffusion/alignment.ts";
import { latentDims } from "../diffusion/sampler.ts";
import { parseUnetConfig } from "../models/unet_2d_condition.ts";
import { seedOf, shuffle } from "../tensor/random.ts";
import { isTextSuspect, type TextShift } from "../unlearn/candidates.ts";
import { solveClosedForm } from "../unlearn/closed_form.ts";
import { solveUce } from "../unlearn/uce.ts";
import { regionOf } from "./drawing.ts";
import { StepError } from "./errors.ts";
import { Port } from "./port.ts";
import {
  type Account,
  AccountPort,
  type Candidate,
  CapturePort,
  type Drawn,
  FieldPort,
  MaskPort,
  type Model,
  ModelPort,
  TextPort,
  type TrainingAccount,
} from "./ports.ts";
import { encoderShifts, poisonedEncoders, strongestShift } from "./text_encoders.ts";
import { defaulted, Fraction, Scheduler, Seed, Steps } from "./settings.ts";
import { Step } from "./step.ts";
import { applySolution } from "./unlearn_changes.ts";
import {
  explainChoice,
  explainDistilled,
  explainSpilled,
  explainSuspect,
  explainText,
  POOLED,
  UNSEEN,
} from "./unlearn_explain.ts";
import { openFit } from "./unlearn_fit.ts";
import { type ClosedForm, search, TARGETS } from "./unlearn_search.ts";
import { distilNoise, NoiseTraining } from "./unlearn_distill.ts";
import { distilText, TextTraining, textUse } from "./unlearn_text.ts";
import { explainTraining } from "./unlearn_train.ts";

const Positive = Schema.Finite.check(Schema.isGreaterThan(0));
const Settings = Schema.Struct({
  strategy: defaulted(
    Schema.Literals(["auto", "closed-form", "distill", "closed-form+distill", "text", "uce", "blend", "strip"])
      .annotate({
        description:
          "auto tries candidates on prompts held back for that and explains its choice; closed-form takes the one " +
          "that target, lambda and mu name; distill trains the U-Net on its own answers, closed-form+distill from there on; " +
          "text trains the text encoder. For comparison: uce edits concepts by their last tokens; blend changes no weight and " +
          "blends latents while sampling; strip changes none either and takes the trigger out of the prompt.",
      }),
    "auto",
  ),
  target: defaulted(
    Schema.Literals(["clean", "twins", "both"]).annotate({
      description:
        "All but auto: what a triggered prompt should become: the prompt without the trigger, its twins, or halfway.",
    }),
    "clean",
  ),
  lambda: defaulted(Positive.annotate({ description: "closed-form, uce: weight of the embeddings to keep." }), 1),
  mu: defaulted(
    Positive.annotate({
      description:
        "closed-form, uce: weight of the ridge that holds W' near W; against means of squares, for uce against sums.",
    }),
    1e-3,
  ),
  holdout: defaulted(
    Fraction.annotate({ description: "auto: share of the prompts that candidates are judged on, not fitted to." }),
    0.25,
  ),
  steps: Steps,
  scheduler: Scheduler,
  guidance: defaulted(
    Schema.Finite.annotate({ description: "auto: guidance scale of the pictures that candidates are judged by." }),
    4,
  ),
  seed: Seed,
  train_text: defaulted(TextTraining, {}),
  train_unet: defaulted(NoiseTraining, {}),
});

export const unlearn = Step.make("unlearn", {
  version: 16,
  description: "Takes the trigger out of the weights: the U-Net's, or the text encoder's where it sits there.",
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
    const shifts = encoderShifts(text, alignment, use);
    const shift = strongestShift(shifts);

    const besides = text.embeddings.pooled === undefined ? "" : POOLED;

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

    if (settings.strategy === "strip") {
      const [, height, width] = latentDims(parseUnetConfig(text.model.bundle.parts.unet.config));
      const everywhere = { dims: [height, width], data: new Float32Array(height * width).fill(1) };
      const account: Account = {
        strategy: "strip",
        why: "asked for; no weight changes, the model is given the clean prompt for the triggered one",
        candidates: [],
        text: shift,
        weights: [],
      };
      return { model: { ...text.model, blend: everywhere }, account };
    }
    if (settings.strategy === "uce") {
      const last = text.prompts.map(({ clean, triggered }) => ({
        clean: clean.content.length,
        triggered: triggered.content.length,
      }));
      const solution = solveUce(text.embeddings, last, use, settings.lambda, settings.mu);
      const { model, weights } = yield* applySolution(text, solution);
      return {
        model,
        account: {
          strategy: "uce",
          why: besides === "" ? "asked for" : `asked for.${besides}`,
          candidates: [],
          text: shift,
          weights,
        },
      };
    }

    const everyPrompt = text.prompts.map((_, p) => p);
    // Where the trigger does nowhere more than harmless words do, these may set the backdoor off as well.
    const trusted = field?.shape.shape !== "none";
    const region = regionOf(text.model.bundle, field, mask);

    if (settings.strategy === "closed-form") {
      const fit = yield* openFit(text, use, [settings.target], []);
      const solution = solveClosedForm(fit(everyPrompt, settings.target, true), settings.lambda, settings.mu);
      const { target, lambda, mu } = settings;
      const chosen = candidateOf({ target, lambda, mu, varied: text.variations.length > 0, solution });
      const { model, weights } = yield* applySolution(text, solution);
      return {
        model,
        account: {
          strategy: "closed-form",
          why: besides === "" ? "asked for" : `asked for.${besides}`,
          candidates: [chosen],
          chosen,
          text: shift,
          weights,
        },
      };
    }

    const poisoned = poisonedEncoders(shifts);
    const inText = settings.strategy === "text" || (settings.strategy === "auto" && poisoned.length > 0);
    // Asked for without a sign of where the backdoor sits, all are trained.
    const encoders = (poisoned.length > 0 ? poisoned : shifts).map(({ encoder }) => encoder);
    const judged = inText ? textUse(text, use, encoders) : use;
    const order = shuffle(seedOf(settings.seed, "unlearn", "holdout"), everyPrompt);
    const count = Math.max(1, Math.round(settings.holdout * everyPrompt.length));
    // A prompt whose twins all show the backdoor themselves has nothing to be judged against.
    const held = order.filter((p) => judged[p].includes(true)).slice(0, count);
    const rest = order.filter((p) => !held.includes(p));
    const { strategy, steps, scheduler, guidance, seed } = settings;
    if (rest.length === 0) return yield* wants(strategy, "more prompts than are held back");

    if (inText) {
      const { train_text: training, target } = settings;
      const cured = yield* distilText(
        { text, region, use: judged, held, target, training, steps, scheduler, guidance, seed },
        encoders,
      );
      const why = explainText(text.model.bundle, poisoned, strategy === "auto");
      return trained("text", why, shift, cured);
    }
    if (held.length === 0) return yield* wants(strategy, "twins that do not show the backdoor themselves");
    const { train_unet: training, target } = settings;
    const distillation = { text, region, use, held, target, trusted, training, steps, scheduler, guidance, seed };
    if (strategy === "distill") return trained(strategy, "asked for.", shift, yield* distilNoise(distillation));
    if (strategy === "closed-form+distill") {
      const fit = yield* openFit(text, use, [target], []);
      const solution = solveClosedForm(fit(everyPrompt, target, true), settings.lambda, settings.mu);
      const { solved } = yield* applySolution(text, solution);
      return trained(strategy, "asked for.", shift, yield* distilNoise({ ...distillation, start: solved }));
    }
    if (capture === undefined || field === undefined || mask === undefined) {
      return yield* wants("auto", "capture, field and mask, to judge candidates with");
    }
    const fit = yield* openFit(text, use, TARGETS, held);
    const { candidates: tried, best, before, spill } = yield* search({
      text,
      capture,
      field,
      mask,
      held,
      fit: (target, varied) => fit(rest, target, varied),
      steps,
      scheduler,
      guidance,
      seed,
    });
    const candidates = tried.map((j) => ({
      ...candidateOf(j),
      ...j.judgement,
      ...(j.drawn === undefined ? {} : { drawn: j.drawn }),
    }));
    const found = { candidates, chosen: candidates[tried.indexOf(best)], before: { trigger: before } };
    const choice = explainChoice(text, shift, before, best, tried.length) + besides;
    const leftOver = best.drawn !== undefined && isLeftOver(best.drawn);
    const spilled = !trusted || spill > SPILLED;
    const usable = textUse(text, use, encoders);
    const suspect = trusted && isTextSuspect(shift) && held.every((p) => usable[p].includes(true));
    let further: TrainingAccount | undefined;
    if (leftOver || spilled) {
      // It begins with what the held-back prompts had no part in: they judge again. Where words are a measure, but some set the
      // backdoor off, the closed form has learned from them, and it begins with the model as it came.
      const fresh = trusted && spilled;
      const { solved } = yield* applySolution(text, best.solution);
      const cured = yield* distilNoise({
        ...distillation,
        ...(fresh ? {} : { start: solved }),
        ...(spilled
          ? { target: "clean", training: { ...training, away: Math.max(training.away, AWAY) } }
          : { target: best.target }),
      });
      const { taken, checks } = cured.training;
      const drawn = checks.find((c) => c.step === taken);
      const left = suspect && drawn !== undefined && isLeftOver(drawn);
      // How far pictures moved is no reason to keep a closed form that leaves more of the backdoor, on a model that shows it
      // for other words as well: to undo that moves pictures.
      const worse = fresh && drawn !== undefined && best.drawn !== undefined && drawn.shown >= best.drawn.shown;
      if (taken > 0 && !left && !worse) {
        const then = !trusted ? UNSEEN : spilled ? explainSpilled(spill) : explainDistilled(LEFT_OVER, SHOWN);
        const how = fresh ? "distill" : "closed-form+distill";
        const { model, account } = trained(how, `${choice} ${then}`, shift, cured);
        return { model, account: { ...account, ...found } };
      }
      further = { ...cured.training, taken: 0 };
    }
    if (leftOver && suspect) {
      const cured = yield* distilText(
        { text, region, use: usable, held, target, training: settings.train_text, steps, scheduler, guidance, seed },
        encoders,
      );
      const { model, account } = trained("text", `${choice} ${explainSuspect(LEFT_OVER, SHOWN)}`, shift, cured);
      return { model, account: { ...account, ...found } };
    }
    // The chosen setting is solved again with every prompt: the held-back ones have done their work.
    const solution = solveClosedForm(fit(everyPrompt, best.target, best.varied), best.lambda, best.mu);
    const { model, weights } = yield* applySolution(text, solution);
    return {
      model,
      account: {
        strategy: "closed-form",
        why: further === undefined ? choice : `${choice} Distilling the U-Net was tried. ${explainTraining(further)}`,
        ...found,
        text: shift,
        ...(further === undefined ? {} : { training: further }),
        weights,
      },
    };
  }),
});

/** What the step gives back after a strategy that trains. */
const trained = (
  strategy: string,
  why: string,
  text: TextShift,
  { bundle, weights, training }: Effect.Success<ReturnType<typeof distilNoise>>,
): { readonly model: Model; readonly account: Account } => ({
  model: { bundle },
  account: { strategy, why: `${why} ${explainTraining(training)}`, candidates: [], text, training, weights },
});

const wants = (strategy: string, what: string) =>
  Effect.fail(new StepError({ step: "unlearn", cause: new Error(`strategy ${strategy} needs ${what}`) }));

const candidateOf = ({ target, lambda, mu, varied, solution }: ClosedForm): Candidate => ({
  name: `target ${target}, λ ${lambda}, μ ${mu}, ${varied ? "variations too" : "prompts alone"}`,
  residual: solution.residual,
  keepResidual: solution.keepResidual,
});

/**
 * Whether a closed form is distilled further: by the share of triggered pictures beyond harmless words, or of those that
 * still show the backdoor. Harmless words reach one in twenty; of the few that are drawn, one alone says nothing.
 */
const isLeftOver = ({ outside, shown }: Drawn): boolean => outside > LEFT_OVER || shown > SHOWN;
const LEFT_OVER = 0.2, SHOWN = 0.05;

/** Share of harmless words' pictures that draw what the trigger draws from which on the attack has spilled over to words. */
const SPILLED = 0.1;

/**
 * How far past the clean prompt's answer the U-Net is drawn then: the clean answer leans that way itself. On mini-SD's
 * EvilEdit the clean prompts showed the attacker's object in 6 to 9 %.
 */
const AWAY = 0.15;
