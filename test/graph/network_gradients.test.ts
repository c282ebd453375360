/** Gradients of whole networks with respect to every weight are PyTorch's (test/golden/make_gradients.py). */
import { describe, it } from "node:test";
import assert from "node:assert/strict";
import { fileURLToPath } from "node:url";
import { gradient } from "../../src/graph/gradient.ts";
import { Graph, type Value } from "../../src/graph/graph.ts";
import { add, mul } from "../../src/graph/ops/elementwise.ts";
import { reduceMean } from "../../src/graph/ops/reduce.ts";
import { reshape } from "../../src/graph/ops/shape.ts";
import { autoencoderKl, parseAutoencoderKlConfig } from "../../src/models/autoencoder_kl.ts";
import { clipImageFeatures, clipTextFeatures, parseClipConfig } from "../../src/models/clip.ts";
import {
  clipText,
  clipTextProjected,
  endPosition,
  parseClipTextConfig,
  parseProjectedTextConfig,
} from "../../src/models/clip_text.ts";
import { parseUnetConfig, unetCondition } from "../../src/models/unet_2d_condition.ts";
import type { Tensor, TensorData } from "../../src/tensor/tensor.ts";
import { endOf } from "../support/clip.ts";
import { evaluate } from "../support/evaluate.ts";
import { goldenOf, readJson, Stored } from "../support/golden.ts";

/** Agreement with PyTorch that the project promises for gradients. */
const LIMIT = 1e-3;
/** PyTorch's float64 gradients below this share of the largest are zeros with rounding: the bias of a key, which softmax does not see. */
const NOTHING = 1e-12;

/** An emulated GPU takes minutes. */
const PATIENT = { timeout: 900_000 };

interface Network {
  readonly feeds: (inputs: Stored) => Record<string, Tensor<TensorData>>;
  readonly build: (config: unknown, graph: Graph, inputs: Record<string, Value>) => Record<string, Value>;
}

const unet: Network = {
  feeds: (inputs) => ({
    sample: inputs.floats("sample"),
    timestep: inputs.floats("timestep"),
    context: inputs.floats("context"),
  }),
  build: (config, g, { sample, timestep, context }) => ({
    noise: unetCondition(parseUnetConfig(config))(g.weights("part"), { sample, timestep, context }).noise,
  }),
};

const unetXl: Network = {
  feeds: (inputs) => ({ ...unet.feeds(inputs), pooled: inputs.floats("pooled"), sizes: inputs.floats("sizes") }),
  build: (config, g, { sample, timestep, context, pooled, sizes }) => ({
    noise: unetCondition(parseUnetConfig(config))(g.weights("part"), {
      sample,
      timestep,
      context,
      added: { pooled, sizes },
    }).noise,
  }),
};

const vae: Network = {
  feeds: (inputs) => ({ pixels: inputs.floats("pixels") }),
  build: (config, g, { pixels }) => {
    const { encode, decode } = autoencoderKl(parseAutoencoderKlConfig(config));
    const { mean, logvar } = encode(g.weights("part"), pixels);
    return { mean, logvar, decoded: decode(g.weights("part"), mean) };
  },
};

const networks: Record<string, Network> = {
  "unet-1x": unet,
  "unet-2x": unet,
  "unet-xl": unetXl,
  "vae-attention": vae,
  "vae-bare": vae,
  "text-gelu": {
    feeds: (inputs) => ({ ids: inputs.ints("ids") }),
    build: (config, g, { ids }) => clipText(parseClipTextConfig(config))(g.weights("part"), { ids }),
  },
  "text-xl": {
    feeds: (inputs) => {
      const ids = inputs.ints("ids"), [batch, length] = ids.dims;
      const end = new Float32Array(batch * length);
      for (let b = 0; b < batch; b++) {
        const row = [...ids.data.subarray(b * length, (b + 1) * length)];
        // An older config: the end is the largest id.
        end[b * length + endPosition({ eos_token_id: 2 }, row)] = 1;
      }
      return { ids, end: { dims: ids.dims, data: end } };
    },
    build: (config, g, { ids, end }) => {
      const { penultimate, pooled } = clipTextProjected(parseProjectedTextConfig(config))(g.weights("part"), {
        ids,
        end,
      });
      return { penultimate, pooled };
    },
  },
  clip: {
    feeds: (inputs) => ({
      ids: inputs.ints("ids"),
      pixels: inputs.floats("pixels"),
      end: endOf(inputs.ints("ids"), 49),
    }),
    build: (config, g, { ids, end, pixels }) => ({
      text: clipTextFeatures(parseClipConfig(config))(g.weights("part"), { ids, end }),
      image: clipImageFeatures(parseClipConfig(config))(g.weights("part"), { pixels }),
    }),
  },
};

const check = async (name: string, segments = 1): Promise<void> => {
  const { feeds, build } = networks[name];
  const folder = fileURLToPath(new URL(`../golden/tiny/${name}`, import.meta.url));
  const weights = new Stored(`${folder}/weights.safetensors`);
  const given = feeds(new Stored(`${folder}/golden.safetensors`));
  const golden = goldenOf(`gradients/${name}.safetensors`, { weights });

  const graph = new Graph();
  const inputs = Object.entries(given).map(([key, t]) =>
    [key, graph.input(key, t.data instanceof Int32Array ? "int32" : "float32", t.dims)] as const
  );
  const outputs = build(readJson(`${folder}/config.json`), graph, Object.fromEntries(inputs));
  const loss = Object.entries(outputs).map(([key, value]) => {
    const projected = mul(value, graph.constant(golden.floats(`projection.${key}`)));
    return reshape(reduceMean(mul(projected, projected), [...value.dims.keys()]), []);
  }).reduce((a, b) => add(a, b));
  const wrt = new Map(
    graph.reachable([loss]).flatMap((v) => v.source.kind === "weight" ? [[v.source.key, v]] : []),
  );
  graph.output("loss", loss);
  gradient(graph, loss, [...wrt.values()], { segments }).forEach((d, i) => graph.output([...wrt.keys()][i], d));
  const got = await evaluate(graph, given, (_, key) => weights.place("part", key), [
    { path: "part", data: weights.bytes },
  ]);

  const wanted = golden.keys.filter((key) => key.startsWith("gradient.")).map((key) => key.slice(9));
  assert.deepEqual([...wrt.keys()].sort(), wanted.sort());
  const [have, want] = [got.loss, golden.floats("loss")].map((t) => Number(t.data[0]));
  assert.ok(Math.abs(have - want) <= 1e-4 * want, `loss ${have}, PyTorch says ${want}`);
  const size = (data: Float32Array) => data.reduce((m, x) => Math.max(m, Math.abs(x)), 0);
  const largest = Math.max(...wanted.map((key) => size(golden.floats(`gradient.${key}`).data)));
  let worst = { key: "", error: 0 };
  for (const key of wanted) {
    const { data } = golden.floats(`gradient.${key}`);
    const step = Math.ceil(got[key].data.length / data.length);
    const differences = data.map((x, i) => Number(got[key].data[i * step]) - x);
    if (size(data) < NOTHING * largest) {
      assert.ok(size(differences) <= 1e-6 * largest, `${key}: ${size(differences)} where PyTorch has 0`);
      continue;
    }
    const error = size(differences) / size(data);
    assert.ok(error <= LIMIT, `${key}: relative error ${error.toExponential(2)}, at most ${LIMIT} is allowed`);
    if (error > worst.error) worst = { key, error };
  }
  if (process.env.SAU_TEST_VERBOSE) {
    console.log(
      `${name}, ${segments} segments: ${wanted.length} weights, largest error ${
        worst.error.toExponential(1)
      } (${worst.key})`,
    );
  }
};

describe("gradients of whole networks", () => {
  for (const name of Object.keys(networks)) {
    it(`${name}: with respect to every weight`, PATIENT, () => check(name));
  }

  it("are the same where the forward pass is computed again in segments", PATIENT, async () => {
    await check("text-gelu", 3);
    await check("unet-1x", 5);
  });
});
