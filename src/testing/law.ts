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

/** The same of what takes its time. */
export interface AsyncLaw {
  readonly name: string;
  readonly check: (parameters: fc.Parameters<unknown>) => Promise<Failure | undefined>;
}

interface Failure {
  readonly counterexample: unknown;
  readonly error: unknown;
  readonly report: string | undefined;
}

const failureOf = <A>(details: fc.RunDetails<[A]>): Failure | undefined =>
  details.failed
    ? {
      counterexample: details.counterexample?.[0],
      error: details.errorInstance,
      report: fc.defaultReportMessage(details),
    }
    : undefined;

export const law = <A>(name: string, examples: fc.Arbitrary<A>, holds: (example: A) => void): Law => ({
  name,
  check: ({ numRuns, seed }) => failureOf(fc.check(fc.property(examples, holds), { numRuns, seed })),
});

export const asyncLaw = <A>(
  name: string,
  examples: fc.Arbitrary<A>,
  holds: (example: A) => Promise<void>,
): AsyncLaw => ({
  name,
  check: async ({ numRuns, seed }) => failureOf(await fc.check(fc.asyncProperty(examples, holds), { numRuns, seed })),
});

/**
 * A law was broken: its name, and the smallest example found. The message says what went wrong there and holds
 * fast-check's own report; the error itself is the cause.
 */
export class LawBroken extends Error {
  override readonly name = "LawBroken";
  readonly law: string;
  readonly counterexample: unknown;
  constructor(subject: string, name: string, { counterexample, error, report }: Failure) {
    const why = error instanceof Error ? error.message : String(error);
    super(`${subject} breaks the law "${name}": ${why}\n${report ?? "no report"}`, { cause: error });
    this.law = name;
    this.counterexample = counterexample;
  }
}

/** The laws that are not excepted. @throws Error when an exception names none of them */
const wanted = <L extends { readonly name: string }>(laws: readonly L[], except: readonly string[] = []): L[] => {
  const names = laws.map((l) => l.name);
  const unknown = except.find((name) => !names.includes(name));
  if (unknown !== undefined) throw new Error(`there is no law "${unknown}"; the laws are: ${names.join("; ")}`);
  return laws.filter(({ name }) => !except.includes(name));
};

const told = (subject: string, name: string, failure: Failure | undefined): void => {
  if (failure) throw new LawBroken(subject, name, failure);
};

/** Checks all laws in turn but those excepted. @throws LawBroken at the first that does not hold */
export const check = (subject: string, laws: readonly Law[], { runs = 100, seed, except }: LawOptions): void => {
  for (const { name, check } of wanted(laws, except)) told(subject, name, check({ numRuns: runs, seed }));
};

/** The same of laws that take their time. */
export const checkAsync = async (
  subject: string,
  laws: readonly AsyncLaw[],
  { runs = 100, seed, except }: LawOptions,
): Promise<void> => {
  for (const { name, check } of wanted(laws, except)) told(subject, name, await check({ numRuns: runs, seed }));
};
