/**
 * Runs a bench: each cell once, its row written as soon as it is there. A cell whose row is there already, under the same
 * key, is not run again; a cell that fails is told and the others go on.
 */
import { Clock, Effect, Schema } from "effect";
import { appendFile, mkdir, readdir, readFile, rename, writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { Cache } from "../pipeline/cache.ts";
import type { Environment } from "../pipeline/environment.ts";
import type { OnEvent } from "../pipeline/events.ts";
import { loadFile } from "../pipeline/load.ts";
import { VERSION } from "../pipeline/manifest.ts";
import { plan } from "../pipeline/plan.ts";
import { run, type RunResult } from "../pipeline/run.ts";
import { explain, OutputError } from "../steps/errors.ts";
import { keepLast, Kept } from "../steps/kept.ts";
import type { AnyStep } from "../steps/step.ts";
import { valuesOf } from "../report/values.ts";
import { type Cell, cellsOf, type Matrix, nameOf, type Selected, selecting } from "./matrix.ts";
import { type BenchResult, writeResults } from "./results.ts";
import { Row, rowOf } from "./row.ts";
import { samplesPng } from "./samples.ts";

export interface BenchOptions<R> {
  readonly steps: ReadonlyArray<AnyStep<R>>;
  readonly environment: Environment<R>;
  readonly cache: Cache;
  /** The bench file; paths in it start in its folder. */
  readonly file: string;
  /** Which cells to run, where not all of them: of the others, rows that are there already stay in the results. */
  readonly selected?: Selected;
  /** Folder of results.ndjson, results.json, table.html and a report for each cell. */
  readonly out: string;
  readonly onEvent: OnEvent;
  /** Told before each cell, and how long the others are still likely to take. */
  readonly onCell: (cell: Cell, index: number, count: number, left: number | undefined) => Effect.Effect<void>;
  /** The page of one cell; without it there are none. */
  readonly renderReport?: (run: RunResult<R>) => string;
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

/** Where a row's report lies. By key, as a cell may have another name when its row is used again. */
export const reportOf = ({ key }: Pick<Row, "key">): string => `cells/${key.slice(0, 16)}.html`;

/** Where pictures of a row's cell lie. */
export const samplesOf = ({ key }: Pick<Row, "key">): string => `cells/${key.slice(0, 16)}.png`;

/** Refuses a folder that holds something else: a user's model must never get files of ours. */
const checkFolder = async (dir: string): Promise<void> => {
  const names = await readdir(dir).catch((error: NodeJS.ErrnoException): string[] => {
    if (error.code === "ENOENT") return [];
    throw error;
  });
  if (names.length > 0 && !names.includes(ROWS)) {
    throw new Error(`${dir} is not empty and holds no bench (no ${ROWS}); choose another folder for --out`);
  }
};

const ROWS = "results.ndjson";
/** Milliseconds; what is faster found its row and did not run. */
const A_LOOK = 1000;
/** Those of an attack and a seed: three, or six where cures ask for different numbers of pictures. */
const KEPT = 6;

export const runBench = Effect.fn("bench.run")(function* <R>(matrix: Matrix, o: BenchOptions<R>) {
  const write = <A>(body: () => Promise<A>) =>
    Effect.tryPromise({ try: body, catch: (error) => new OutputError({ path: o.out, message: explain(error) }) });
  const cells = cellsOf(matrix, o.file);
  const isWanted = yield* Effect.try({
    try: () => selecting(cells, o.selected ?? { attacks: [], cures: [], seeds: [] }),
    catch: (error) => error,
  });
  const count = cells.filter(isWanted).length;
  const lines = join(o.out, ROWS);
  yield* write(async () => {
    await checkFolder(o.out);
    await mkdir(join(o.out, "cells"), { recursive: true });
    await appendFile(lines, "");
  });
  const known = new Map((yield* write(() => readRows(lines))).map((row) => [row.key, row]));
  const device = yield* o.environment.kind;
  // What the model as it came draws, also when its target is asked for outright, and what the one without the backdoor does:
  // the same for all cures of an attack and a seed.
  const kept = keepLast(KEPT);

  /** Gives a cell's row; undefined where it is not there and the cell is not to run. */
  const rowFor = Effect.fnUntraced(function* (cell: Cell, wanted: boolean) {
    const pipeline = yield* loadFile(cell.pipeline, { steps: o.steps, overrides: cell.overrides });
    const planned = yield* plan(pipeline, { cache: o.cache, device });
    const judge = Object.values(pipeline.outputs).findLast(({ port }) => port.kind === "verdict")?.step;
    const key = planned.steps.find(({ id }) => id === judge)?.key;
    // Told before hours are spent, not after.
    if (key === undefined) return yield* Effect.fail(new Error(`${cell.pipeline} hands back no verdict to compare`));
    const earlier = known.get(key);
    if (earlier !== undefined) {
      // The name of a cell is no part of its key.
      return { ...earlier, attack: cell.attack, family: cell.family, cure: cell.cure, seed: cell.seed };
    }
    if (!wanted) return undefined;
    const result = yield* run(pipeline, { environment: o.environment, cache: o.cache, onEvent: o.onEvent });
    const row = rowOf(cell, key, device, result);
    const { renderReport } = o;
    yield* write(async () => {
      const sheets = valuesOf(result, "verdict").at(-1)?.value.sheets ?? [];
      if (sheets.length > 0) await writeFile(join(o.out, samplesOf(row)), samplesPng(sheets));
      if (renderReport !== undefined) await writeFile(join(o.out, reportOf(row)), renderReport(result));
      await appendFile(lines, `${JSON.stringify(row)}\n`);
    });
    known.set(key, row);
    return row;
  });

  const rows: Row[] = [];
  const failed: { cell: string; why: string }[] = [];
  // Rows that are there already say nothing of how long the others take.
  let index = 0, ran = 0, spent = 0;
  for (const cell of cells) {
    const wanted = isWanted(cell);
    if (wanted) yield* o.onCell(cell, index, count, ran === 0 ? undefined : (spent / ran / 1000) * (count - index));
    const begun = yield* Clock.currentTimeMillis;
    yield* Effect.matchEffect(rowFor(cell, wanted), {
      onSuccess: (row) => Effect.sync(() => row !== undefined && rows.push(row)),
      onFailure: (error) => Effect.sync(() => wanted && failed.push({ cell: nameOf(cell), why: explain(error) })),
    }).pipe(Effect.provideService(Kept, kept));
    const took = (yield* Clock.currentTimeMillis) - begun;
    if (wanted) index++;
    if (took > A_LOOK) [ran, spent] = [ran + 1, spent + took];
  }
  const result: BenchResult = { tool: "sau", version: VERSION, name: matrix.name, rows, failed };
  yield* write(() => replace(join(o.out, "results.json"), writeResults(result)));
  return result;
});

/** Writes a file so that it is there whole or not at all. */
export const replace = async (file: string, text: string): Promise<void> => {
  const temporary = `${file}.${crypto.randomUUID().slice(0, 8)}`;
  await writeFile(temporary, text);
  await rename(temporary, file);
};
