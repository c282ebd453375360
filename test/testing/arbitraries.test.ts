/** What the arbitraries promise: captures whose trigger is where they say, schedules that step, models that run. */
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { Effect } from "effect";
import fc from "fast-check";
import { pictureNoise } from "../../src/diffusion/picture_noise.ts";
import { openSampler } from "../../src/diffusion/sampler.ts";
import { checkBundle } from "../../src/diffusion/networks.ts";
import { openTextEncoder } from "../../src/diffusion/text.ts";
import { CLEAN, readingDistance, TRIGGERED } from "../../src/steps/capture.ts";
import { locateFields } from "../../src/steps/locate_field.ts";
import { CapturePort } from "../../src/steps/ports.ts";
import {
  captureArbitrary,
  plantedCaptureArbitrary,
  promptArbitrary,
  promptsArbitrary,
  referenceRuntime,
  scheduleArbitrary,
  tinyBundle,
  tinyModelArbitrary,
} from "../../src/testing/mod.ts";
import { tinyTokenizer } from "../../src/testing/tiny_model.ts";
import { mergeWord, toByteLetters, WORD_END } from "../../src/diffusion/bpe.ts";

describe("captures", () => {
  it("are what the port takes, with the dims that their sizes say", () =>
    fc.assert(fc.property(captureArbitrary({ prompts: 2, twins: 3, side: 4 }), (capture) => {
      const [steps, prompts, readings, channels, h, w] = capture.noise.dims;
      assert.deepEqual([prompts, readings, h, w], [2, 5, 4, 4]);
      assert.deepEqual(capture.latents.dims, [steps, prompts, channels, h, w]);
      assert.equal(capture.timesteps.length, steps);
      assert.deepEqual(CapturePort.decode(CapturePort.encode(capture)), capture);
      for (const { maps } of capture.layers) {
        const length = maps.dims[3];
        for (let at = 0; at < maps.data.length; at += length) {
          assert.ok(Math.abs(maps.data.subarray(at, at + length).reduce((a, b) => a + b, 0) - 1) < 1e-5);
        }
      }
    })));

  it("hold a trigger in the region that they tell: a strong one moves every cell of it further than any other", () =>
    fc.assert(fc.property(plantedCaptureArbitrary({ channels: 4, prompts: 3 }), ({ capture, region, strength }) => {
      const d = readingDistance(capture.noise, TRIGGERED, CLEAN), cells = region.data.length;
      const mean = (inside: number) => {
        const values = d.data.filter((_, i) => region.data[i % cells] === inside);
        return values.reduce((a, b) => a + b, 0) / Math.max(1, values.length);
      };
      const { pooled } = locateFields(capture.noise, [[true, true], [true, true], [true, true]]);
      assert.ok(pooled.data.every(Number.isFinite));
      assert.equal(region.data.some((x) => x === 1), true);
      // On top of about 1 a strong trigger is seen inside, and a trigger that does nothing nowhere.
      if (strength >= 8) assert.ok(mean(1) > 0.5 * strength ** 2, `${mean(1)} inside at strength ${strength}`);
      if (strength === 0) assert.ok(mean(1) < 20, `${mean(1)} inside without a trigger`);
      assert.ok(mean(0) < 20, `${mean(0)} outside`);
    })));
});

describe("schedules", () => {
  it("step from much noise to less, by finite numbers", () =>
    fc.assert(fc.property(scheduleArbitrary(), ({ schedule, steps }) => {
      assert.equal(schedule.steps.length, steps);
      schedule.steps.slice(1).forEach(({ timestep }, i) => assert.ok(timestep < schedule.steps[i].timestep));
      for (const { x, answer } of schedule.steps) assert.ok(Number.isFinite(x) && Number.isFinite(answer));
    })));
});

describe("prompts", () => {
  it("are lines; several are different", () => {
    fc.assert(fc.property(promptArbitrary({ odd: true }), (p) => assert.ok(!/[\r\n]/.test(p))));
    fc.assert(fc.property(promptsArbitrary(5), (list) => assert.equal(new Set(list).size, 5)));
  });
});

describe("tiny models", () => {
  it("the tokenizer makes one token of each word, whatever words there are", () =>
    fc.assert(fc.property(fc.uniqueArray(fc.stringMatching(/^[abn]{1,7}$/), { minLength: 1 }), (words) => {
      const { merges } = tinyTokenizer(words);
      const ranks = new Map(merges.split("\n").slice(1, -1).map((line, i) => [line, i]));
      for (const word of words) {
        const letters = toByteLetters(word);
        letters.push(letters.pop() + WORD_END);
        assert.deepEqual(mergeWord(letters, ranks), [word + WORD_END]);
      }
    })));

  it("open, fit their networks, and sample the same latents again", { timeout: 120_000 }, () =>
    fc.assert(
      fc.asyncProperty(tinyModelArbitrary(), promptArbitrary({ odd: true }), (options, prompt) =>
        Effect.runPromise(
          Effect.scoped(Effect.gen(function* () {
            const bundle = yield* tinyBundle(options);
            yield* checkBundle(bundle);
            const side = options.side ?? 4;
            const texts = yield* (yield* openTextEncoder(bundle))(
              [prompt, ""].map((p) => bundle.tokenizer.encode(p).ids),
            );
            const [length, width] = texts.dims.slice(1);
            const [context, uncond] = [0, 1].map((i) => ({
              dims: [1, length, width],
              data: texts.data.slice(i * length * width, (i + 1) * length * width),
            }));
            const sample = yield* openSampler(bundle, { pictures: 1 });
            const noise = pictureNoise(1, 1, [4, side, side]);
            const { latents } = yield* sample({ context, uncond }, noise, { steps: 2, guidance: 2 });
            const again = yield* sample({ context, uncond }, noise, { steps: 2, guidance: 2 });
            assert.deepEqual(latents.dims, [1, 4, side, side]);
            assert.ok(latents.data.every(Number.isFinite));
            assert.deepEqual(again.latents, latents);
          })).pipe(Effect.provide(referenceRuntime)),
        )),
      { numRuns: 5 },
    ));
});
