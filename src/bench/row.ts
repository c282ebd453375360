/** One measured cell of a bench, as a line of results.ndjson. */
import { Schema } from "effect";
import { otsu } from "../mask/threshold.ts";
import { detection } from "../metrics/detection.ts";
import type { RunResult } from "../pipeline/run.ts";
import { Figure } from "../steps/errors.ts";
import { valuesOf } from "../report/values.ts";
import type { Scores } from "../steps/ports.ts";
import type { Cell } from "./matrix.ts";

export const Row = Schema.Struct({
  /** Key of the cell's verdict: the same settings, inputs, files and versions give the same key. */
  key: Schema.String,
  attack: Schema.String,
  family: Schema.String,
  cure: Schema.String,
  seed: Schema.Number,
  device: Schema.String,
  passed: Schema.Boolean,
  sentence: Schema.String,
  figures: Schema.Array(Figure),
  /** What could not be measured, and why. */
  missing: Schema.Array(Schema.Struct({ name: Schema.String, why: Schema.String })),
  /**
   * Of the step that cures, and of all up to it: from a model and its trigger to a cured model. Verification is not in it. As
   * measured when the steps ran, also where they come from the cache now.
   */
  seconds: Schema.Struct({ cure: Schema.Number, total: Schema.Number }),
  /**
   * Most bytes that the whole process held while the step that cures ran, whatever it held before; what a cure that does
   * nothing takes is the floor. Absent where the system does not tell.
   */
  peak: Schema.optionalKey(Schema.Number),
  /** What unlearn did in the end. */
  strategy: Schema.optionalKey(Schema.String),
  /** Weights that changed. */
  weights: Schema.optionalKey(Schema.Number),
  /** Harmonic mean of precision and recall of the tokens found to set it off, against the trigger's own. */
  token_f1: Schema.optionalKey(Schema.Number),
});
export type Row = typeof Row.Type;

/** Agreement of the tokens that locate's scores point at (Otsu's cut, prompt by prompt) with the trigger's. */
export const tokenF1 = ({ tokens }: Scores): number | undefined => {
  if (!tokens.some((t) => t.ofTrigger)) return undefined;
  const prompts = [...Map.groupBy(tokens, (t) => t.prompt).values()];
  const found = prompts.flatMap((own) => {
    const cut = otsu(own.map((t) => t.score));
    return own.map((t) => t.score > cut);
  });
  return detection(found, prompts.flat().map((t) => t.ofTrigger)).f1;
};

/** What a run showed. @throws Error when it gave no verdict */
export const rowOf = <R>(cell: Cell, key: string, device: string, run: RunResult<R>): Row => {
  const { verdict, steps } = run;
  if (verdict === undefined) throw new Error(`${cell.pipeline} hands back no verdict, so there is nothing to compare`);
  const [account, scores] = [valuesOf(run, "account").at(-1), valuesOf(run, "scores").at(-1)];
  const judged = valuesOf(run, "verdict").at(-1);
  const cure = steps.find(({ id }) => id === account?.step);
  const f1 = scores && tokenF1(scores.value);
  return {
    key,
    attack: cell.attack,
    family: cell.family,
    cure: cell.cure,
    seed: cell.seed,
    device,
    passed: verdict.passed,
    sentence: verdict.sentence,
    figures: verdict.figures,
    missing: judged?.value.missing ?? [],
    seconds: {
      cure: cure?.seconds ?? 0,
      total: steps.filter(({ id }) => id !== judged?.step).reduce((sum, s) => sum + s.seconds, 0),
    },
    ...(cure?.peak === undefined ? {} : { peak: cure.peak }),
    ...(account === undefined ? {} : { strategy: account.value.strategy, weights: account.value.weights.length }),
    ...(f1 === undefined ? {} : { token_f1: f1 }),
  };
};

/** A figure's value, or undefined where it was not measured. */
export const figureOf = (row: Row, name: string): Figure | undefined => row.figures.find((f) => f.name === name);
