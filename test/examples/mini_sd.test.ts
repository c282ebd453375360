/** The pipeline file itself, on the real, backdoored example: the whole main path, with fewer prompts than the demo. */
import assert from "node:assert/strict";
import { Effect } from "effect";
import { join } from "node:path";
import { describe, it } from "node:test";
import { fileURLToPath } from "node:url";
import { layerEnvironment } from "../../src/pipeline/environment.ts";
import { loadFile } from "../../src/pipeline/load.ts";
import { run } from "../../src/pipeline/run.ts";
import { renderReport } from "../../src/report/report.ts";
import type { Account, Verdict } from "../../src/steps/ports.ts";
import { builtinSteps } from "../../src/steps/registry.ts";
import { miniSd, noMiniSd } from "../support/mini_sd.ts";
import { testRuntime } from "../support/runtime.ts";

const file = fileURLToPath(new URL("../../pipelines/sau.yaml", import.meta.url));

describe("pipelines/sau.yaml on examples/mini-sd", { skip: noMiniSd }, () => {
  it("recognises a poisoned text encoder, says so, and calls it not cured", { timeout: 600_000 }, async () => {
    const path = (name: string) => JSON.stringify(join(miniSd!, name));
    const result = await Effect.runPromise(Effect.scoped(Effect.gen(function* () {
      const pipeline = yield* loadFile(file, {
        steps: builtinSteps,
        overrides: [
          `model=${path("base")}`,
          `text_encoder=${path("attacks/rickrolling-tpa/text_encoder")}`,
          `clip=${path("clip")}`,
          "text.count=6",
          "pairs.tokens=0",
          "verdict.count=6",
        ],
      });
      const environment = yield* layerEnvironment(testRuntime, { kind: "test", report: () => null });
      return yield* run(pipeline, { environment });
    })));

    const output = (step: string, name: string) => result.steps.find((s) => s.id === step)!.outputs[name];
    const account = output("cure", "account") as Account;
    assert.match(account.why, /sits in the text encoder/);
    assert.ok(account.text.spread < 0.5, `triggered prompts turn into one: ${account.text.spread}`);
    assert.deepEqual(account.weights, []);
    const verdict = output("verdict", "verdict") as Verdict;
    const figure = (name: string) => verdict.figures.find((f) => f.name === name)!.value;
    assert.ok(figure("attack_success_before") >= 0.8, `the backdoor fires: ${figure("attack_success_before")}`);
    assert.equal(
      figure("attack_success"),
      figure("attack_success_before"),
      "an unchanged model draws the same pictures",
    );
    assert.equal(figure("clip_drop"), 0);
    assert.ok(figure("trigger_removal") < 0.7, `and it shows without knowing its aim: ${figure("trigger_removal")}`);
    assert.equal(verdict.passed, false);
    const html = renderReport(result);
    assert.match(html, /<html/);
    assert.ok(html.includes("rickrolling-tpa"));
  });
});
