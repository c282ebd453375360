/** A law as a named property, and the check that reports the smallest example against it. */
import fc from "fast-check";

export interface LawOptions {
  /** Examples a law (100 unless told). */
  readonly runs?: number;
  /** Seed of the examples, to repeat a failure. */
  readonly seed?: number;
  /** What float32 rounding may add up to (1e-5 unless told). */
  readonly tolerance?: number;
  /** Laws that do not hold for a reason, by name. */
  readonly except?: readonly string[];
}

/** What must hold of every example; it throws where it does not. */
export interface Law {
  readonly name: string;
  readonly check: (parameters: fc.Parameters<unknown>) => Failure | undefined;
}

interface Failure {
  readonly counterexample: unknown;
  readonly report: string | undefined;
}

export const law = <A>(name: string, examples: fc.Arbitrary<A>, holds: (example: A) => void): Law => ({
  name,
  check: ({ numRuns, seed }) => {
    const details = fc.check(fc.property(examples, holds), { numRuns, seed });
    if (!details.failed) return undefined;
    return { counterexample: details.counterexample?.[0], report: fc.defaultReportMessage(details) };
  },
});

/** A law was broken: its name, and the smallest example found. The message holds fast-check's own report. */
export class LawBroken extends Error {
  override readonly name = "LawBroken";
  readonly law: string;
  readonly counterexample: unknown;
  constructor(subject: string, name: string, counterexample: unknown, report: string | undefined) {
    super(`${subject} breaks the law "${name}"\n${report ?? "no report"}`);
    this.law = name;
    this.counterexample = counterexample;
  }
}

/** Checks all laws in turn but those excepted. @throws LawBroken at the first that does not hold */
export const check = (subject: string, laws: readonly Law[], { runs = 100, seed, except = [] }: LawOptions): void => {
  const names = laws.map((l) => l.name);
  const unknown = except.find((name) => !names.includes(name));
  if (unknown !== undefined) throw new Error(`there is no law "${unknown}"; the laws are: ${names.join("; ")}`);
  for (const { name, check } of laws) {
    if (except.includes(name)) continue;
    const failure = check({ numRuns: runs, seed });
    if (failure) throw new LawBroken(subject, name, failure.counterexample, failure.report);
  }
};
