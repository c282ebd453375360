/** The setting `scheduler`: what it does to keys of the cache, that steps heed it, and that captures stay in one scale. */
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { Effect, Schema } from "effect";
import { alphaBars } from "../../src/diffusion/scheduler.ts";
import { schedulerNames } from "../../src/diffusion/schedules/choose.ts";
import { denoise } from "../../src/steps/denoise.ts";
import { samplingOf } from "../../src/steps/ports.ts";
import { builtinSteps } from "../../src/steps/registry.ts";
import { Scheduler } from "../../src/steps/settings.ts";
import { tinyText } from "../../src/testing/tiny_model.ts";
import { withSteps } from "../support/runtime.ts";

const field = Schema.Struct({ scheduler: Scheduler });
const decode = Schema.decodeUnknownSync(field), encode = Schema.encodeSync(field);

describe("the setting scheduler", () => {
  it("is DDIM where nothing is said, and is then left out of what keys are made of", () => {
    assert.deepEqual(decode({}), { scheduler: "ddim" });
    assert.deepEqual(encode(decode({})), {});
    assert.deepEqual(encode(decode({ scheduler: "ddim" })), {});
  });

  it("any other one is part of the key, and comes back", () => {
    for (const scheduler of schedulerNames.filter((name) => name !== "ddim")) {
      assert.deepEqual(encode(decode({ scheduler })), { scheduler });
    }
    assert.throws(() => decode({ scheduler: "unipc" }), /dpmpp-2m-karras/);
  });

  it("every step that has a number of sampling steps has it", () => {
    const drawing = builtinSteps.filter((step) => "steps" in step.settings.fields);
    assert.ok(drawing.length >= 5);
    for (const step of drawing) assert.ok("scheduler" in step.settings.fields, step.name);
  });

  it("a verdict says it, but for DDIM", () => {
    const rest = { steps: 4, guidance: 2, seed: 1 };
    assert.deepEqual(samplingOf({ ...rest, scheduler: "ddim" }, 6), { ...rest, pictures: 6 });
    assert.deepEqual(samplingOf({ ...rest, scheduler: "lcm" }, 6), { ...rest, scheduler: "lcm", pictures: 6 });
  });

  it(
    "denoise heeds it, and what it captures is noised as the timestep says",
    { timeout: 120_000 },
    () =>
      withSteps(Effect.gen(function* () {
        const text = yield* tinyText({ prompts: ["a cat", "a dog", "a red bird"], twins: 1, side: 8 });
        const bars = alphaBars(text.model.bundle.scheduler);
        const seen = new Set<string>();
        for (const scheduler of ["ddim", "euler", "euler-ancestral", "dpmpp-2m-karras"] as const) {
          const { capture } = yield* denoise.run({ text }, {
            steps: 6,
            scheduler,
            at: [0, 1],
            tokens: 0,
            attention: false,
          });
          const { timesteps, latents } = capture;
          assert.ok(timesteps[0] > 800 && timesteps[1] < 200, timesteps.join());
          const first = latents.data.subarray(0, latents.data.length / 2);
          const deviation = Math.sqrt(first.reduce((sum, x) => sum + x * x, 0) / first.length);
          // Next to nothing but noise of variance 1 − ᾱ: in sigmas it would be fourteen times as large.
          const noise = Math.sqrt(1 - bars[Math.round(timesteps[0])]);
          assert.ok(Math.abs(deviation - noise) < 0.05, `${scheduler}: ${deviation}`);
          seen.add([...latents.data.subarray(latents.data.length / 2)].join());
        }
        assert.equal(seen.size, 4, "each scheduler goes its own way");
      })),
  );
});
