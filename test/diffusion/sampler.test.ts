/** Whole guided sampling by every scheduler, with a real (tiny) U-Net on ONNX Runtime: against diffusers, and its laws. */
import { after, describe, it } from "node:test";
import assert from "node:assert/strict";
import { cpSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { Effect } from "effect";
import type { Bundle } from "../../src/diffusion/bundle.ts";
import { openBundle } from "../../src/diffusion/bundle_open.ts";
import { openEvaluator } from "../../src/diffusion/evaluator.ts";
import { type PictureNoise, pictureNoise } from "../../src/diffusion/picture_noise.ts";
import { openSampler } from "../../src/diffusion/sampler.ts";
import { type SchedulerName, schedulerNames, solverOf } from "../../src/diffusion/schedules/choose.ts";
import type { SamplingStep } from "../../src/diffusion/schedules/schedule.ts";
import { slice0, type Tensor } from "../../src/tensor/tensor.ts";
import { tinyModelFiles } from "../../src/testing/tiny_model.ts";
import { assertClose, relativeError, Stored } from "../support/golden.ts";
import { withRuntime } from "../support/runtime.ts";

const temp = mkdtempSync(join(tmpdir(), "sau-sampler-"));
after(() => rmSync(temp, { recursive: true, force: true }));

const here = (path: string) => fileURLToPath(new URL(`../golden/${path}`, import.meta.url));
const golden = new Stored(here("schedules.safetensors"));
const { seed, steps, guidance, config } = golden.header.metadata;
const options = { steps: Number(steps), guidance: Number(guidance) };
const [context, uncond, start] = ["context", "uncond", "start"].map((key) => golden.floats(key));
const [n, ...dims] = start.dims;
const noise: PictureNoise = { start, seed: Number(seed), pictures: n };

/** A model around the U-Net of tiny/unet-1x, with another scheduler_config.json. */
const open = (scheduler: string): Effect.Effect<Bundle> =>
  Effect.gen(function* () {
    const folder = mkdtempSync(join(temp, "model-"));
    for (const [path, content] of tinyModelFiles({ width: 6 })) {
      mkdirSync(dirname(join(folder, path)), { recursive: true });
      writeFileSync(join(folder, path), content);
    }
    cpSync(here("tiny/unet-1x/config.json"), join(folder, "unet/config.json"));
    cpSync(here("tiny/unet-1x/weights.safetensors"), join(folder, "unet/diffusion_pytorch_model.safetensors"));
    writeFileSync(join(folder, "scheduler/scheduler_config.json"), scheduler);
    return yield* openBundle(folder);
  }).pipe(Effect.orDie);

const patient = { timeout: 120_000 };
const named = schedulerNames.filter((name) => name !== "own");

const draw = (
  bundle: Bundle,
  scheduler: SchedulerName,
  some: PictureNoise = noise,
  texts: { context: Tensor; clean?: Tensor; mask?: Tensor } = { context },
  guidance = options.guidance,
) =>
  Effect.gen(function* () {
    const pictures = some.start.dims[0];
    const { clean, mask } = texts;
    const run = yield* openSampler(bundle, { pictures, scheduler, ...(mask === undefined ? {} : { blend: { mask } }) });
    return yield* run(
      { context: texts.context, uncond, ...(clean === undefined ? {} : { clean }) },
      some,
      { ...options, guidance, capture: [options.steps / 2] },
    );
  }).pipe(Effect.scoped);

interface State {
  readonly x: readonly number[];
  /** The latest first. */
  readonly past: readonly (readonly number[])[];
}

/** A step without fresh noise, on the host. */
const advance = (step: SamplingStep, { x, past }: State, answer: readonly number[]): State => {
  const { remember } = step;
  return {
    x: x.map((v, i) => step.x * v + step.answer * answer[i] + step.past.reduce((sum, w, k) => sum + w * past[k][i], 0)),
    past: remember === undefined ? past : [x.map((v, i) => remember.x * v + remember.answer * answer[i]), ...past],
  };
};

describe("guided sampling", () => {
  it("its noise is what the golden values were made with", () => {
    assertClose(pictureNoise(Number(seed), n, dims).start, start, "start");
  });

  for (const name of named) {
    it(
      `${name}: ends where diffusers' scheduler ends, and what is captured is what its U-Net is given`,
      patient,
      () =>
        withRuntime(Effect.gen(function* () {
          const bundle = yield* open(config);
          const { latents, captured: [half] } = yield* draw(bundle, name);
          assertClose(latents, golden.floats(`${name}.end`), name);
          assertClose(half, golden.floats(`${name}.captured`), `${name}, captured`);
        })),
    );
  }

  it(
    "a picture drawn alone, or among copies, is the same picture: fresh noise and memory are its own",
    patient,
    () =>
      withRuntime(Effect.gen(function* () {
        const bundle = yield* open(config);
        for (const name of ["euler-ancestral", "dpmpp-2m"] as const) {
          const { latents: all } = yield* draw(bundle, name);
          const first = { ...noise, start: slice0(start, 0, 1), pictures: 1 };
          const { latents: alone } = yield* draw(bundle, name, first, { context: slice0(context, 0, 1) });
          assertClose(alone, slice0(all, 0, 1), `${name}, alone`);
          // The same two pictures for one text each, then for the other's.
          const twice = pictureNoise(Number(seed), 1, dims, 3);
          const { latents: copies } = yield* draw(bundle, name, twice);
          assertClose(slice0(copies, 0, 1), slice0(all, 0, 1), `${name}, among copies`);
          assert.ok(relativeError(slice0(copies, 1, 2), slice0(all, 1, 2)) > 0.1, "another start, another picture");
        }
      })),
  );

  it(
    "blend: latents and memory flow in together, as a slope of a mask shows",
    patient,
    () =>
      withRuntime(Effect.gen(function* () {
        const bundle = yield* open(config);
        const [height, width] = dims.slice(1);
        const clean: Tensor = { dims: context.dims, data: context.data.toReversed() };
        const mask: Tensor = {
          dims: [height, width],
          data: Float32Array.from({ length: height * width }, (_, i) => (i % width) / (width - 1)),
        };
        const evaluate = yield* openEvaluator(bundle, 1, { prompts: n });
        const answer = (x: readonly number[], { dims: [count, ...text], data }: Tensor, timestep: number) =>
          Effect.map(
            evaluate(
              { dims: start.dims, data: Float32Array.from(x) },
              { dims: [count, 1, ...text], data },
              timestep,
            ),
            ({ noise }) => [...noise.data],
          );
        const flow = (own: readonly number[], pure: readonly number[]) =>
          own.map((x, i) => x + mask.data[i % mask.data.length] * (pure[i] - x));
        for (const name of ["dpmpp-2m", "pndm"] as const) {
          // The same on the host, latents and memory in plain sight. Guidance of 1 asks for the text's own answer alone.
          let own: State = { x: [...start.data], past: [] }, pure = own;
          for (const step of solverOf(bundle.scheduler, name).plan(options.steps).steps) {
            const next = advance(step, own, yield* answer(own.x, context, step.timestep));
            pure = advance(step, pure, yield* answer(pure.x, clean, step.timestep));
            // What earlier steps remembered has flown in already.
            const past = next.past.map((m, i) => i === 0 && step.remember !== undefined ? flow(m, pure.past[0]) : m);
            own = { x: flow(next.x, pure.x), past };
          }
          const { latents } = yield* draw(bundle, name, noise, { context, clean, mask }, 1);
          assertClose(latents, { dims: start.dims, data: Float32Array.from(own.x) }, name);
        }
      })),
  );

  it(
    "own: the class that the file names, Python's -Infinity in it or not",
    patient,
    () =>
      withRuntime(Effect.gen(function* () {
        const file = config.replace(
          "{",
          '{"_class_name": "DPMSolverMultistepScheduler", "lambda_min_clipped": -Infinity, ',
        );
        const bundle = yield* open(file);
        const { latents } = yield* draw(bundle, "own");
        assertClose(latents, golden.floats("dpmpp-2m.end"), "own");
      })),
  );

  it("what cannot be run is an error that names the file and says what to do", () =>
    withRuntime(Effect.gen(function* () {
      const bundle = yield* open(config.replace("{", '{"_class_name": "UniPCMultistepScheduler", '));
      const error = yield* Effect.flip(draw(bundle, "own"));
      assert.equal(error._tag, "BundleError");
      assert.match(
        error.message,
        /scheduler_config\.json does not go with the setting scheduler: own: .*UniPC[^]*ddim/,
      );
      const many = yield* Effect.flip(
        Effect.scoped(Effect.flatMap(
          openSampler(bundle, { pictures: n, scheduler: "lcm" }),
          (run) => run({ context, uncond }, noise, { steps: 60, guidance: 1 }),
        )),
      );
      assert.match(many.message, /steps: 60, scheduler: lcm: 60 sampling steps of the 50/);
    })));
});
