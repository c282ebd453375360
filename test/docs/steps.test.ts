import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { describe, it } from "node:test";
import { describeSettings } from "../../src/pipeline/describe.ts";
import { stepsPage } from "../../src/pipeline/steps_page.ts";
import { builtinSteps } from "../../src/steps/registry.ts";
import { verify } from "../../src/steps/verify.ts";

describe("docs/steps.md", () => {
  it("is what the steps say today (make it anew: sau steps --markdown > docs/steps.md)", () => {
    assert.equal(readFileSync(new URL("../../docs/steps.md", import.meta.url), "utf8"), stepsPage(builtinSteps));
  });

  it("tells bounds, and the keys of a mapping with their own", () => {
    const settings = Object.fromEntries(describeSettings(verify.settings).map((info) => [info.name, info]));
    assert.equal(settings.count.bounds, "from 1 to 4096");
    assert.equal(settings.seed.bounds, "at least 0");
    assert.equal(settings.guidance.bounds, undefined);
    const within = settings.effect.within ?? [];
    assert.deepEqual(within.map(({ name }) => name), ["text", "replace", "with", "append", "image", "at", "threshold"]);
    assert.equal(settings.require.within?.[0].bounds, '">= number" or "<= number"');
  });
});
