/**
 * Strategy `auto`, where the text encoder reads the trigger as it reads other words: closed forms first, the U-Net's
 * distillation where the best of them leaves too much or where harmless words set the backdoor off, and then the text
 * encoder's: on top of that cure, or alone where that leaves too much. Each is judged by what prompts draw that it was not
 * made with.
 */
import { Effect } from "effect";
import type { SchedulerName } from "../diffusion/schedules/choose.ts";
import type { Tensor } from "../tensor/tensor.ts";
import type { Target, TextShift } from "../unlearn/candidates.ts";
import { solveClosedForm } from "../unlearn/closed_form.ts";
import type { Capture } from "./capture.ts";
import type { NoiseTraining } from "./distill_settings.ts";
import type { Account, Candidate, Drawn, Field, Mask, Model, TextPairs, TrainingAccount } from "./ports.ts";
import type { TextEncoder } from "./text_encoders.ts";
import { applySolution } from "./unlearn_changes.ts";
import { distilNoise } from "./unlearn_distill.ts";
import {
  explainChoice,
  explainDistilled,
  explainMore,
  explainRead,
  explainSpilled,
  ON_TOP,
  READ_IN_VAIN,
  UNSEEN,
  VAIN,
} from "./unlearn_explain.ts";
import { type Fit, openFit } from "./unlearn_fit.ts";
import { type ClosedForm, search, TARGETS } from "./unlearn_search.ts";
import { type Beneath, distilText, type TextTraining, textUse } from "./unlearn_text.ts";
import { explainTraining, isBetter } from "./unlearn_train.ts";

export interface AutoInputs {
  readonly text: TextPairs;
  readonly capture: Capture;
  readonly field: Field;
  readonly mask: Mask;
  /** use[p][k] is false for a twin that shows the backdoor itself. */
  readonly use: readonly (readonly boolean[])[];
  /** Prompts held back to judge by, and the others. */
  readonly held: readonly number[];
  readonly rest: readonly number[];
  /** False where the trigger does nowhere more than harmless words do. */
  readonly trusted: boolean;
  /** M, [h, w] in [0,1]: where the trigger acts. */
  readonly region: Tensor;
  readonly shift: TextShift;
  readonly encoders: readonly TextEncoder[];
  /** Said after the choice of a closed form. */
  readonly besides: string;
  readonly training: { readonly text: typeof TextTraining.Type; readonly unet: typeof NoiseTraining.Type };
  readonly target: Target;
  /** Triggered pictures that a closed form is drawn with again before it is the cure; 0 for none. */
  readonly again: number;
  readonly steps: number;
  readonly scheduler: SchedulerName;
  readonly guidance: number;
  readonly seed: number;
}

/** What a strategy that trains came to. */
type Trained = Pick<Effect.Success<ReturnType<typeof distilNoise>>, "bundle" | "weights" | "training">;

export const auto = Effect.fnUntraced(function* (inputs: AutoInputs) {
  const { text, use, held, rest, trusted, region, shift, encoders, training, target } = inputs;
  const { steps, scheduler, guidance, seed } = inputs;
  const fit = yield* openFit(text, use, TARGETS, held);
  const { candidates: tried, best, before, spill, again } = yield* search({
    ...inputs,
    fit: (wanted, varied) => fit(rest, wanted, varied),
  });
  const candidates = tried.map((j) => ({
    ...candidateOf(j),
    ...j.judgement,
    ...(j.drawn === undefined ? {} : { drawn: j.drawn }),
  }));
  const found = { candidates, chosen: candidates[tried.indexOf(best)], before: { trigger: before } };
  const choice = explainChoice(text, shift, before, best, tried.length) + inputs.besides;
  const result = (strategy: string, why: string, cured: Trained) => {
    const { model, account } = trained(strategy, `${choice} ${why}`, shift, cured);
    return { model, account: { ...account, ...found } };
  };

  const leaves = best.drawn !== undefined && (leavesTooMuch(best.drawn) || best.drawn.shown > 0);
  const spilled = !trusted || spill > SPILLED;
  // Harmless texts that the encoder reads as it reads the trigger cannot tell it how to read that: prompts that have others
  // judge it, if need be some that the closed form was fitted to.
  const usable = textUse(text, use, encoders);
  const judges = [...held, ...rest].filter((p) => usable[p].includes(true)).slice(0, held.length);
  const reading = {
    text,
    region,
    use: usable,
    held: judges,
    target,
    training: training.text,
    steps,
    scheduler,
    guidance,
    seed,
  };
  const onTop = (strategy: string, why: string, under: Beneath & Pick<Trained, "weights">, read: Trained) =>
    result(`${strategy}+text`, why + ON_TOP, {
      bundle: read.bundle,
      weights: [...under.weights, ...read.weights],
      training: read.training,
    });
  let unet: Effect.Success<ReturnType<typeof distilNoise>> | undefined;
  // What was tried and not taken is said.
  let inVain = "";
  if (leaves || spilled) {
    // It begins with what the held-back prompts had no part in: they judge again. Where words are a measure, but some set the
    // backdoor off, the closed form has learned from them, and it begins with the model as it came.
    const fresh = trusted && spilled;
    const { solved } = yield* applySolution(text, best.solution);
    const settings = spilled ? { ...training.unet, away: Math.max(training.unet.away, AWAY) } : training.unet;
    unet = yield* distilNoise({
      text,
      region,
      use,
      held,
      trusted,
      steps,
      scheduler,
      guidance,
      seed,
      target: spilled ? "clean" : best.target,
      training: settings,
      ...(fresh ? {} : { start: solved }),
    });
    const drawn = drawnWith(unet.training);
    // How far pictures moved is no reason to keep a closed form that leaves more of the backdoor, on a model that shows it
    // for other words as well: to undo that moves pictures.
    const worse = fresh && drawn !== undefined && best.drawn !== undefined && drawn.shown >= best.drawn.shown;
    const better = unet.training.taken > 0 && !worse;
    const left = !better || (drawn !== undefined && leavesTooMuch(drawn));
    const alone = leaves && left && trusted;
    if (judges.length > 0 && !alone) {
      const under = better ? unet : yield* closedForm(text, best, fit);
      const read = yield* distilText(reading, encoders, under);
      if (read.training.taken > 0) {
        const done = !better ? "" : ` ${explainTraining(unet.training)}`;
        const why = !better ? VAIN : !trusted ? UNSEEN : spilled ? explainSpilled(spill) : explainDistilled(LEFT_OVER);
        return onTop(better ? (fresh ? "distill" : "closed-form+distill") : "closed-form", why + done, under, read);
      }
      inVain = READ_IN_VAIN;
    }
    if (alone && judges.length > 0) {
      const read = yield* distilText(reading, encoders);
      const seen = drawnWith(read.training);
      if (read.training.taken > 0 && seen !== undefined && isBetter(seen, better ? drawn : best.drawn)) {
        return result("text", explainRead(LEFT_OVER, SHOWN), read);
      }
      inVain = READ_IN_VAIN;
    }
    if (better) {
      const why = !trusted ? UNSEEN : spilled ? explainSpilled(spill) : explainDistilled(LEFT_OVER);
      return result(fresh ? "distill" : "closed-form+distill", why + inVain, unet);
    }
  }
  const closed = yield* closedForm(text, best, fit);
  // Few pictures chose it: where one in twenty still shows the backdoor, none of 24 does in three searches of ten.
  const more = unet === undefined && inputs.again > 0 ? yield* again : undefined;
  if (more !== undefined && more.shown > SEEN && judges.length > 0) {
    const read = yield* distilText(reading, encoders, closed);
    if (read.training.taken > 0) return onTop("closed-form", explainMore(more.shown), closed, read);
    inVain = READ_IN_VAIN;
  }
  const { bundle, weights } = closed;
  const further = unet && { ...unet.training, taken: 0 };
  const account: Account = {
    strategy: "closed-form",
    why: further === undefined
      ? choice + (more === undefined || inVain === "" ? "" : ` ${explainMore(more.shown)}${inVain}`)
      : `${choice} Distilling the U-Net was tried. ${explainTraining(further)}${inVain}`,
    ...found,
    text: shift,
    ...(further === undefined ? {} : { training: further }),
    weights,
  };
  return { model: { bundle }, account };
});

/** The chosen setting solved again with every prompt: the held-back ones have done their work. */
const closedForm = Effect.fnUntraced(function* (text: TextPairs, { target, lambda, mu, varied }: ClosedForm, fit: Fit) {
  const everyPrompt = text.prompts.map((_, p) => p);
  const { model, solved, weights } = yield* applySolution(
    text,
    solveClosedForm(fit(everyPrompt, target, varied), lambda, mu),
  );
  return { bundle: model.bundle, values: solved, weights };
});

/** What the step gives back after a strategy that trains. */
export const trained = (
  strategy: string,
  why: string,
  text: TextShift,
  { bundle, weights, training }: Trained,
): { readonly model: Model; readonly account: Account } => ({
  model: { bundle },
  account: { strategy, why: `${why} ${explainTraining(training)}`, candidates: [], text, training, weights },
});

export const candidateOf = ({ target, lambda, mu, varied, solution }: ClosedForm): Candidate => ({
  name: `target ${target}, λ ${lambda}, μ ${mu}, ${varied ? "variations too" : "prompts alone"}`,
  residual: solution.residual,
  keepResidual: solution.keepResidual,
});

/** What the weights that were taken drew. */
const drawnWith = ({ taken, checks }: TrainingAccount): Drawn | undefined => checks.find((c) => c.step === taken);

/**
 * Whether a cure is not good enough: by the share of triggered pictures beyond harmless words, or of those that still show the
 * backdoor. Harmless words reach one in twenty; of the few that are drawn, one alone says nothing of a cure that was trained.
 * After a closed form one is a reason to train: where none of 24 shows it, 2 % may still be left, with one 4 %.
 */
const leavesTooMuch = ({ outside, shown }: Drawn): boolean => outside > LEFT_OVER || shown > SHOWN;
const LEFT_OVER = 0.2, SHOWN = 0.05;

/** Share of the pictures of a closed form that may show the backdoor when it is drawn with again: of 72, one. */
const SEEN = 0.02;

/** Share of harmless words' pictures that draw what the trigger draws from which on the attack has spilled over to words. */
const SPILLED = 0.1;

/**
 * How far past the clean prompt's answer the U-Net is drawn then: the clean answer leans that way itself. On mini-SD's
 * EvilEdit the clean prompts showed the attacker's object in 6 to 9 %.
 */
const AWAY = 0.15;
