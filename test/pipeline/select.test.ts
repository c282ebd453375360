/** Parts of a pipeline (--only, --from, --force), the plan as a chart, and two runs compared. */
import assert from "node:assert/strict";
import { stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, it } from "node:test";
import { Effect, Result } from "effect";
import { difference, readRun } from "../../src/pipeline/diff.ts";
import { noServices } from "../../src/pipeline/environment.ts";
import { writeOutputs } from "../../src/pipeline/outputs.ts";
import { plan } from "../../src/pipeline/plan.ts";
import { formatMermaid, formatPlan } from "../../src/pipeline/plan_text.ts";
import { run } from "../../src/pipeline/run.ts";
import { select, type Selection } from "../../src/pipeline/select.ts";
import { explain } from "../../src/steps/errors.ts";
import { formatDifference } from "../../src/cli/verdict.ts";
import { type Bench, withBench } from "./helpers.ts";

const selected = async ({ load }: Bench, selection: Selection) =>
  await Effect.runPromise(select(await load(), selection));

const reasons = async (bench: Bench, selection: Selection) => {
  const { pipeline, again } = await selected(bench, selection);
  const planned = await Effect.runPromise(plan(pipeline, { cache: bench.cache, device: "wasm", again }));
  return planned.steps.map(({ id, reason }) => `${id}: ${reason}`);
};

describe("part of a pipeline", () => {
  it("--only is the step and what it needs; what it gives is handed back", () =>
    withBench(async (bench) => {
      const { pipeline } = await selected(bench, { only: ["twice"] });
      assert.deepEqual(pipeline.steps.map(({ id }) => id), ["in", "twice"]);
      assert.deepEqual(Object.keys(pipeline.outputs), ["twice-field", "twice-sum"]);
    }));

  it("--from runs a step and all that follows again, --force everything, and nothing else", () =>
    withBench(async (bench) => {
      await bench.run();
      const again = "it is to run again";
      assert.deepEqual(await reasons(bench, {}), ["in: cached", "twice: cached", "slow: cached", "verdict: cached"]);
      assert.deepEqual(await reasons(bench, { from: ["slow"] }), [
        "in: cached",
        "twice: cached",
        `slow: ${again}`,
        `verdict: ${again}`,
      ]);
      assert.ok((await reasons(bench, { force: true })).every((text) => text.endsWith(again)));
    }));

  it("that is forced keeps its new result in the place of the old", () =>
    withBench(async (bench) => {
      await bench.run();
      const { pipeline, again } = await selected(bench, { from: ["verdict"] });
      // When it was written, too: a file system may give a new file the number of the one that was taken away.
      const entry = async () => {
        const file = join(entryOf(bench, (await planOf(bench))[3].key), "entry.json");
        const { ino, mtimeNs } = await stat(file, { bigint: true });
        return `${ino} ${mtimeNs}`;
      };
      const before = await entry();
      await Effect.runPromise(run(pipeline, { environment: noServices("wasm"), cache: bench.cache, again }));
      assert.notEqual(await entry(), before);
      assert.deepEqual((await bench.run()).ran, []);
    }));

  it("says when a name means no step", () =>
    withBench(async ({ load }) => {
      const found = await Effect.runPromise(Effect.result(select(await load(), { only: ["twce"], from: ["x"] })));
      assert.ok(Result.isFailure(found));
      assert.match(
        explain(found.failure),
        /--only twce: there is no step "twce" here[^]*did you mean "twice"[^]*--from x/,
      );
    }));
});

const entryOf = ({ cache }: Bench, key: string) => join(cache.folder, "v1", "results", key.slice(0, 2), key);

const planOf = async ({ load, cache }: Bench) =>
  (await Effect.runPromise(plan(await load(), { cache, device: "wasm" }))).steps;

describe("the plan as a chart", () => {
  it("has a node a step and an arrow an input, and no text that could break it", () =>
    withBench(async ({ load, cache }) => {
      const pipeline = await load(["twice.note=x"]);
      const planned = await Effect.runPromise(plan(pipeline, { cache, device: "wasm" }));
      const chart = formatMermaid(pipeline, {
        steps: planned.steps.map((step) => ({ ...step, reason: `setting a: "x" → <b>` })),
      });
      assert.match(chart, /^flowchart TD\n {2}s0\["in: load<br\/>setting a: #34;x#34; → #60;b#62;"\]:::runs\n/);
      assert.equal(chart.match(/-->\|field\|/g)?.length, 2);
      assert.match(chart, /s2 -->\|sum\| s3/);
    }));

  it("draws a tree: each step once, under the last that it takes from, what runs on its own account with its reason", () =>
    withBench(async ({ load, cache, run }) => {
      await run();
      const pipeline = await load(["by=3"]);
      const planned = await Effect.runPromise(plan(pipeline, { cache, device: "wasm" }));
      const tree = [
        "Sum: 3 of 4 steps run",
        "  ✓ in                load   cached",
        "  └─ ▸ twice          scale  runs: setting by: 2 → 3",
        "     └─ ▸ slow        scale  runs: it takes from what runs",
        "        └─ ▸ verdict  judge  → verdict, model  runs: it takes from what runs",
      ];
      assert.equal(formatPlan(pipeline, planned), tree.join("\n"));
    }));
});

describe("two runs compared", () => {
  it("differ in what was set and in their figures, and in nothing else", () =>
    withBench(async ({ load, folder, cache }) => {
      const written = async (name: string, overrides: string[]) => {
        const result = await Effect.runPromise(
          run(await load(overrides), { environment: noServices("wasm"), cache }),
        );
        await Effect.runPromise(writeOutputs(result, join(folder, name)));
        return await Effect.runPromise(readRun(join(folder, name)));
      };
      const [a, b, c] = [await written("a", []), await written("b", ["by=1"]), await written("c", ["by=1"])];
      const found = difference(a, b);
      assert.deepEqual(found.settings, ["param by: 2 → 1", "step twice: setting by: 2 → 1"]);
      assert.deepEqual(found.figures.map((f) => [f.name, f.before?.value, f.after?.value]), [["verdict.sum", 12, 6]]);
      assert.match(formatDifference(found), /verdict.sum +12 ✓ +6 ✓ +-6/);
      assert.deepEqual(difference(b, c).settings, []);
    }));

  it("need to be result folders", () =>
    withBench(async ({ folder }) => {
      await writeFile(join(folder, "manifest.json"), "{}");
      for (const dir of [folder, join(folder, "none")]) {
        const found = await Effect.runPromise(Effect.result(readRun(dir)));
        assert.ok(Result.isFailure(found));
        assert.match(explain(found.failure), /is no result folder of sau run --out/);
      }
    }));
});
