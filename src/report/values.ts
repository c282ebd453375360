/** What a run holds for the report: the values of its steps, by the kind of their ports. */
import type { RunResult } from "../pipeline/run.ts";
import type { Verdict as AnyVerdict } from "../steps/errors.ts";
import type { ScreenResult } from "../steps/screen_ports.ts";
import type { Account, Field, Mask, Model, ScanResult, Scores, TextPairs, Verdict } from "../steps/ports.ts";

/**
 * The values that the report knows how to draw. Ports of one kind carry one type of value: that is what makes them fit.
 * A verdict may come from a step of the user's own, with nothing but the judgement in it.
 */
export interface Kinds {
  readonly text: TextPairs;
  readonly field: Field;
  readonly scores: Scores;
  readonly scan: ScanResult;
  readonly screen: ScreenResult;
  readonly mask: Mask;
  readonly model: Model;
  readonly account: Account;
  readonly verdict: AnyVerdict & Partial<Verdict>;
}

/** A value, and the step that gave it. */
export interface Found<A> {
  readonly step: string;
  readonly output: string;
  readonly value: A;
}

/** Every value of a kind, in the order of the steps. */
export const valuesOf = <K extends keyof Kinds, R>(run: RunResult<R>, kind: K): Found<Kinds[K]>[] =>
  run.pipeline.steps.flatMap(({ id, step }) => {
    const given = run.steps.find((result) => result.id === id)?.outputs ?? {};
    return Object.entries(step.outputs).flatMap(([output, port]) => {
      const value = given[output];
      return port.kind === kind && value !== undefined && value !== null
        ? [{ step: id, output, value: value as Kinds[K] }]
        : [];
    });
  });

/** The value that a step took as an input of a kind; without one, the last value of that kind in the run. */
export const inputOf = <K extends keyof Kinds, R>(run: RunResult<R>, step: string, kind: K): Kinds[K] | undefined => {
  const wires = Object.values(run.pipeline.steps.find(({ id }) => id === step)?.inputs ?? {});
  const wire = wires.find(({ port }) => port.kind === kind);
  const all = valuesOf(run, kind);
  return (all.find((v) => v.step === wire?.step && v.output === wire?.output) ?? all.at(-1))?.value;
};
