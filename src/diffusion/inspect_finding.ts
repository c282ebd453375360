/** How findings are put together. */
import type { Finding, Severity } from "./inspection.ts";

/** Places that are named in a finding; more of them say nothing new. */
const NAMED = 12;

/** A finding over some places. */
export const finding = (
  code: string,
  severity: Severity,
  where: readonly string[],
  words: { readonly what: string; readonly why: string; readonly todo: string },
): Finding => ({ code, severity, where: where.slice(0, NAMED), count: where.length, ...words });

/** `1 tensor`, `2 tensors`. */
export const counted = (n: number, one: string, many = `${one}s`): string =>
  `${n.toLocaleString("en")} ${n === 1 ? one : many}`;

/** Warnings first, otherwise as they came. */
export const bySeverity = (findings: readonly Finding[]): Finding[] => [
  ...findings.filter((f) => f.severity === "warn"),
  ...findings.filter((f) => f.severity === "info"),
];
