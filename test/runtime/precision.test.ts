/** Half precision: what a device must show before it is used, and what a model compiled for it computes. */
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { fileURLToPath } from "node:url";
import { Effect, Result } from "effect";
import { Graph, toOnnx } from "../../src/graph/mod.ts";
import { parseUnetConfig, unetCondition } from "../../src/models/unet_2d_condition.ts";
import { flagsOf } from "../../src/pipeline/device.ts";
import type { Engine } from "../../src/runtime/engine.ts";
import { Runtime } from "../../src/runtime/mod.ts";
import { choosePrecision, HALF_TOLERANCE } from "../../src/runtime/precision.ts";
import { wasm } from "../../src/runtime/wasm.ts";
import { latentDims, openSampler } from "../../src/diffusion/sampler.ts";
import { pictureNoise } from "../../src/diffusion/picture_noise.ts";
import { normal } from "../../src/tensor/random.ts";
import { tinyBundle } from "../../src/testing/tiny_model.ts";
import { evaluate } from "../support/evaluate.ts";
import { readJson, relativeError, Stored } from "../support/golden.ts";
import { withRuntime } from "../support/runtime.ts";

const patient = { timeout: 60_000 };

/** A GPU by its word, WebAssembly in truth; the results of every second model that is loaded are `changed`. */
const withHalves = <A>(use: (engine: Engine) => Promise<A>, changed: (x: number) => number = (x) => x): Promise<A> =>
  Effect.runPromise(Effect.scoped(Effect.gen(function* () {
    const real = yield* Effect.flatMap(wasm.find({ software: false }), ({ open }) => open);
    let count = 0;
    const engine: Engine = {
      ...real,
      backend: "webgpu",
      halves: true,
      load: async (model) => {
        const loaded = await real.load(model);
        if (count++ % 2 === 0) return loaded;
        return {
          ...loaded,
          run: async (feeds) => {
            const out = await loaded.run(feeds);
            for (const held of out.values()) {
              const { read } = held;
              Object.assign(held, {
                read: async () => {
                  const { dims, data } = await read();
                  return { dims, data: Float32Array.from({ length: data.length }, (_, i) => changed(Number(data[i]))) };
                },
              });
            }
            return out;
          },
        };
      },
    };
    const answer = yield* Effect.promise(() => use(engine));
    yield* Effect.promise(() => real.close());
    return answer;
  })));

describe("half precision is used", () => {
  it("where both precisions come out alike, and the report says how far apart they were", patient, async () => {
    const report = await withHalves((engine) => choosePrecision(engine, "auto"));
    assert.equal(report.chosen, "float16");
    assert.ok(report.error! > 0 && report.error! < HALF_TOLERANCE, `${report.error}`);
  });

  it(
    "not where they differ: auto goes on in single precision, float16 is refused, both by how much",
    patient,
    async () => {
      for (const wrong of [(x: number) => 1.05 * x, () => NaN, () => 0]) {
        const auto = await withHalves((engine) => choosePrecision(engine, "auto"), wrong);
        assert.equal(auto.chosen, "float32");
        assert.match(auto.why, /its half precision is wrong: off by/);
        assert.equal((await withHalves((engine) => choosePrecision(engine, "float16"), wrong)).chosen, null);
      }
    },
  );

  it("not where single precision is asked for, and nothing is then tried", patient, async () => {
    const untried = () => Promise.reject(new Error("tried"));
    const report = await withHalves((engine) => choosePrecision({ ...engine, load: untried }, "float32"));
    assert.deepEqual(report, { requested: "float32", chosen: "float32", why: "asked for", error: null });
  });

  it("not on WebAssembly: auto says why, float16 is an error that says what to do", patient, async () => {
    const build = (precision: "auto" | "float16") =>
      Effect.runPromise(
        Effect.service(Runtime).pipe(Effect.provide(Runtime.layer("wasm", { precision })), Effect.result),
      );
    const auto = await build("auto");
    assert.ok(Result.isSuccess(auto));
    assert.match(auto.success.report.precision.why, /nothing is gained/);
    const asked = await build("float16");
    assert.ok(Result.isFailure(asked));
    assert.match(asked.failure.message, /cannot be had on wasm: .*Leave --precision at auto/);
  });

  it("and a run's manifest asks for it again", () => {
    assert.equal(flagsOf("webgpu-halves"), "--device webgpu --precision auto");
    assert.equal(flagsOf("webgpu-software-float16"), "--device webgpu-software --precision float16");
    assert.equal(flagsOf("webgpu"), "--device webgpu --precision float32");
    assert.equal(flagsOf("native"), "--device native");
  });
});

describe("a sampler", () => {
  it(
    "draws in half precision where the runtime does, and only where pictures alone are wanted",
    patient,
    () =>
      withRuntime(Effect.gen(function* () {
        const runtime = yield* Runtime;
        const bundle = yield* tinyBundle();
        const config = parseUnetConfig(bundle.parts.unet.config);
        const width = config.cross_attention_dim, length = bundle.tokenizer.maxLength;
        const texts = { context: normal(1, [2, length, width]), uncond: normal(2, [1, length, width]) };
        const noise = pictureNoise(0, 2, latentDims(config));
        const draw = Effect.fnUntraced(function* (requested: "auto" | "float16", drawing: boolean) {
          const precision = { requested, chosen: "float16" as const, why: "", error: 0 };
          const halved = Runtime.of({ ...runtime, report: { ...runtime.report, precision } });
          const run = yield* Effect.provideService(openSampler(bundle, { pictures: 2, drawing }), Runtime, halved);
          return (yield* run(texts, noise, { steps: 2, guidance: 2 })).latents;
        });
        const single = yield* draw("float16", false);
        const half = relativeError(yield* draw("float16", true), single);
        assert.ok(half > 0 && half < HALF_TOLERANCE, `${half}`);
        // Weights of this model are stored in single precision: auto does not round them.
        assert.deepEqual(yield* draw("auto", true), single);
      })),
  );
});

describe("a model compiled for half precision", () => {
  for (const folder of ["unet-1x", "unet-2x"]) {
    it(`${folder}: answers as PyTorch in single precision does, up to the rounding of halves`, patient, async () => {
      const path = fileURLToPath(new URL(`../golden/tiny/${folder}`, import.meta.url));
      const weights = new Stored(`${path}/weights.safetensors`), golden = new Stored(`${path}/golden.safetensors`);
      const place = (part: string, key: string) => weights.place(part, key);
      const graph = new Graph();
      const names = ["sample", "timestep", "context"];
      const feeds = Object.fromEntries(names.map((name) => [name, golden.floats(name)]));
      const [sample, timestep, context] = names.map((name) => graph.input(name, "float32", feeds[name].dims));
      const config = parseUnetConfig(readJson(`${path}/config.json`));
      graph.output("noise", unetCondition(config)(graph.weights("part"), { sample, timestep, context }).noise);
      assert.notDeepEqual(toOnnx(graph, place, { half: true }).model, toOnnx(graph, place).model);
      const external = [{ path: "part", data: weights.bytes }];
      const { noise } = await evaluate(graph, feeds, place, external, "tests", { half: true });
      assert.ok(noise.data instanceof Float32Array);
      const error = relativeError({ dims: noise.dims, data: noise.data }, golden.floats("noise"));
      assert.ok(error > 1e-5 && error < HALF_TOLERANCE, `${folder}: ${error}`);
    });
  }
});
