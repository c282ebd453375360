/**
 * Networks of real width answer as diffusers' and transformers' do. They take gigabytes, so this runs where it is asked for:
 * test/golden/make_real_sizes.py says how. One network is in memory at a time.
 */
import { describe, it } from "node:test";
import assert from "node:assert/strict";
import { existsSync, readdirSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import type { Graph, Value, WeightReader } from "../../src/graph/mod.ts";
import { autoencoderKl, parseAutoencoderKlConfig } from "../../src/models/autoencoder_kl.ts";
import {
  clipTextProjected,
  clipTextStates,
  endPosition,
  parseClipTextConfig,
  parseProjectedTextConfig,
} from "../../src/models/clip_text.ts";
import { parseUnetConfig, unetCondition } from "../../src/models/unet_2d_condition.ts";
import type { Tensor, TensorData } from "../../src/tensor/tensor.ts";
import { LIMIT, network, readJson, relativeError, Stored } from "../support/golden.ts";

const folder = process.env.SAU_REAL_SIZES;
const names = folder === undefined || !existsSync(folder)
  ? []
  : readdirSync(folder).filter((name) => existsSync(join(folder, name, "golden.safetensors"))).sort();

type Feeds = Record<string, Tensor<TensorData>>;

interface Network {
  readonly feeds: (config: unknown, golden: Stored) => Feeds;
  readonly build: (config: unknown, read: WeightReader, inputs: Record<string, Value>) => Record<string, Value>;
  readonly answers: readonly string[];
}

const endOf = (config: unknown, ids: Tensor<Int32Array>): Tensor => {
  const [batch, length] = ids.dims, data = new Float32Array(batch * length);
  for (let b = 0; b < batch; b++) {
    const row = [...ids.data.subarray(b * length, (b + 1) * length)];
    data[b * length + endPosition(parseClipTextConfig(config), row)] = 1;
  }
  return { dims: ids.dims, data };
};

const parts: Readonly<Record<string, Network>> = {
  unet: {
    feeds: (_, golden) => {
      const keys = ["sample", "timestep", "context", "pooled", "sizes"].filter((key) => golden.keys.includes(key));
      return Object.fromEntries(keys.map((key) => [key, golden.floats(key)]));
    },
    build: (config, read, { sample, timestep, context, pooled, sizes }) => ({
      noise: unetCondition(parseUnetConfig(config))(read, {
        sample,
        timestep,
        context,
        ...(pooled === undefined ? {} : { added: { pooled, sizes } }),
      }).noise,
    }),
    answers: ["noise"],
  },
  text_encoder: {
    feeds: (_, golden) => ({ ids: golden.ints("ids") }),
    build: (config, read, { ids }) => {
      const { hidden, penultimate } = clipTextStates(parseClipTextConfig(config))(read, { ids });
      return { hidden, penultimate };
    },
    answers: ["hidden", "penultimate"],
  },
  text_encoder_2: {
    feeds: (config, golden) => ({ ids: golden.ints("ids"), end: endOf(config, golden.ints("ids")) }),
    build: (config, read, { ids, end }) => {
      const { penultimate, pooled } = clipTextProjected(parseProjectedTextConfig(config))(read, { ids, end });
      return { penultimate, pooled };
    },
    answers: ["penultimate", "pooled"],
  },
  vae: {
    feeds: (_, golden) => ({ pixels: golden.floats("pixels") }),
    build: (config, read, { pixels }) => {
      const { encode, decode } = autoencoderKl(parseAutoencoderKlConfig(config));
      const { mean, logvar } = encode(read, pixels);
      return { mean, logvar, decoded: decode(read, mean) };
    },
    answers: ["mean", "logvar", "decoded"],
  },
};

const inputsOf = (graph: Graph, feeds: Feeds): Record<string, Value> =>
  Object.fromEntries(
    Object.entries(feeds).map(([key, t]) =>
      [key, graph.input(key, t.data instanceof Int32Array ? "int32" : "float32", t.dims)] as const
    ),
  );

describe("networks of real width", () => {
  if (names.length === 0) {
    it("SD 1.5, SD 2.1, SDXL", { skip: "set SAU_REAL_SIZES to a folder of make_real_sizes.py" }, () => {});
  }
  for (const name of names) {
    it(name, { timeout: 1_800_000 }, async () => {
      const path = join(folder ?? "", name), part = name.slice(name.lastIndexOf(".") + 1);
      const { feeds, build, answers } = parts[part];
      const config = readJson(join(path, "config.json"));
      const golden = new Stored(join(path, "golden.safetensors"));
      const given = feeds(config, golden);
      const session = await network(
        { [part]: new Stored(join(path, "weights.safetensors")) },
        (graph, read) => build(config, read(part), inputsOf(graph, given)),
      );
      const results = await session.run(given);
      await session.release();
      for (const key of answers) {
        const error = relativeError(results[key], golden.floats(key));
        console.log(`${name} ${key}: relative error ${error.toExponential(1)}`);
        assert.ok(
          error <= LIMIT,
          `${name} ${key}: relative error ${error.toExponential(2)}, at most ${LIMIT} is allowed`,
        );
      }
    });
  }
});
