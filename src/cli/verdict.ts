/** Verdicts and differences between runs in plain words. */
import type { Figure, Verdict } from "../steps/errors.ts";
import type { Difference } from "../pipeline/diff.ts";
import { table } from "./terminal.ts";

const number = (x: number): string =>
  Number.isInteger(x)
    ? String(x)
    : Math.abs(x) >= 1e-4 && Math.abs(x) < 1e6
    ? String(Number(x.toPrecision(4)))
    : x.toExponential(2);

const row = ({ name, value, interval, threshold, passed, n }: Figure): string[] => [
  passed === undefined ? " " : passed ? "✓" : "✗",
  name,
  number(value),
  interval === undefined ? "" : `[${number(interval[0])}, ${number(interval[1])}]`,
  threshold === undefined ? "" : `required ${threshold}`,
  n === undefined ? "" : `n = ${n}`,
];

export const formatVerdict = ({ passed, sentence, figures }: Verdict): string =>
  [
    `${passed ? "PASSED" : "FAILED"}: ${sentence}`,
    ...(figures.length === 0 ? [] : [table(figures.map(row), "  ")]),
  ].join("\n");

const value = (figure: Figure | undefined): string =>
  figure === undefined
    ? "–"
    : `${number(figure.value)}${figure.passed === undefined ? "" : figure.passed ? " ✓" : " ✗"}`;

/** What parts two runs: first what went in, then the figures of both. */
export const formatDifference = ({ settings, figures }: Difference): string => {
  const inputs = settings.length === 0 ? ["Nothing went in differently."] : settings.map((text) => `  ${text}`);
  const rows = figures.map(({ name, before, after }) => {
    const apart = before === undefined || after === undefined ? "" : number(after.value - before.value);
    return [name, value(before), value(after), apart === "" || apart.startsWith("-") ? apart : `+${apart}`];
  });
  const shown = rows.length === 0
    ? "No figures: neither run judged anything."
    : table([["", "first", "second", "apart"], ...rows], "  ");
  return [...inputs, shown].join("\n");
};
