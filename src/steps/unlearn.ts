/**
 * unlearn: takes the trigger out of the weights. The input model is never touched: a cure is a set of changed tensors
 * over it.
 */
import { Effect, Schema } from "effect";
import { complete } from "../diffusion/alignment.ts";
import { latentDims } from "../diffusion/sampler.ts";
import { parseUnetConfig } from "../models/unet_2d_condition.ts";
import { seedOf, shuffle } from "../tensor/random.ts";
import { solveClosedForm } from "../unlearn/closed_form.ts";
import { solveUce } from "../unlearn/uce.ts";
import { NoiseTraining } from "./distill_settings.ts";
import { regionOf } from "./drawing.ts";
import { StepError } from "./errors.ts";
import { Port } from "./port.ts";
import { type Account, AccountPort, CapturePort, FieldPort, MaskPort, ModelPort, TextPort } from "./ports.ts";
import { encoderShifts, poisonedEncoders, strongestShift } from "./text_encoders.ts";
import { defaulted, Fraction, Scheduler, Seed, Steps } from "./settings.ts";
import { Step } from "./step.ts";
import { auto, candidateOf, trained } from "./unlearn_auto.ts";
import { applySolution } from "./unlearn_changes.ts";
import { explainText, POOLED } from "./unlearn_explain.ts";
import { openFit } from "./unlearn_fit.ts";
import { distilNoise } from "./unlearn_distill.ts";
import { distilText, TextTraining, textUse } from "./unlearn_text.ts";

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
  again: defaulted(
    Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 4096 })).annotate({
      description:
        "auto: triggered pictures that are drawn once more, from other noise, before a closed form is the cure: where more " +
        "than one in fifty shows the backdoor, the text encoder is distilled on top. 0 draws none.",
    }),
    72,
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
  version: 27,
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
    return yield* auto({
      text,
      capture,
      field,
      mask,
      use,
      held,
      rest,
      trusted,
      region,
      shift,
      encoders,
      besides,
      training: { text: settings.train_text, unet: training },
      target,
      again: settings.again,
      steps,
      scheduler,
      guidance,
      seed,
    });
  }),
});

const wants = (strategy: string, what: string) =>
  Effect.fail(new StepError({ step: "unlearn", cause: new Error(`strategy ${strategy} needs ${what}`) }));
