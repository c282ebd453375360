import { describe, it } from "node:test";
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { Schema } from "effect";
import fc from "fast-check";
import { alphaBars, noising, SchedulerConfig, schedulerNotes } from "../../src/diffusion/scheduler.ts";
import { ddim } from "../../src/diffusion/schedules/ddim.ts";

interface Row {
  name: string;
  config: unknown;
  steps: number;
  timesteps: number[];
  x: number[];
  noise: number[];
  noised: { t: number; x: number; noise: number }[];
}
const golden: { rows: Row[] } = JSON.parse(readFileSync(new URL("../golden/scheduler.json", import.meta.url), "utf8"));
const decode = Schema.decodeUnknownSync(SchedulerConfig);

const near = (got: readonly number[], want: readonly number[], tolerance: number, what: string) =>
  want.forEach((w, i) =>
    assert.ok(Math.abs(got[i] - w) <= tolerance * Math.max(1, Math.abs(w)), `${what}[${i}]: ${got[i]}, expected ${w}`)
  );

describe("scheduler: as diffusers' DDIMScheduler", () => {
  for (const row of golden.rows) {
    it(row.name, () => {
      const config = decode(row.config);
      const { steps } = ddim(config).plan(row.steps);
      assert.deepEqual(steps.map((s) => s.timestep), row.timesteps);
      near(steps.map((s) => s.x), row.x, 2e-6, "x");
      near(steps.map((s) => s.answer), row.noise, 2e-6, "answer");
      for (const { t, x, noise } of row.noised) {
        near([noising(config, t).x], [x], 2e-6, `√ᾱ at ${t}`);
        near([noising(config, t).noise], [noise], 2e-6, `√(1 − ᾱ) at ${t}`);
      }
    });
  }
});

describe("scheduler: laws", () => {
  const anyConfig = fc.record({
    beta_schedule: fc.constantFrom("linear", "scaled_linear", "squaredcos_cap_v2"),
    prediction_type: fc.constantFrom("epsilon", "v_prediction", "sample"),
    timestep_spacing: fc.constantFrom("leading", "linspace", "trailing"),
    set_alpha_to_one: fc.boolean(),
    num_train_timesteps: fc.integer({ min: 2, max: 300 }),
  }).map((c) => decode(c));

  it("with a network that knows the answer, every step lands on the same picture and noise at the next level", () => {
    fc.assert(fc.property(anyConfig, fc.integer({ min: 1, max: 40 }), (config, wanted) => {
      const steps = Math.min(wanted, config.num_train_timesteps);
      const schedule = ddim(config).plan(steps);
      const bars = alphaBars(config);
      const [x0, e] = [0.7, -1.3];
      const back = Math.floor(config.num_train_timesteps / steps);
      schedule.steps.forEach(({ timestep: t, x, answer }, i) => {
        const { x: s, noise: n } = noising(config, t);
        const next = t - back >= 0 ? bars[t - back] : config.set_alpha_to_one ? 1 : bars[0];
        const output = { epsilon: e, sample: x0, v_prediction: s * e - n * x0 }[config.prediction_type];
        const got = x * (s * x0 + n * e) + answer * output;
        // Where next to nothing of the picture is left, noise prediction multiplies rounding by 1/√ᾱ.
        near([got], [Math.sqrt(next) * x0 + Math.sqrt(1 - next) * e], 1e-12 / Math.min(s, n), `step ${i}`);
      });
    }));
  });
  it("ᾱ falls, from below 1 towards 0", () => {
    fc.assert(fc.property(anyConfig, (config) => {
      const bars = alphaBars(config);
      assert.ok(bars.every((a, i) => a > 0 && a < (i === 0 ? 1 : bars[i - 1])));
    }));
  });
});

describe("scheduler: what cannot be run is said", () => {
  it("steps out of range", () => {
    for (const steps of [0, -1, 1.5, NaN, 1001]) assert.throws(() => ddim(decode({})).plan(steps), /from 1 to 1000/);
    assert.throws(() => ddim(decode({ steps_offset: 1 })).plan(1000), /timestep 1000, beyond the 1000/);
    assert.throws(() => ddim(decode({ trained_betas: [0.1, 0.2] })).plan(10), /beyond the 2 of training/);
    assert.throws(() => noising(decode({}), 1000), /0 to 999/);
  });
  it("noise prediction from pure noise", () =>
    assert.throws(
      () => ddim(decode({ rescale_betas_zero_snr: true, timestep_spacing: "trailing" })).plan(5),
      /pure noise/,
    ));
  it("settings nobody knows", () => {
    assert.throws(() => decode({ beta_schedule: "cubic" }), /beta_schedule/);
    assert.throws(() => decode({ num_train_timesteps: -5 }), /num_train_timesteps/);
    assert.throws(() => decode({ beta_end: 7 }), /beta_end/);
  });
  it("another scheduler and clipping are noted", () => {
    assert.match(
      schedulerNotes(decode({ _class_name: "PNDMScheduler", clip_sample: false })).join(),
      /PNDMScheduler.*DDIM/,
    );
    assert.match(schedulerNotes(decode({})).join(), /not clipped/);
    assert.deepEqual(schedulerNotes(decode({ clip_sample: false })), []);
  });
});
