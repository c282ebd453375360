/** The verdict in plain words. */
import type { Figure, Verdict } from "../steps/errors.ts";
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
