/** The figures of a verdict on real pictures, against transformers, scipy and scikit-image (test/golden/make_pictures.py). */
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, it } from "node:test";
import { fileURLToPath } from "node:url";
import { Effect } from "effect";
import { decode } from "fast-png";
import { openBundle } from "../../src/diffusion/bundle_open.ts";
import { openScorer } from "../../src/diffusion/scorer.ts";
import { openScoringModel } from "../../src/diffusion/scoring.ts";
import { patchCorrelation } from "../../src/metrics/correlation.ts";
import { clipScores, cosines } from "../../src/metrics/features.ts";
import { frechetDistance } from "../../src/metrics/frechet.ts";
import { wilson } from "../../src/metrics/intervals.ts";
import { ssim } from "../../src/metrics/ssim.ts";
import { effectText, readPatch, showsPatch, showsText } from "../../src/steps/effect.ts";
import type { Tensor } from "../../src/tensor/tensor.ts";
import { miniSd, noMiniSd } from "../support/mini_sd.ts";
import { withSteps } from "../support/runtime.ts";

interface Golden {
  /** SHA-256 of the scoring CLIP's weights. */
  weights: string;
  prompts: string[];
  dogs: string[];
  clip: Record<string, number[]>;
  cosine: number[];
  frechet: Record<string, number>;
  ssim: number[];
  patch: Record<string, number[]>;
  cats: boolean[];
  clean_success: [number, number, number];
  triggered_success: [number, number, number];
}
const golden = fileURLToPath(new URL("../golden/", import.meta.url));
const expected: Golden = JSON.parse(readFileSync(join(golden, "pictures.json"), "utf8"));

const SIDE = 64;

/** Pictures that stand below each other, as [n, 3, 64, 64] in 0…1. */
const picturesOf = (name: string): Tensor => {
  const { data, width, height, channels } = decode(readFileSync(join(golden, "pictures", `${name}.png`)));
  assert.deepEqual([width, channels], [SIDE, 3]);
  const plane = SIDE * SIDE;
  const out = new Float32Array(data.length);
  for (let i = 0; i < data.length; i++) {
    const [picture, at, colour] = [Math.floor(i / (3 * plane)), Math.floor(i / 3) % plane, i % 3];
    out[(picture * 3 + colour) * plane + at] = data[i] / 255;
  }
  return { dims: [height / SIDE, 3, SIDE, SIDE], data: out };
};

const near = (actual: ArrayLike<number>, wanted: readonly number[], tolerance: number, what: string) => {
  assert.equal(actual.length, wanted.length, what);
  wanted.forEach((w, i) => assert.ok(Math.abs(actual[i] - w) <= tolerance, `${what} ${i}: ${actual[i]} against ${w}`));
};

describe("a verdict's figures on real pictures", { skip: noMiniSd }, () => {
  const names = ["unpoisoned", "clean", "triggered", "cats"] as const;
  const pictures = Object.fromEntries(names.map((name) => [name, picturesOf(name)]));

  it("CLIP scores, cosines, FD-CLIP and exchanged words are those of transformers' CLIPModel and scipy's sqrtm", () =>
    withSteps(Effect.gen(function* () {
      const weights = readFileSync(join(miniSd!, "clip", "model.safetensors"));
      const hash = createHash("sha256").update(weights).digest("hex");
      assert.equal(hash, expected.weights, "the scoring CLIP is another: run test/golden/make_pictures.py again");

      const { tokenizer } = yield* openBundle(join(miniSd!, "base"));
      const scorer = yield* openScorer(yield* openScoringModel(join(miniSd!, "clip"), tokenizer));
      const features: Record<string, Tensor> = {};
      for (const name of names) features[name] = yield* scorer.pictures(pictures[name]);
      const texts = yield* scorer.texts(expected.prompts);
      for (const [name, scores] of Object.entries(expected.clip)) {
        near(clipScores(features[name], texts), scores, 1e-5, `CLIP score, ${name}`);
      }
      near(cosines(features.clean, features.triggered), expected.cosine, 1e-5, "cosine");
      for (const [name, distance] of Object.entries(expected.frechet)) {
        near([frechetDistance(features[name], features.unpoisoned)], [distance], 1e-5, `FD-CLIP, ${name}`);
      }

      const effect = { replace: "dog", with: "cat" };
      const cats = yield* scorer.texts(expected.dogs.map((prompt) => effectText(effect, prompt)!));
      const shown = showsText(features.cats, cats, yield* scorer.texts(expected.dogs));
      assert.ok(new Set(expected.cats).size === 2, "some show it, others do not");
      assert.deepEqual(shown, expected.cats);
    })));

  it("SSIM is scikit-image's", () => {
    near(ssim(pictures.clean, pictures.triggered), expected.ssim, 1e-5, "SSIM");
  });

  it("the patch is found by scipy's correlation, and its rate has scipy's Wilson interval", async () => {
    const image = join(miniSd!, "attacks", "badt2i-pixel", "patch.png");
    const patch = await Effect.runPromise(readPatch({ image, at: [0, 0], threshold: 0.6 }));
    for (const name of ["clean", "triggered"] as const) {
      near(
        patchCorrelation(pictures[name], patch.pixels, { x: 0, y: 0 }),
        expected.patch[name],
        1e-5,
        `patch, ${name}`,
      );
      const shown = showsPatch(pictures[name], patch);
      const [count, low, high] = expected[`${name}_success`];
      assert.equal(shown.filter((s) => s).length, count);
      const interval = wilson(count, shown.length);
      near([interval.low, interval.high], [low, high], 1e-9, `interval, ${name}`);
    }
  });
});
