/** examples/custom-step: the laws that its mask keeps, and the pipeline as a user runs it. */
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { Effect } from "effect";
import fc from "fast-check";
import {
  attentionEntropyMask,
  entropy,
  entropyShift,
  maskOf,
} from "../../examples/custom-step/steps/attention_entropy.ts";
import { layerEnvironment } from "../../src/pipeline/environment.ts";
import { loadFile } from "../../src/pipeline/load.ts";
import { run } from "../../src/pipeline/run.ts";
import { Runtime } from "../../src/runtime/mod.ts";
import type { Mask } from "../../src/steps/ports.ts";
import { builtinSteps } from "../../src/steps/registry.ts";
import { checkMaskLaws, checkStepLaws, tensorArbitrary } from "../../src/testing/mod.ts";

const rows = tensorArbitrary([3, 5], { min: 0.01, max: 1 });
const near = (a: number, b: number) => assert.ok(Math.abs(a - b) < 1e-4, `${a} is not ${b}`);

describe("attention entropy", () => {
  it("lies between 0 and ln L, which even attention has", () => {
    fc.assert(fc.property(rows, (t) => entropy(t).data.forEach((h) => assert.ok(h >= 0 && h <= Math.log(5) + 1e-5))));
    near(entropy({ dims: [1, 4], data: new Float32Array(4).fill(0.25) }).data[0], Math.log(4));
    near(entropy({ dims: [1, 3], data: Float32Array.of(0, 1, 0) }).data[0], 0);
  });

  it("does not depend on the order of the tokens, nor on what the row sums to", () =>
    fc.assert(fc.property(rows, ({ dims, data }) => {
      const turned = entropy({ dims, data: data.map((_, i) => 3 * data[Math.floor(i / 5) * 5 + (4 - (i % 5))]) });
      entropy({ dims, data }).data.forEach((h, i) => near(h, turned.data[i]));
    })));

  it("shifts nowhere when the trigger's maps are the twins'", () =>
    fc.assert(fc.property(tensorArbitrary([4, 5], { min: 0.01, max: 1 }), ({ data }) => {
      const maps = { dims: [1, 4, 4, 5], data: Float32Array.from({ length: 80 }, (_, i) => data[i % 20]) };
      entropyShift(maps).data.forEach((x) => near(x, 0));
    })));

  it("gives a mask that keeps the laws", () => checkMaskLaws((field, value) => maskOf(field, { value }, 12)));

  it("keeps the laws of steps", () => checkStepLaws(attentionEntropyMask, { settings: {} }));
});

describe("examples/custom-step", () => {
  it("runs on the real example, and finds the attacked corner", { timeout: 120_000 }, async () => {
    const file = new URL("../../examples/custom-step/pipeline.yaml", import.meta.url).pathname;
    const result = await Effect.runPromise(Effect.scoped(Effect.gen(function* () {
      const overrides = ["count=2", "steps=3"];
      const pipeline = yield* loadFile(file, { steps: builtinSteps, overrides, allowCode: true });
      const environment = yield* layerEnvironment(Runtime.layer("wasm"), { kind: "wasm", report: () => null });
      return yield* run(pipeline, { environment });
    })));
    const { pooled, prompts } = result.outputs.mask.value as Mask;
    assert.equal(prompts.dims[0], 2);
    const [h, w] = pooled.dims;
    const mean = (inside: boolean) => {
      // The patch covers the upper left quarter of each side.
      const of = pooled.data.filter((_, i) => (i % w < w / 4 && i < (h * w) / 4) === inside);
      return of.reduce((a, b) => a + b, 0) / of.length;
    };
    assert.ok(pooled.data.every((x) => x >= 0 && x <= 1));
    assert.ok(mean(true) > 2 * mean(false), `${mean(true)} under the patch, ${mean(false)} elsewhere`);
  });
});
