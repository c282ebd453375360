/** Models that predict a velocity: what they are asked, taught and poisoned with is velocity, not noise. */
import assert from "node:assert/strict";
import { Effect } from "effect";
import fc from "fast-check";
import { describe, it } from "node:test";
import { noising } from "../../src/diffusion/scheduler.ts";
import { ask, pictureShare, truthOf } from "../../src/steps/lessons.ts";
import { unlearn } from "../../src/steps/unlearn.ts";
import { normal } from "../../src/tensor/random.ts";
import { tinyText } from "../../src/testing/tiny_model.ts";
import { embeddingAt } from "../../src/diffusion/embeddings.ts";
import { withSteps } from "../support/runtime.ts";

describe("what a network is to answer", () => {
  const bars = fc.double({ min: 0.01, max: 0.99, noNaN: true });

  it("gives the clean picture back, whatever the network predicts", () => {
    fc.assert(fc.property(bars, fc.nat(999), (bar, seed) => {
      const [clean, noise] = [0, 1].map((i) => normal(seed + i, [1, 1, 2, 2]));
      const [a, b] = [Math.sqrt(bar), Math.sqrt(1 - bar)];
      clean.data.forEach((x, i) => {
        const noised = a * x + b * noise.data[i];
        const [e, v, s] = (["epsilon", "v_prediction", "sample"] as const).map((kind) =>
          truthOf(kind, clean, noise, bar).data[i]
        );
        for (const back of [(noised - b * e) / a, a * noised - b * v, s]) assert.ok(Math.abs(back - x) < 1e-4);
      });
    }));
  });

  it("an error of the answer is as much of the picture's as pictureShare says", () => {
    fc.assert(fc.property(bars, (bar) => {
      const [a, b] = [Math.sqrt(bar), Math.sqrt(1 - bar)];
      const slopes = { epsilon: b / a, v_prediction: b, sample: 1 };
      for (const kind of ["epsilon", "v_prediction", "sample"] as const) {
        assert.ok(Math.abs(pictureShare(kind, bar) - slopes[kind] ** 2) < 1e-9 * (1 + slopes[kind] ** 2));
      }
    }));
  });
});

describe("a tiny model that predicts a velocity", () => {
  const model = {
    prompts: ["a red cat", "a blue dog", "a small fox", "a green owl"],
    twins: 2,
    prediction: "v_prediction",
  } as const;

  it(
    "is asked about noised pictures, and told the velocity as the truth",
    { timeout: 120_000 },
    () =>
      withSteps(Effect.gen(function* () {
        const text = yield* tinyText(model);
        const { bundle } = text.model;
        const pictures = normal(7, [2, 4, 4, 4]);
        const asked = yield* ask(bundle, pictures, {
          noisings: 2,
          contexts: (p) => [embeddingAt(text.embeddings, p, 0)],
          seed: (what) => what.length,
        });
        for (const { picture, latents, timestep, truth } of asked) {
          const { x, noise } = noising(bundle.scheduler, timestep);
          latents.data.forEach((value, i) => {
            const clean = pictures.data[picture * 64 + i];
            assert.ok(Math.abs(x * value - noise * truth.data[i] - clean) < 1e-5);
          });
        }
      })),
  );

  it("is distilled towards it", { timeout: 300_000 }, () =>
    withSteps(Effect.gen(function* () {
      const text = yield* tinyText(model);
      const { account } = yield* unlearn.run({ text }, {
        strategy: "distill",
        steps: 2,
        train_unet: {
          wanted: "noise",
          masked: false,
          keep: 0,
          steps: 30,
          batch: 8,
          check: 30,
          rate: 1e-2,
          samples: 3,
          noisings: 4,
          pictures: 1,
        },
      });
      const { losses } = account.training!;
      const mean = (some: readonly number[]) => some.reduce((a, b) => a + b, 0) / some.length;
      assert.ok(mean(losses.slice(-10)) < 0.9 * mean(losses.slice(0, 10)), losses.join(" "));
    })));
});
