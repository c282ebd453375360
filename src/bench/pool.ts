/** The rows of one attack and one cure over several seeds, as one row: rates from all pictures together, means of the rest. */
import { wilson } from "../metrics/intervals.ts";
import type { Figure } from "../steps/errors.ts";
import { figureOf, type Row } from "./row.ts";

/** Figures that count pictures, so that the counts of several seeds add up. */
const RATES: ReadonlySet<string> = new Set([
  "attack_success",
  "attack_success_before",
  "attack_harmless",
  "attack_false_positives",
  "effect_unpoisoned",
  "effect_unpoisoned_triggered",
  "target_kept",
  "target_kept_before",
]);

/** Rows of one attack and cure, drawn with several seeds. */
export interface Pooled {
  readonly attack: string;
  readonly family: string;
  readonly cure: string;
  readonly rows: readonly Row[];
  readonly figures: readonly Figure[];
}

const average = (values: readonly number[]): number => values.reduce((a, b) => a + b, 0) / values.length;

const poolFigure = (rows: readonly Row[], name: string): Figure | undefined => {
  const figures = rows.flatMap((row) => figureOf(row, name) ?? []);
  // A figure that some seeds lack would be a few seeds' under the name of all.
  if (figures.length < rows.length) return undefined;
  const n = figures.reduce((sum, f) => sum + (f.n ?? 0), 0);
  if (RATES.has(name)) {
    const { estimate, low, high } = wilson(figures.reduce((k, f) => k + Math.round(f.value * (f.n ?? 0)), 0), n);
    return { name, value: estimate, n, interval: [low, high] };
  }
  const value = average(figures.map((f) => f.value));
  if (rows.length === 1) return { ...figures[0], value };
  return { name, value, ...(n === 0 ? {} : { n }) };
};

/** One for each attack and cure, in the order in which they are first met. */
export const pool = (rows: readonly Row[]): Pooled[] =>
  [...Map.groupBy(rows, ({ attack, cure }) => JSON.stringify([attack, cure])).values()].map((own) => {
    const names = new Set(own.flatMap((row) => row.figures.map((f) => f.name)));
    const [{ attack, family, cure }] = own;
    return { attack, family, cure, rows: own, figures: [...names].flatMap((name) => poolFigure(own, name) ?? []) };
  });

export const pooledFigure = ({ figures }: Pooled, name: string): Figure | undefined =>
  figures.find((f) => f.name === name);

/** Mean over the seeds of what every row says; undefined where one does not. */
export const meanOf = ({ rows }: Pooled, value: (row: Row) => number | undefined): number | undefined => {
  const values = rows.flatMap((row) => value(row) ?? []);
  return values.length < rows.length ? undefined : average(values);
};
