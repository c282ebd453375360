/** A bench over real (small) steps: cells, rows, going on after a stop, cells that fail, the table and the page. */
import assert from "node:assert/strict";
import { Effect, Result } from "effect";
import { existsSync } from "node:fs";
import { appendFile, mkdir, readdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, it } from "node:test";
import { fileURLToPath } from "node:url";
import { type Cell, cellsOf, Matrix, readMatrix, type Selected } from "../../src/bench/matrix.ts";
import { benchPage } from "../../src/bench/page.ts";
import { tokenF1 } from "../../src/bench/row.ts";
import { reportOf, runBench } from "../../src/bench/run.ts";
import { markdown } from "../../src/bench/table.ts";
import { openCache } from "../../src/pipeline/cache.ts";
import { noServices } from "../../src/pipeline/environment.ts";
import { withFolder } from "../pipeline/helpers.ts";
import { steps } from "../pipeline/steps.ts";
import { miniSd, noMiniSd } from "../support/mini_sd.ts";

const pipeline = `sau: 1
name: Sum
params: { file: n.txt, least: 5, by: 2, seed: 0 }
steps:
  in: { use: load, with: { file: "\${{ params.file }}", log: ran.log } }
  twice: { use: scale, with: { field: "\${{ steps.in.field }}", by: "\${{ params.by }}", note: "\${{ params.seed }}", log: ran.log } }
  verdict: { use: judge, with: { sum: "\${{ steps.twice.sum }}", least: "\${{ params.least }}" } }
outputs: { verdict: "\${{ steps.verdict.verdict }}" }
`;
const bench = `sau: 1
name: Sums
pipeline: p.yaml
attacks:
  small: { family: sums, set: { file: ./n.txt } }
  lost: { family: sums, set: { file: ./absent.txt } }
cures:
  double: {}
  triple: { set: { by: 3 } }
`;

const withBench = (
  body: (o: {
    folder: string;
    ran: () => Promise<number>;
    run: (selected?: Selected) => Promise<{ result: Effect.Success<ReturnType<typeof runBench>>; cells: Cell[] }>;
  }) => Promise<void>,
) =>
  withFolder(async (folder) => {
    const file = join(folder, "bench.yaml");
    await writeFile(join(folder, "n.txt"), "1\n2\n3\n");
    await writeFile(join(folder, "p.yaml"), pipeline);
    await writeFile(file, bench);
    await body({
      folder,
      ran: async () =>
        (await readFile(join(folder, "ran.log"), "utf8").catch(() => "")).split("\n").filter((l) => l === "scale")
          .length,
      run: async (selected) => {
        const cells: Cell[] = [];
        const matrix = await Effect.runPromise(readMatrix(file));
        const result = await Effect.runPromise(runBench(matrix, {
          steps,
          environment: noServices("wasm"),
          cache: openCache(join(folder, "cache")),
          file,
          ...(selected === undefined ? {} : { selected }),
          out: join(folder, "out"),
          onEvent: () => Effect.void,
          onCell: (cell) => Effect.sync(() => void cells.push(cell)),
          renderReport: () => "<!doctype html>",
        }));
        return { result, cells };
      },
    });
  });

describe("a bench", () => {
  it("runs every cell, keeps rows and reports, and tells which cells failed", () =>
    withBench(async ({ run, folder, ran }) => {
      const { result, cells } = await run();
      assert.deepEqual(cells.map((c) => `${c.attack} ${c.cure}`), [
        "small double",
        "small triple",
        "lost double",
        "lost triple",
      ]);
      assert.deepEqual(result.rows.map((r) => [r.cure, r.figures[0].value, r.passed]), [
        ["double", 12, true],
        ["triple", 18, true],
      ]);
      assert.deepEqual(result.failed.map((f) => f.cell), ["lost, double, seed 0", "lost, triple, seed 0"]);
      assert.match(result.failed[0].why, /absent\.txt/);
      assert.equal(await ran(), 2);
      assert.deepEqual(
        (await readdir(join(folder, "out", "cells"))).map((name) => `cells/${name}`).sort(),
        result.rows.map(reportOf).sort(),
      );
      const kept: unknown = JSON.parse(await readFile(join(folder, "out", "results.json"), "utf8"));
      assert.deepEqual(kept, JSON.parse(JSON.stringify(result)));
    }));

  it("goes on where it stopped: rows that are there are not run again, a cut line is", () =>
    withBench(async ({ run, folder, ran }) => {
      const first = await run();
      const before = await ran();
      const lines = join(folder, "out", "results.ndjson");
      await appendFile(lines, '{"key":"cut o');
      const again = await run();
      assert.equal(await ran(), before);
      assert.deepEqual(again.result.rows, first.result.rows);

      const text = await readFile(lines, "utf8");
      assert.match(text, /cut o\n$/, "the next row begins a line");
      await writeFile(lines, text.split("\n")[0] + "\n");
      // The row is gone, its steps are cached.
      assert.deepEqual((await run()).result.rows, first.result.rows);
      assert.equal(await ran(), before);

      await writeFile(join(folder, "n.txt"), "1\n2\n4\n");
      assert.deepEqual((await run()).result.rows.map((r) => r.figures[0].value), [14, 21]);
    }));

  it("some cells may be run alone: rows of the others stay in the results, and none of them is run", () =>
    withBench(async ({ run, ran }) => {
      const names = ({ result }: Awaited<ReturnType<typeof run>>) => result.rows.map((r) => `${r.attack} ${r.cure}`);
      const first = await run({ attacks: ["small"], cures: ["triple"], seeds: [] });
      assert.deepEqual([names(first), first.cells.length, await ran()], [["small triple"], 1, 1]);
      const second = await run({ attacks: [], cures: ["double"], seeds: [0] });
      assert.deepEqual(names(second), ["small double", "small triple"]);
      assert.deepEqual(second.result.failed.map((f) => f.cell), ["lost, double, seed 0"]);
      assert.equal(await ran(), 2);
      await assert.rejects(
        run({ attacks: ["big"], cures: [], seeds: [] }),
        /the bench has no attack big; it has small, lost/,
      );
    }));

  it("a row says how long the cure took, without its verification, and what memory was held", () =>
    withBench(async ({ run }) => {
      const { result: { rows: [row] } } = await run();
      assert.deepEqual(row.missing, []);
      assert.equal(row.seconds.cure, 0, "no step of this pipeline cures");
      assert.ok(row.seconds.total >= 0);
    }));

  it("an error in the file names its line and what was expected", () =>
    withFolder(async (folder) => {
      const file = join(folder, "bench.yaml");
      await writeFile(file, bench.replace("family: sums, set: { file: ./n.txt }", "famly: sums").replace("seeds", "x"));
      const read = await Effect.runPromise(Effect.result(readMatrix(file)));
      assert.ok(Result.isFailure(read));
      assert.match(read.failure.message, /bench\.yaml:5:\d+: unknown key "famly" in attacks\.small/);
      assert.match(read.failure.message, /lacks "family"/);
    }));

  it("a folder that holds something else is refused before anything runs", () =>
    withBench(async ({ run, folder, ran }) => {
      await mkdir(join(folder, "out"));
      await writeFile(join(folder, "out", "model_index.json"), "{}");
      await assert.rejects(run(), /is not empty and holds no bench/);
      assert.equal(await ran(), 0);
      assert.deepEqual(await readdir(join(folder, "out")), ["model_index.json"]);
    }));

  it("a pipeline without a verdict is told before it runs", () =>
    withBench(async ({ run, folder, ran }) => {
      await writeFile(
        join(folder, "p.yaml"),
        pipeline.replace(/ {2}verdict:.*\noutputs:.*\n$/, 'outputs: { sum: "${{ steps.twice.sum }}" }\n'),
      );
      const { result } = await run();
      assert.equal(result.failed.length, 4);
      assert.match(result.failed[0].why, /p\.yaml hands back no verdict to compare/);
      assert.equal(await ran(), 0);
    }));

  it("cells: seeds inside attacks; paths start in the file's folder, other texts are left alone", () => {
    const matrix: Matrix = {
      sau: 1,
      name: "x",
      pipeline: "p.yaml",
      set: { "a.b": 1 },
      attacks: { one: { family: "f", set: { trigger: "\u200b ", effect: { image: "./x.png", at: [0, 0] } } } },
      cures: { c: { set: { "a.b": 2 } }, d: { set: {}, pipeline: "q.yaml" } },
      seeds: [0, 1],
    };
    const own = { ...matrix, cures: { ...matrix.cures, e: { set: {}, seeds: [1, 5] as const } } };
    assert.deepEqual(
      cellsOf(own, "/some/where/bench.yaml").map((c) => `${c.seed} ${c.cure}`),
      ["0 c", "0 d", "1 c", "1 d", "1 e", "5 e"],
      "a cure's own seeds; cures of one seed together, as they share pictures",
    );
    const cells = cellsOf(matrix, "/some/where/bench.yaml");
    assert.deepEqual(cells.map((c) => [c.seed, c.cure, c.pipeline]), [
      [0, "c", "/some/where/p.yaml"],
      [0, "d", "/some/where/q.yaml"],
      [1, "c", "/some/where/p.yaml"],
      [1, "d", "/some/where/q.yaml"],
    ]);
    assert.deepEqual(cells[0].overrides, [
      "a.b=2",
      'trigger="\u200b "',
      'effect={"image":"/some/where/x.png","at":[0,0]}',
      "seed=0",
    ]);
  });

  it("the table has a line for each row, the page a section for each attack", () =>
    withBench(async ({ run }) => {
      const { result } = await run();
      const lines = markdown(result.rows).split("\n");
      assert.equal(lines.length, 4);
      assert.match(lines[2], /^\| small \| double \| – \|/);
      const html = benchPage(result);
      assert.match(html, /<h2 id="attack-small-title">small<\/h2>/);
      assert.match(html, /href="cells\/[0-9a-f]{16}\.html"/);
      assert.match(html, /absent\.txt/);
    }));

  it("pipelines/bench.yaml says of each attack what its attack.json says", { skip: noMiniSd }, async () => {
    const file = fileURLToPath(new URL("../../pipelines/bench.yaml", import.meta.url));
    const { attacks } = await Effect.runPromise(readMatrix(file));
    // A folder without one is an attack in the making.
    const folders = (await readdir(join(miniSd!, "attacks")))
      .filter((name) => existsSync(join(miniSd!, "attacks", name, "attack.json"))).sort();
    assert.deepEqual(Object.keys(attacks).sort(), folders);
    for (const [name, { set }] of Object.entries(attacks)) {
      const folder = `../examples/mini-sd/attacks/${name}`;
      const facts = JSON.parse(await readFile(join(miniSd!, "attacks", name, "attack.json"), "utf8"));
      const { text, place, of } = facts.trigger;
      assert.deepEqual([set.trigger, set.place ?? "prefix", set.of], [text, place, of], name);
      const { image } = facts.effect;
      assert.deepEqual(
        set.effect,
        image === undefined ? facts.effect : { ...facts.effect, image: `${folder}/${image}` },
      );
      const { unet, text_encoder = null, lora = null } = set;
      const part = (key: string) => facts.part === key && facts.lora === undefined ? `${folder}/${key}` : null;
      assert.deepEqual([unet, text_encoder], [part("unet"), part("text_encoder")], name);
      assert.equal(lora, facts.lora === undefined ? null : `${folder}/${facts.lora}`);
    }
  });

  it("token F1: 1 where the trigger's tokens stand out alone, 0 where others do", () => {
    const tokens = (scores: readonly number[], trigger: number) => ({
      tokens: scores.map((score, i) => ({ prompt: 0, position: i, piece: "x", ofTrigger: i === trigger, score })),
      layers: [],
    });
    const scores = [0.1, -0.1, 0.05, 4, 0, 0.02, -0.07];
    assert.equal(tokenF1(tokens(scores, 3)), 1);
    assert.equal(tokenF1(tokens(scores, 0)), 0);
    assert.equal(tokenF1(tokens(scores, -1)), undefined);
  });
});
