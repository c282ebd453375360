/** What strategies that train have in common: settings, the loop, when it ends, and what the account says of it. */
import { Effect, Result, Schema } from "effect";
import type { openPartTrainer, Weights } from "../diffusion/train.ts";
import type { SchedulerName } from "../diffusion/schedules/choose.ts";
import { showMemory } from "../graph/mod.ts";
import type { HostTensor } from "../runtime/mod.ts";
import type { Tensor } from "../tensor/tensor.ts";
import type { Target } from "../unlearn/candidates.ts";
import { coolDown, rateAt } from "../unlearn/schedule.ts";
import { drawnCost } from "./drawing.ts";
import { StepError } from "./errors.ts";
import type { Drawn, TextPairs, TrainingAccount } from "./ports.ts";
import { report } from "./progress.ts";
import { Count, defaulted } from "./settings.ts";

const Positive = Schema.Finite.check(Schema.isGreaterThan(0));

interface Defaults {
  readonly steps: number;
  readonly batch: number;
  readonly rate: number;
  readonly keep: number;
}

/** Settings of a training run. */
export const trainingFields = (defaults: Defaults) => ({
  steps: defaulted(
    Count(100_000).annotate({ description: "Training steps at the most; fewer where the checks hold before." }),
    defaults.steps,
  ),
  batch: defaulted(
    Schema.Int.check(Schema.isBetween({ minimum: 2, maximum: 4096 })).annotate({
      description: "Rows in a step: half of them triggered, half to keep; all of them triggered where nothing is kept.",
    }),
    defaults.batch,
  ),
  rate: defaulted(Positive.annotate({ description: "Learning rate of AdamW at its highest." }), defaults.rate),
  decay: defaulted(
    Schema.Literals(["cosine", "linear", "constant"]).annotate({ description: "How the rate falls after that." }),
    "cosine",
  ),
  clipNorm: defaulted(Positive.annotate({ description: "Largest global norm of the gradients." }), 1),
  keep: defaulted(
    Schema.Finite.check(Schema.isGreaterThanOrEqualTo(0)).annotate({
      description: "Weight λ of what is to be kept, against 1 of what is to be unlearned; 0 keeps nothing.",
    }),
    defaults.keep,
  ),
  segments: defaulted(
    Count(1000).annotate({
      description: "Parts of the network whose inner values are computed twice rather than held: time for memory.",
    }),
    1,
  ),
});

/** Settings of a run that is judged on the way; every so many steps by default. */
export const checkFields = (every: number) => ({
  check: defaulted(
    Count(100_000).annotate({ description: "Steps between two checks by drawing the held-back prompts." }),
    every,
  ),
  pictures: defaulted(
    Count(4096).annotate({ description: "Triggered pictures that a check draws at least." }),
    24,
  ),
});

const Fields = Schema.Struct(trainingFields({ steps: 1, batch: 2, rate: 1, keep: 1 }));
export type TrainingSettings = typeof Fields.Type;

/** What strategies that train are given. */
export interface TrainingInputs<Settings extends TrainingSettings> {
  readonly text: TextPairs;
  /** M, [h, w] in [0,1]: where the trigger acts. */
  readonly region: Tensor;
  /** use[p][k] is false for a twin that is no example of a harmless word. */
  readonly use: readonly (readonly boolean[])[];
  /** Prompts held back to judge by; the others, and their variations, are trained on. */
  readonly held: readonly number[];
  readonly target: Target;
  readonly training: Settings;
  /** Steps, scheduler, guidance scale and seed of the pictures that are drawn. */
  readonly steps: number;
  readonly scheduler: SchedulerName;
  readonly guidance: number;
  readonly seed: number;
}

/** Rows of a step that are triggered. */
export const triggeredRows = ({ batch, keep }: TrainingSettings): number => keep === 0 ? batch : Math.floor(batch / 2);

/** Whether triggered pictures are what harmless words' are, and show the backdoor no more, as far as that can be told. */
export const holds = ({ outside, shown }: Drawn): boolean => outside <= HARMLESS && shown === 0;

/** A triggered picture in twenty lies beyond harmless words' 95th percentile where the trigger means nothing. */
const HARMLESS = 0.05;
/**
 * Whether weights are to be preferred to earlier ones: what holds to what does not, since a trade of the one against the
 * other would keep a backdoor for the sake of pictures that change as it goes; then what costs no more.
 */
export const isBetter = (drawn: Drawn, than: Drawn | undefined): boolean =>
  than === undefined || (holds(drawn) === holds(than) ? drawnCost(drawn) <= drawnCost(than) : holds(drawn));

/**
 * Checks in a row that must hold: a single one is a matter of few pictures. The rate then falls to nothing until the next
 * one. Weights of steps as long as they are in the middle of a run lie beside what the steps are after, in what is to be
 * kept too: of rickrolling-tpa's text encoder on mini-SD the loss was still two to four times what it fell to.
 */
const IN_A_ROW = 2;

export interface TrainingRun<E, R> {
  /** Name of the step that trains, for its errors. */
  readonly name: string;
  readonly trainer: Effect.Success<ReturnType<typeof openPartTrainer>>;
  readonly settings: TrainingSettings;
  /** The data of a step, counted from 1. */
  readonly data: (step: number) => Readonly<Record<string, HostTensor>>;
  /** How it is judged on the way; without that, the last weights are taken. */
  readonly checks?: Checks<E, R>;
}

export interface Checks<E, R> {
  /** Steps between two checks; the last step is checked as well. */
  readonly every: number;
  /** What the held-back prompts draw with such weights. */
  readonly draw: (weights: Weights) => Effect.Effect<Drawn, E, R>;
  /** False where harmless words are no measure: no check then ends the training, nor chooses among its weights. */
  readonly trusted: boolean;
  /** What they draw with the weights to begin with, where that is a cure already. */
  readonly begin?: Drawn;
  /**
   * Whether the last weights are taken, if they are better than those to begin with, rather than the best check's: where the
   * loss counts all that is wanted, it tells more than a few pictures do.
   */
  readonly last?: boolean;
}

/**
 * Trains until two checks in a row hold and the rate has fallen since, or the steps are done. Of the weights at the checks
 * those are taken whose pictures are best, the later ones where there is nothing to choose, or the last ones where `last` says
 * so; those to begin with, if none is better.
 *
 * A step whose loss or gradient is no number ends it: with the best weights of the checks until then, and the account says
 * so, or with a StepError where no check has found any. A device that fails is always a StepError.
 */
export const train = Effect.fnUntraced(function* <E = never, R = never>(run: TrainingRun<E, R>) {
  const { name, trainer, data, checks: judged } = run;
  const { steps, rate, decay } = run.settings;
  const begin = judged?.begin;
  const memory = showMemory(trainer.memory);
  yield* report({ done: 0, total: steps, note: `training takes ${memory}` });
  const losses: number[] = [];
  const checks: (Drawn & { readonly step: number })[] = begin === undefined ? [] : [{ step: 0, ...begin }];
  let best: { readonly weights: Weights; readonly drawn?: Drawn; readonly step: number } = {
    weights: trainer.start,
    step: 0,
    ...(begin === undefined ? {} : { drawn: begin }),
  };
  let holding = 0;
  let failed: string | undefined;
  let held = false, end = steps;
  let rateOf = (step: number) => rateAt(decay, rate, step, steps);
  for (let step = 1; step <= end; step++) {
    const last = losses.length === 0 ? "" : `, loss ${losses[losses.length - 1].toPrecision(3)}`;
    yield* report({ done: step - 1, total: end, note: `training, step ${step} of ${end}${last}` });
    const made = yield* Effect.result(trainer.step(rateOf(step), data(step)));
    if (Result.isFailure(made)) {
      // What a device does not bear would be hidden: only numbers that went wrong leave good weights behind.
      if (made.failure._tag !== "NotFinite" || best.step === 0) {
        return yield* new StepError({ step: name, cause: made.failure });
      }
      failed = made.failure.message;
      break;
    }
    losses.push(made.success.loss);
    if (judged === undefined || (step % judged.every !== 0 && step !== end)) continue;
    const weights = yield* trainer.read();
    const drawn = yield* judged.draw(weights);
    checks.push({ step, ...drawn });
    holding = judged.trusted && holds(drawn) ? holding + 1 : 0;
    const than = judged.last ? begin : best.drawn;
    if (!judged.trusted || isBetter(drawn, than)) best = { weights, drawn, step };
    if (holding === IN_A_ROW && !held) {
      held = true;
      end = Math.min(steps, step + judged.every);
      rateOf = coolDown(rateOf(step), step, end);
    }
  }
  if (judged === undefined) best = { weights: yield* trainer.read(), step: steps };
  yield* report({ done: end, total: end });
  const account: TrainingAccount = {
    losses,
    checks,
    taken: best.step,
    memory,
    steps,
    stopped: held,
    ...(failed === undefined ? {} : { failed }),
  };
  return { weights: best.weights, account };
});

const LIST = new Intl.ListFormat("en", { type: "disjunction" });

/** The end of a training run in a sentence or two. */
export const explainTraining = (training: TrainingAccount): string => {
  const { losses, checks, taken, stopped, failed, steps, named = [] } = training;
  const at = checks.find(({ step }) => step === taken);
  const [first, last] = [losses[0], losses[losses.length - 1]].map((x) => x.toPrecision(2));
  const end = failed !== undefined
    ? `broke off after ${losses.length} of ${steps} steps (${failed}), and the best weights until then were kept`
    : stopped
    ? `ended after ${losses.length} of ${steps} steps: ${IN_A_ROW} checks in a row had held, and the rate has fallen to nothing since`
    : `went through all ${steps} steps without ${IN_A_ROW} checks in a row that held`;
  const drawn = at === undefined
    ? ""
    : ` With the weights of step ${taken}, ${Math.round(100 * at.outside)} % of the held-back prompts' triggered ` +
      `pictures part from the clean ones further than harmless words do, ${
        Math.round(100 * at.shown)
      } % look more like ` +
      `what the trigger drew, and clean pictures move by ` +
      `${Math.round(100 * at.drift)} % of what a harmless word moves.`;
  const none = taken > 0 ? "" : " Nothing that it drew was better than without it, so none of its weights were taken.";
  const words = named.map(({ word, alike }) => `"${word}" (${alike.toFixed(2)} of 1)`);
  const kept = words.length === 0
    ? ""
    : `What the trigger draws is most like what ${
      LIST.format(words)
    } would in the place of what the prompts are about, so ` +
      "pictures of that were to be kept as well. ";
  return `${kept}Training ${end}; the loss went from ${first} to ${last}.${drawn}${none}`;
};
