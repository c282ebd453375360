/** What a bench ends with, and results.json, its form on disk. */
import { Schema } from "effect";
import { nameOf } from "./matrix.ts";
import { Row } from "./row.ts";

export const BenchResult = Schema.Struct({
  tool: Schema.Literal("sau"),
  version: Schema.String,
  name: Schema.String,
  /** In the matrix's order; cells that failed are not among them. */
  rows: Schema.Array(Row),
  failed: Schema.Array(Schema.Struct({ cell: Schema.String, why: Schema.String })),
});
export type BenchResult = typeof BenchResult.Type;

const decode = Schema.decodeUnknownSync(Schema.fromJsonString(BenchResult));

/** @throws where the text is no results.json */
export const readResults = (text: string): BenchResult => decode(text);

/** One row a line, so that a change of a row is a change of a line. */
export const writeResults = ({ rows, failed, ...head }: BenchResult): string => {
  const list = (values: readonly unknown[]) =>
    values.length === 0 ? "[]" : `[\n${values.map((v) => JSON.stringify(v)).join(",\n")}\n]`;
  return `${JSON.stringify(head).slice(0, -1)},\n"rows": ${list(rows)},\n"failed": ${list(failed)}\n}\n`;
};

/** Several benches as one: of a cell that several have, the last one's row counts; a cell that has a row has not failed. */
export const mergeResults = (results: readonly [BenchResult, ...BenchResult[]]): BenchResult => {
  const rows = new Map(results.flatMap((r) => r.rows.map((row) => [nameOf(row), row])));
  const failed = new Map(results.flatMap((r) => r.failed.map((f) => [f.cell, f])));
  return {
    ...results[results.length - 1],
    rows: [...rows.values()],
    failed: [...failed.values()].filter(({ cell }) => !rows.has(cell)),
  };
};
