/**
 * Runs a bench: each cell once, its row written as soon as it is there. A cell whose row is there already, under the same
 * key, is not run again; a cell that fails is told and the others go on.
 */
import { Clock, Effect, Schema } from "effect";
import { appendFile, mkdir, readFile, rename, writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { Cache } from "../pipeline/cache.ts";
import type { Environment } from "../pipeline/environment.ts";
import type { OnEvent } from "../pipeline/events.ts";
import { loadFile } from "../pipeline/load.ts";
import { VERSION } from "../pipeline/manifest.ts";
import { plan } from "../pipeline/plan.ts";
import { run, type RunResult } from "../pipeline/run.ts";
import { explain, OutputError } from "../steps/errors.ts";
import type { AnyStep } from "../steps/step.ts";
import { type Cell, cellsOf, type Matrix, nameOf } from "./matrix.ts";
import { Row, rowOf } from "./row.ts";

export interface BenchOptions<R> {
  readonly steps: ReadonlyArray<AnyStep<R>>;
  readonly environment: Environment<R>;
  readonly cache: Cache;
  /** The bench file; paths in it start in its folder. */
  readonly file: string;
  /** Folder of results.ndjson, results.json, table.html and a report for each cell. */
  readonly out: string;
  readonly onEvent: OnEvent;
  /** Told before each cell, and how long the others are still likely to take. */
  readonly onCell: (cell: Cell, index: number, count: number, left: number | undefined) => Effect.Effect<void>;
  readonly renderReport: (run: RunResult<R>) => string;
}

export interface BenchResult {
  readonly tool: "sau";
  readonly version: string;
  readonly name: string;
  /** In the matrix's order; cells that failed are not among them. */
  readonly rows: readonly Row[];
  readonly failed: ReadonlyArray<{ readonly cell: string; readonly why: string }>;
}

const decodeRow = Schema.decodeUnknownSync(Schema.fromJsonString(Row));

/** Rows of an earlier run; a last line that was cut off is left out, and ended so that the next row begins a line. */
const readRows = async (file: string): Promise<Row[]> => {
  const text = await readFile(file, "utf8").catch(() => "");
  if (text !== "" && !text.endsWith("\n")) await appendFile(file, "\n");
  return text.split("\n").flatMap((line) => {
    try {
      return line.trim() === "" ? [] : [decodeRow(line)];
    } catch {
      return [];
    }
  });
};

/** File name of a cell's report. */
export const reportName = ({ attack, cure, seed }: Pick<Cell, "attack" | "cure" | "seed">): string =>
  `${[attack, cure, seed].join("-").replace(/[^\p{L}\p{N}.-]+/gu, "_")}.html`;

export const runBench = Effect.fn("bench.run")(function* <R>(matrix: Matrix, o: BenchOptions<R>) {
  const write = <A>(body: () => Promise<A>) =>
    Effect.tryPromise({ try: body, catch: (error) => new OutputError({ path: o.out, message: explain(error) }) });
  const lines = join(o.out, "results.ndjson");
  yield* write(() => mkdir(join(o.out, "cells"), { recursive: true }));
  const known = new Map((yield* write(() => readRows(lines))).map((row) => [row.key, row]));
  const device = yield* o.environment.kind;

  const runCell = Effect.fnUntraced(function* (cell: Cell) {
    const pipeline = yield* loadFile(cell.pipeline, { steps: o.steps, overrides: cell.overrides });
    const planned = yield* plan(pipeline, { cache: o.cache, device });
    const key = planned.steps[planned.steps.length - 1].key;
    const earlier = known.get(key);
    if (earlier !== undefined) {
      // The name of a cell is no part of its key.
      return { ...earlier, attack: cell.attack, family: cell.family, cure: cell.cure, seed: cell.seed };
    }
    const result = yield* run(pipeline, { environment: o.environment, cache: o.cache, onEvent: o.onEvent });
    const row = rowOf(cell, key, device, result);
    yield* write(async () => {
      await writeFile(join(o.out, "cells", reportName(cell)), o.renderReport(result));
      await appendFile(lines, `${JSON.stringify(row)}\n`);
    });
    known.set(key, row);
    return row;
  });

  const cells = cellsOf(matrix, o.file);
  const begun = yield* Clock.currentTimeMillis;
  const rows: Row[] = [];
  const failed: { cell: string; why: string }[] = [];
  for (const [i, cell] of cells.entries()) {
    const spent = (yield* Clock.currentTimeMillis) - begun;
    yield* o.onCell(cell, i, cells.length, i === 0 ? undefined : (spent / i / 1000) * (cells.length - i));
    yield* Effect.matchEffect(runCell(cell), {
      onSuccess: (row) => Effect.sync(() => void rows.push(row)),
      onFailure: (error) => Effect.sync(() => void failed.push({ cell: nameOf(cell), why: explain(error) })),
    });
  }
  const result: BenchResult = { tool: "sau", version: VERSION, name: matrix.name, rows, failed };
  yield* write(() => replace(join(o.out, "results.json"), `${JSON.stringify(result, null, 2)}\n`));
  return result;
});

/** Writes a file so that it is there whole or not at all. */
export const replace = async (file: string, text: string): Promise<void> => {
  const temporary = `${file}.${crypto.randomUUID().slice(0, 8)}`;
  await writeFile(temporary, text);
  await rename(temporary, file);
};
