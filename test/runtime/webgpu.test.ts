/**
 * WebGPU, on a real adapter or an emulated one (Debian: apt-get install mesa-vulkan-drivers); without any, one test that
 * is visibly skipped. Every network is compiled and run with the CPU fallback forbidden: a node that has no kernel on the
 * GPU fails its test.
 */
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { fileURLToPath } from "node:url";
import { Effect, Result } from "effect";
import { float32 } from "../../src/diffusion/networks.ts";
import { Graph, matmul, printGraph, reshape, toOnnx, transpose, type Value } from "../../src/graph/mod.ts";
import { autoencoderKl, parseAutoencoderKlConfig } from "../../src/models/autoencoder_kl.ts";
import { clipImageFeatures, clipTextFeatures, parseClipConfig } from "../../src/models/clip.ts";
import { clipText, parseClipTextConfig } from "../../src/models/clip_text.ts";
import { attention } from "../../src/models/layers.ts";
import { parseUnetConfig, unetCondition } from "../../src/models/unet_2d_condition.ts";
import { normal } from "../../src/tensor/random.ts";
import { type Device, type HostTensor, Runtime, toHost } from "../../src/runtime/mod.ts";
import { HALF_TOLERANCE } from "../../src/runtime/precision.ts";
import { webgpu } from "../../src/runtime/webgpu.ts";
import { endOf } from "../support/clip.ts";
import { readJson, relativeError, Stored } from "../support/golden.ts";
import { chain } from "../support/graphs.ts";
import { withRuntime } from "../support/runtime.ts";
import { sessionLaws } from "./session_laws.ts";
import { followsPyTorch } from "./training_laws.ts";

const PATIENT = { timeout: 300_000 };
/** GPUs sum in another order, and approximate exp and tanh; PyTorch on a GPU differs from itself on a CPU as much. */
const LIMIT = 1e-3;

const found = await Effect.runPromise(Effect.scoped(Effect.result(webgpu.find({ software: false }))));
const halves = (await globalThis.navigator?.gpu?.requestAdapter())?.features.has("shader-f16") ?? false;

interface Network {
  readonly folder: string;
  readonly feeds: (golden: Stored) => Record<string, HostTensor>;
  readonly build: (config: unknown, graph: Graph, inputs: Record<string, Value>) => Record<string, Value>;
}

const unet = (folder: string): Network => ({
  folder,
  feeds: (golden) => ({
    sample: golden.floats("sample"),
    timestep: golden.floats("timestep"),
    context: golden.floats("context"),
  }),
  build: (config, graph, { sample, timestep, context }) => {
    const { noise, attention } = unetCondition(parseUnetConfig(config))(graph.weights("part"), {
      sample,
      timestep,
      context,
    });
    return { noise, ...Object.fromEntries(attention.map((a) => [`attention.${a.name}`, a.probabilities])) };
  },
});

const vae = (folder: string): Network => ({
  folder,
  feeds: (golden) => ({ pixels: golden.floats("pixels") }),
  build: (config, graph, { pixels }) => {
    const { encode, decode } = autoencoderKl(parseAutoencoderKlConfig(config));
    const { mean, logvar } = encode(graph.weights("part"), pixels);
    return { mean, logvar, decoded: decode(graph.weights("part"), mean) };
  },
});

const NETWORKS: readonly Network[] = [
  unet("unet-1x"),
  unet("unet-2x"),
  vae("vae-attention"),
  vae("vae-bare"),
  {
    folder: "text-gelu",
    feeds: (golden) => ({ ids: golden.ints("ids") }),
    build: (config, graph, { ids }) => {
      const { hidden } = clipText(parseClipTextConfig(config))(graph.weights("part"), { ids });
      return { hidden };
    },
  },
  {
    folder: "clip",
    feeds: (golden) => ({
      ids: golden.ints("ids"),
      end: endOf(golden.ints("ids"), 49),
      pixels: golden.floats("pixels"),
    }),
    build: (config, graph, { ids, end, pixels }) => ({
      text: clipTextFeatures(parseClipConfig(config))(graph.weights("part"), { ids, end }),
      image: clipImageFeatures(parseClipConfig(config))(graph.weights("part"), { pixels }),
    }),
  },
];

const networkTest = (device: Device, { folder, feeds, build }: Network, half = false) => async () => {
  const path = fileURLToPath(new URL(`../golden/tiny/${folder}`, import.meta.url));
  const weights = new Stored(`${path}/weights.safetensors`);
  const golden = new Stored(`${path}/golden.safetensors`);
  const given = feeds(golden);
  const graph = new Graph();
  const inputs = Object.entries(given).map(([name, t]) =>
    [name, graph.input(name, t.data instanceof Int32Array ? "int32" : "float32", t.dims)] as const
  );
  const outputs = build(readJson(`${path}/config.json`), graph, Object.fromEntries(inputs));
  for (const [name, value] of Object.entries(outputs)) graph.output(name, value);
  const { model } = toOnnx(graph, (part, key) => weights.place(part, key), { half });
  const results = await withRuntime(
    Effect.gen(function* () {
      const session = yield* (yield* Runtime).session({
        name: folder,
        model,
        external: [{ path: "part", data: weights.bytes }],
      });
      return yield* session.run(given);
    }),
    device,
  );
  for (const name of Object.keys(outputs)) {
    const error = relativeError(await Effect.runPromise(toHost(results[name])), golden.floats(name));
    assert.ok(error <= (half ? HALF_TOLERANCE : LIMIT), `${folder} ${name}: relative error ${error}`);
  }
};

if (Result.isFailure(found)) {
  describe("WebGPU", () => {
    it(`skipped: ${found.failure.reason}`, { skip: true }, () => undefined);
  });
} else {
  const device = found.success.software ? "webgpu-software" : "webgpu";
  sessionLaws(device, ["float32"]);

  describe(`no node leaves the GPU (${found.success.description})`, () => {
    for (const network of NETWORKS) {
      const { folder } = network;
      it(`${folder}: every node has a kernel, and the answers are PyTorch's`, PATIENT, networkTest(device, network));
    }

    it(
      "a U-Net in half precision: every node has a kernel, and the answers are PyTorch's",
      { ...PATIENT, skip: halves ? false : "the adapter has no shader-f16" },
      networkTest(device, NETWORKS[0], true),
    );

    it(
      "attention as one operation: a kernel of the GPU's, and the answers of attention node by node",
      PATIENT,
      () =>
        withRuntime(
          Effect.gen(function* () {
            const g = new Graph();
            const [q, k, v] = ["q", "k", "v"].map((name, i) => g.input(name, "float32", [2, i === 0 ? 1024 : 77, 64]));
            const { out, probabilities } = attention(q, k, v, 4);
            const parts = transpose(reshape(v, [2, 77, 4, 16]), [0, 2, 1, 3]);
            g.output("fused", out);
            g.output("plain", reshape(transpose(matmul(probabilities, parts), [0, 2, 1, 3]), [2, 1024, 64]));
            const { model } = toOnnx(g, () => assert.fail("no weights"));
            assert.match(printGraph(g), /MultiHeadAttention/);
            const session = yield* (yield* Runtime).session({ name: "attention", model, external: [] });
            const feeds = Object.fromEntries([q, k, v].map(({ dims }, i) => ["qkv"[i], normal(i, dims)]));
            const { fused, plain } = yield* session.run(feeds);
            const [ours, theirs] = [yield* float32(fused), yield* float32(plain)];
            assert.ok(relativeError(ours, theirs) < 1e-5);
          }),
          device,
        ),
    );

    it(
      "a training step: every node of the backward pass and of AdamW has a kernel, and it follows PyTorch",
      PATIENT,
      () => followsPyTorch(device),
    );

    it("a node without a kernel fails the creation, which names it", PATIENT, () =>
      withRuntime(
        Effect.gen(function* () {
          const runtime = yield* Runtime;
          const result = yield* Effect.result(Effect.scoped(runtime.session(chain(["Exp", "Round", "Sign"], [4]))));
          assert.ok(Result.isFailure(result));
          assert.match(result.failure.message, /WebGPU has no kernel for .*: Round \(node %\d+\), Sign \(node y\)$/);
        }),
        device,
      ));
  });
}
