import { describe, it } from "node:test";
import assert from "node:assert/strict";
import { Effect, Result } from "effect";
import { mkdir, readdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { checkOut, writeOutputs } from "../../src/pipeline/outputs.ts";
import { sha256 } from "../../src/pipeline/hash.ts";
import type { Port } from "../../src/steps/port.ts";
import { explain, OutputError } from "../../src/steps/errors.ts";
import { type Bench, sumPipeline, withBench } from "./helpers.ts";

const runOf = async (bench: Bench, overrides: readonly string[] = []) => {
  const { result } = await bench.run(overrides);
  if (Result.isFailure(result)) throw result.failure;
  return result.success;
};

const renderReport = () => "<!doctype html>";

describe("the result folder", () => {
  it("holds the cured model, the verdict, the report and a manifest with the hash of each", () =>
    withBench(async (bench) => {
      const out = join(bench.folder, "deep", "out");
      const written = await Effect.runPromise(writeOutputs(await runOf(bench), out, { renderReport }));
      assert.deepEqual(written.files, ["cured/weights.json", "manifest.json", "report.html", "verdict.json"]);
      const manifest = JSON.parse(await readFile(join(out, "manifest.json"), "utf8"));
      assert.equal(manifest.outputs["report.html"], sha256("<!doctype html>"));
      assert.deepEqual(Object.keys(manifest.outputs), ["cured/weights.json", "report.html", "verdict.json"]);
      assert.equal(JSON.parse(await readFile(join(out, "verdict.json"), "utf8")).sentence, "the sum is 12");
      assert.deepEqual(await readdir(join(bench.folder, "deep")), ["out"]);
    }));

  it("is written when the verdict fails, too", () =>
    withBench(async (bench) => {
      const out = join(bench.folder, "out");
      await Effect.runPromise(writeOutputs(await runOf(bench, ["least=99"]), out));
      assert.equal(JSON.parse(await readFile(join(out, "verdict.json"), "utf8")).passed, false);
    }));

  it("holds other outputs as JSON and safetensors, and always the verdict", () =>
    withBench(async (bench) => {
      const out = join(bench.folder, "out");
      await Effect.runPromise(writeOutputs(await runOf(bench), out));
      assert.deepEqual((await readdir(out)).sort(), [
        "manifest.json",
        "numbers.json",
        "numbers.safetensors",
        "verdict.json",
      ]);
    }, `${sumPipeline}outputs: { numbers: "\${{ steps.slow.field }}" }\n`));

  it("replaces an older result whole, and nothing else", () =>
    withBench(async (bench) => {
      const out = join(bench.folder, "out");
      const result = await runOf(bench);
      await mkdir(out);
      await Effect.runPromise(writeOutputs(result, out));
      await writeFile(join(out, "stray"), "");
      await Effect.runPromise(writeOutputs(result, out));
      assert.ok(!(await readdir(out)).includes("stray"));

      const theirs = join(bench.folder, "theirs");
      await mkdir(theirs);
      await writeFile(join(theirs, "thesis.tex"), "");
      await writeFile(join(theirs, "manifest.json"), `{"tool":"webpack"}`);
      const refused = await Effect.runPromise(Effect.flip(writeOutputs(result, theirs)));
      assert.ok(refused instanceof OutputError);
      assert.match(explain(refused), /theirs is not empty and holds no result of sau.*another folder for --out/);
      assert.deepEqual((await readdir(theirs)).sort(), ["manifest.json", "thesis.tex"]);
      const file = await Effect.runPromise(Effect.flip(checkOut(join(theirs, "thesis.tex"))));
      assert.match(explain(file), /is a file/);
    }));

  it("leaves nothing behind, and the older result in place, when there is no room", () =>
    withBench(async (bench) => {
      const out = join(bench.folder, "out");
      const result = await runOf(bench);
      await Effect.runPromise(writeOutputs(result, out));
      const before = await readFile(join(out, "manifest.json"), "utf8");
      const full = Object.assign(new Error("ENOSPC: no space left on device, write"), { code: "ENOSPC" });
      const { model } = result.outputs;
      const port: Port<unknown> = {
        ...model.wire.port,
        // Half of it arrives, then the disk is full.
        save: (_, dir) =>
          Effect.andThen(
            Effect.promise(() => mkdir(dir).then(() => writeFile(join(dir, "half"), "x"))),
            Effect.fail(full),
          ),
      };
      const broken = { ...result, outputs: { ...result.outputs, model: { ...model, wire: { ...model.wire, port } } } };
      const error = await Effect.runPromise(Effect.flip(writeOutputs(broken, out)));
      assert.match(explain(error), /no room left on the disk/);
      assert.equal(await readFile(join(out, "manifest.json"), "utf8"), before);
      assert.deepEqual((await readdir(bench.folder)).filter((name) => name.startsWith(".")), []);
    }));
});
