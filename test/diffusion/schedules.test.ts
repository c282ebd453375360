/** Every way of sampling against diffusers' own schedulers: test/golden/make_schedules.py makes what they answer. */
import { describe, it } from "node:test";
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { Schema } from "effect";
import fc from "fast-check";
import { SchedulerConfig } from "../../src/diffusion/scheduler.ts";
import { type SchedulerName, schedulerNames, solverOf } from "../../src/diffusion/schedules/choose.ts";
import type { Schedule } from "../../src/diffusion/schedules/schedule.ts";
import { sigmaAt, trainedSigmas } from "../../src/diffusion/schedules/sigmas.ts";

interface Row {
  name: string;
  scheduler: SchedulerName;
  config: unknown;
  steps: number;
  timesteps: number[];
  inputs: number[][];
  end: number[];
}
interface Golden {
  start: number[];
  answers: number[][];
  noises: number[][];
  rows: Row[];
}
const golden: Golden = JSON.parse(readFileSync(new URL("../golden/schedules.json", import.meta.url), "utf8"));
const decode = Schema.decodeUnknownSync(SchedulerConfig);

/** Runs a schedule on the host: the latents that go into each step, and the last ones. */
const follow = (
  { start, steps }: Schedule,
  noise: readonly number[],
  answer: (step: number, x: readonly number[]) => readonly number[],
  fresh: (step: number) => readonly number[],
) => {
  let x = noise.map((z) => start * z);
  let past: number[][] = [];
  const inputs: number[][] = [];
  steps.forEach((s, i) => {
    inputs.push(x);
    const [told, z] = [answer(i, x), fresh(i)];
    const next = x.map((v, c) =>
      s.x * v + s.answer * told[c] + s.noise * z[c] + s.past.reduce((sum, w, k) => sum + w * past[k][c], 0)
    );
    const remember = s.remember;
    if (remember !== undefined) past = [x.map((v, c) => remember.x * v + remember.answer * told[c]), ...past];
    x = next;
  });
  return { inputs, end: x };
};

const apart = (got: readonly number[][], want: readonly number[][]): number => {
  assert.deepEqual(got.map((r) => r.length), want.map((r) => r.length));
  const largest = Math.max(...want.flat().map(Math.abs));
  return Math.max(...want.flatMap((row, i) => row.map((w, c) => Math.abs(got[i][c] - w)))) / largest;
};

describe("schedules: as diffusers' schedulers", () => {
  for (const row of golden.rows) {
    it(row.name, () => {
      const schedule = solverOf(decode(row.config), row.scheduler).plan(row.steps);
      const timesteps = schedule.steps.map((s) => s.timestep);
      assert.equal(timesteps.length, row.timesteps.length);
      // Timesteps between those of training come of a float32 logarithm.
      timesteps.forEach((t, i) =>
        assert.ok(Math.abs(t - row.timesteps[i]) < 2e-3, `timestep ${t}, ${row.timesteps[i]}`)
      );
      const { inputs, end } = follow(schedule, golden.start, (i) => golden.answers[i], (i) => golden.noises[i]);
      const error = Math.max(apart(inputs, row.inputs), apart([end], [row.end]));
      assert.ok(error < 5e-6, `off by ${error}`);
    });
  }
});

describe("schedules: laws", () => {
  // Karras' timesteps are rounded, so the network is told a little less or more noise than there is; PNDM draws lines
  // through answers of different noise; DDIM has laws of its own.
  const exact = ["euler", "euler-ancestral", "dpmpp-2m", "lcm"] as const;
  const anyRun = fc.record({
    name: fc.constantFrom(...exact),
    steps: fc.integer({ min: 1, max: 40 }),
    config: fc.record({
      beta_schedule: fc.constantFrom("linear", "scaled_linear", "squaredcos_cap_v2"),
      beta_end: fc.constantFrom(0.012, 0.02),
      prediction_type: fc.constantFrom("epsilon", "v_prediction"),
      timestep_spacing: fc.constantFrom("leading", "linspace", "trailing"),
      steps_offset: fc.constantFrom(0, 1),
    }).map((c) => decode(c)),
  });
  /** What a network that knows the picture and the noise answers. */
  const knowing = (config: SchedulerConfig, share: number, [x0, e]: readonly [number, number]) => {
    const [s, n] = [Math.sqrt(share), Math.sqrt(1 - share)];
    return config.prediction_type === "epsilon" ? e : s * e - n * x0;
  };

  it("a network that always knows the picture is taken to it, by every scheduler, in any number of steps", () => {
    fc.assert(fc.property(anyRun, ({ name, steps, config }) => {
      const schedule = solverOf(config, name).plan(steps);
      const sigmas = trainedSigmas(config);
      const x0 = 0.7;
      // The noise in the latents is what is not the picture, in the share that the timestep says.
      const told = (i: number, [x]: readonly number[]) => {
        const t = schedule.steps[i].timestep;
        const share = 1 / (1 + sigmaAt(sigmas, t) ** 2);
        return [knowing(config, share, [x0, (x - Math.sqrt(share) * x0) / Math.sqrt(1 - share)])];
      };
      const { end } = follow(schedule, [-1.3], told, (i) => [Math.sin(i)]);
      // A consistency model keeps a trace of its latents, by a weight of 1/(20 t)².
      const tolerance = name === "lcm" ? 1e-2 : 1e-6;
      assert.ok(Math.abs(end[0] - x0) < tolerance, `${end[0]}`);
    }));
  });

  it("without fresh noise where none is said", () => {
    const config = decode({});
    for (const name of schedulerNames) {
      const { noisy, plan } = solverOf(config, name);
      assert.equal(noisy, name === "euler-ancestral" || name === "lcm", name);
      assert.equal(plan(5).steps.some((s) => s.noise !== 0), noisy, name);
      assert.ok(plan(20).steps.every((s) => s.past.length <= solverOf(config, name).memory), name);
    }
  });
});

describe("schedules: what cannot be run is said", () => {
  const refused = (config: unknown, name: SchedulerName, why: RegExp, steps = 5) =>
    assert.throws(
      () => solverOf(decode(config), name).plan(steps),
      (e) => e instanceof RangeError && why.test(e.message),
    );

  it("another class than those that are there", () => {
    refused(
      { _class_name: "UniPCMultistepScheduler" },
      "own",
      /UniPCMultistepScheduler; those that can be run are DDIM/,
    );
    refused({ _class_name: "constructor" }, "own", /own scheduler is constructor/);
  });
  it("options that are not there", () => {
    refused({ _class_name: "PNDMScheduler" }, "own", /skip_prk_steps is false/);
    refused({ _class_name: "EulerDiscreteScheduler", use_beta_sigmas: true }, "own", /use_beta_sigmas/);
    const continuous = { timestep_type: "continuous", prediction_type: "v_prediction" };
    refused({ _class_name: "EulerDiscreteScheduler", ...continuous }, "own", /continuous/);
    const dpm = { _class_name: "DPMSolverMultistepScheduler" };
    refused({ ...dpm, algorithm_type: "sde-dpmsolver++" }, "own", /sde-dpmsolver\+\+/);
    refused({ ...dpm, solver_order: 3 }, "own", /solver_order is 3/);
    refused({ ...dpm, use_lu_lambdas: true }, "own", /use_lu_lambdas/);
    refused({ final_sigmas_type: "tiny" }, "euler", /final_sigmas_type is "tiny"/);
  });
  it("but a method asked for by name does not mind what the file says for its own class", () => {
    const config = decode({
      _class_name: "UniPCMultistepScheduler",
      solver_order: 3,
      solver_type: "bh2",
      use_beta_sigmas: true,
    });
    const clean = decode({});
    for (const name of ["euler", "dpmpp-2m", "dpmpp-2m-karras"] as const) {
      assert.deepEqual(solverOf(config, name).plan(7), solverOf(clean, name).plan(7));
    }
  });
  it("predictions that a method does not step, and too many steps", () => {
    refused({ prediction_type: "sample" }, "pndm", /PNDM.*take ddim/);
    refused({ prediction_type: "sample" }, "euler-ancestral", /take euler/);
    refused({}, "lcm", /51 sampling steps of the 50.*4 to 8/, 51);
    for (const name of schedulerNames) refused({}, name, /from 1 to 1000/, 1001);
    refused({ steps_offset: 1 }, "dpmpp-2m", /one noise level|beyond/, 1000);
    refused({ rescale_betas_zero_snr: true }, "lcm", /pure noise/);
  });
});
