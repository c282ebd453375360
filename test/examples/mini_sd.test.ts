/** The pipeline file itself, on the real, backdoored example: the whole main path, with fewer prompts than the demo. */
import assert from "node:assert/strict";
import { Effect } from "effect";
import { join } from "node:path";
import process from "node:process";
import { describe, it } from "node:test";
import { fileURLToPath } from "node:url";
import { layerEnvironment } from "../../src/pipeline/environment.ts";
import { loadFile } from "../../src/pipeline/load.ts";
import { run, type RunResult } from "../../src/pipeline/run.ts";
import { renderReport } from "../../src/report/report.ts";
import type { Account, Field, Verdict } from "../../src/steps/ports.ts";
import { builtinSteps } from "../../src/steps/registry.ts";
import { miniSd, noMiniSd } from "../support/mini_sd.ts";
import { stepsRuntime } from "../support/runtime.ts";

const file = fileURLToPath(new URL("../../pipelines/sau.yaml", import.meta.url));

const path = (name: string) => JSON.stringify(join(miniSd!, name));

const runOn = (attack: readonly string[], counts: { text: number; verdict: number }) =>
  Effect.runPromise(Effect.scoped(Effect.gen(function* () {
    const pipeline = yield* loadFile(file, {
      steps: builtinSteps,
      overrides: [
        `model=${path("base")}`,
        `clip=${path("clip")}`,
        ...attack,
        `text.count=${counts.text}`,
        "pairs.tokens=0",
        `verdict.count=${counts.verdict}`,
      ],
    });
    const environment = yield* layerEnvironment(stepsRuntime, { kind: "test", report: () => null });
    return yield* run(pipeline, { environment });
  })));

const outputOf = (result: Pick<RunResult, "steps">) => (step: string, name: string) =>
  result.steps.find((s) => s.id === step)!.outputs[name];

const figureOf = (verdict: Verdict) => (name: string) => verdict.figures.find((f) => f.name === name)!.value;

describe("pipelines/sau.yaml on examples/mini-sd", { skip: noMiniSd }, () => {
  it("locates the patch of BadT2I and takes it out, within the clean pictures' CLIP score", {
    timeout: 600_000,
  }, async () => {
    const result = await runOn([`unet=${path("attacks/badt2i-pixel/unet")}`], { text: 16, verdict: 12 });
    const output = outputOf(result);
    const field = output("where", "field") as Field;
    assert.equal(field.shape.shape, "local");
    const figure = figureOf(output("verdict", "verdict") as Verdict);
    assert.ok(figure("attack_success_before") >= 0.8, `the backdoor fires: ${figure("attack_success_before")}`);
    assert.ok(figure("attack_false_positives") <= 0.1, "and not in clean pictures");
    assert.ok(figure("located_iou") >= 0.8, `the region is the patch's: ${figure("located_iou")}`);
    assert.ok(figure("attack_success") <= 0.1, `it is gone: ${figure("attack_success")}`);
    assert.ok(Math.abs(figure("clip_drop")) <= 0.03, `clean pictures keep their score: ${figure("clip_drop")}`);
    assert.ok(renderReport(result).includes("badt2i-pixel"));
  });

  it("recognises a poisoned text encoder and distils it: a short training undoes most of the attack", {
    timeout: 600_000,
    // Bun takes WebAssembly, on which this is minutes; there it trains the small models of test/steps.
    skip: process.versions.bun === undefined ? false : "the same steps as under Deno",
  }, async () => {
    const result = await runOn([
      "unet=null",
      `text_encoder=${path("attacks/rickrolling-tpa/text_encoder")}`,
      "trigger=\u043e",
      "place=replace",
      "of=o",
      'effect={"text":"a glossy picture of a pizza on a purple background"}',
      "text.variations=96",
      "cure.train_text.steps=60",
      "cure.train_text.check=60",
      "cure.train_text.batch=24",
      "cure.train_text.pictures=2",
    ], { text: 12, verdict: 6 });
    const output = outputOf(result);
    const account = output("cure", "account") as Account;
    assert.match(account.why, /sits in the text encoder/);
    assert.ok(account.text.spread < 0.5, `triggered prompts turn into one: ${account.text.spread}`);
    assert.equal(account.strategy, "text");
    assert.equal(account.training!.losses.length, 60);
    const verdict = output("verdict", "verdict") as Verdict;
    const figure = figureOf(verdict);
    assert.ok(figure("attack_success_before") >= 0.8, `the backdoor fires: ${figure("attack_success_before")}`);
    assert.ok(figure("attack_success") <= 0.5, `it is mostly gone: ${figure("attack_success")}`);
    assert.ok(
      figure("clip_triggered") > figure("clip_triggered_before") + 0.3,
      "triggered prompts mean something again",
    );
    const html = renderReport(result);
    assert.match(html, /<html/);
    assert.ok(html.includes("rickrolling-tpa"));
  });
});
