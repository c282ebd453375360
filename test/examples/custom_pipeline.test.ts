/** examples/custom-pipeline: the audit's arithmetic, and the file as a user runs it, on LoRAs over the real example. */
import assert from "node:assert/strict";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, it } from "node:test";
import { Effect, Result } from "effect";
import fc from "fast-check";
import { productNorm } from "../../examples/custom-pipeline/steps/audit_lora.ts";
import { noServices } from "../../src/pipeline/environment.ts";
import { loadFile } from "../../src/pipeline/load.ts";
import { run } from "../../src/pipeline/run.ts";
import { explain } from "../../src/steps/errors.ts";
import { builtinSteps } from "../../src/steps/registry.ts";
import { matmul } from "../../src/tensor/linalg.ts";
import { normal } from "../../src/tensor/random.ts";
import { write } from "../../src/tensor/safetensors.ts";
import type { Tensor } from "../../src/tensor/tensor.ts";
import { tensorArbitrary } from "../../src/testing/mod.ts";
import { withFolder } from "../pipeline/helpers.ts";

const file = new URL("../../examples/custom-pipeline/audit.yaml", import.meta.url).pathname;
const BLOCK = "mid_block.attentions.0.transformer_blocks.0";
/** Width of the block and of the text in the example. */
const Q = 128, TEXT = 128;

/** Audits a LoRA of these factors. */
const audit = async (tensors: Record<string, Tensor>, strength = 1) => {
  const found: Result.Result<{ passed: boolean; figures: Record<string, number> }, unknown>[] = [];
  await withFolder(async (folder) => {
    const lora = join(folder, "lora.safetensors");
    await writeFile(lora, write(new Map(Object.entries(tensors))));
    found.push(
      await Effect.runPromise(Effect.result(Effect.gen(function* () {
        const overrides = [`lora=${lora}`, `strength=${strength}`];
        const pipeline = yield* loadFile(file, { steps: builtinSteps, overrides, allowCode: true });
        // The audit computes on no device, so nothing of the environment is used.
        const { verdict } = yield* run(pipeline as never, { environment: noServices() });
        const figures = Object.fromEntries((verdict?.figures ?? []).map(({ name, value }) => [name, value]));
        return { passed: verdict?.passed ?? false, figures };
      }))),
    );
  });
  return found[0];
};

const small = (seed: number, dims: readonly number[]): Tensor => {
  const { data } = normal(seed, dims);
  return { dims, data: data.map((x) => x * 0.02) };
};

/** Factors of rank 2 for some weights of the middle block, by name and width. */
const lora = (...weights: ReadonlyArray<readonly [string, number, number]>): Record<string, Tensor> =>
  Object.fromEntries(weights.flatMap(([name, out, width], i) => [
    [`unet.${BLOCK}.${name}.lora_A.weight`, small(2 * i + 1, [2, width])],
    [`unet.${BLOCK}.${name}.lora_B.weight`, small(2 * i + 2, [out, 2])],
  ]));

describe("the norm of a product", () => {
  it("is that of the product written out", () =>
    fc.assert(fc.property(tensorArbitrary([5, 2]), tensorArbitrary([2, 4]), (up, down) => {
      const whole = Math.hypot(...matmul(up.data, down.data, 5, 2, 4));
      assert.ok(Math.abs(productNorm(up, down) - whole) <= 1e-4 * (1 + whole));
    })));
});

describe("examples/custom-pipeline", () => {
  it("passes a LoRA that spreads, and stops at one that touches the text's entry alone", async () => {
    const spread = await audit(lora(["attn1.to_q", Q, Q], ["attn2.to_k", Q, TEXT]));
    const edit = await audit(lora(["attn2.to_k", Q, TEXT], ["attn2.to_v", Q, TEXT]));
    assert.ok(Result.isSuccess(spread) && Result.isSuccess(edit), explain(spread) + explain(edit));
    assert.equal(spread.success.passed, true);
    assert.equal(edit.success.passed, false);
    assert.equal(edit.success.figures.text_share, 1);
  });

  it("scales with the strength", async () => {
    const factors = lora(["attn1.to_q", Q, Q]);
    const [one, two] = [await audit(factors), await audit(factors, 2)];
    assert.ok(Result.isSuccess(one) && Result.isSuccess(two));
    const ratio = two.success.figures.largest_change / one.success.figures.largest_change;
    assert.ok(Math.abs(ratio - 2) < 1e-9);
  });

  it("refuses a file without pairs, and half a pair, by name", async () => {
    const none = await audit({ other: small(1, [2, 2]) });
    assert.ok(Result.isFailure(none));
    assert.match(explain(none.failure), /holds no LoRA of a U-Net/);
    const half = await audit({ [`unet.${BLOCK}.attn1.to_q.lora_A.weight`]: small(1, [2, Q]) });
    assert.ok(Result.isFailure(half));
    assert.match(explain(half.failure), /without unet\..*lora_B/);
  });
});
