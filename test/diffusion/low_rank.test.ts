/** Factors beside a network's weights, against the network with other weights. */
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { lowRankReader, withFactors } from "../../src/diffusion/low_rank.ts";
import { Graph, type Value } from "../../src/graph/mod.ts";
import { parseUnetConfig, unetCondition } from "../../src/models/unet_2d_condition.ts";
import { normal } from "../../src/tensor/random.ts";
import { randomWeights } from "../../src/testing/tiny_model.ts";
import { evaluate } from "../support/evaluate.ts";
import { randomConfigs } from "../support/random_model.ts";

describe("low-rank changes", () => {
  it("a U-Net that reads its weights with factors is one whose weights are W + U D", { timeout: 120_000 }, async () => {
    const config = parseUnetConfig(randomConfigs.unet), rank = 2;
    const data = {
      latents: normal(1, [1, 4, 8, 8]),
      timestep: { dims: [1], data: Float32Array.of(300) },
      context: normal(2, [1, 5, 32]),
    };
    const weights = randomWeights("unet", randomConfigs.unet, 5);
    const feeds = () => Object.fromEntries([...weights].map(([key, value]) => [`unet/${key}`, value]));
    const inputs = (graph: Graph) => ({
      sample: graph.input("latents", "float32", [1, 4, 8, 8]),
      timestep: graph.input("timestep", "float32", [1]),
      context: graph.input("context", "float32", [1, 5, 32]),
    });
    const name = ({ source }: Value) => source.kind === "input" ? source.name : "";

    const graph = new Graph({ weightsAsInputs: () => true });
    const { read, factors } = lowRankReader(graph, "unet", rank, (key) => !key.startsWith("time_embedding"));
    graph.output("noise", unetCondition(config)(read, inputs(graph)).noise);
    const values = [...factors.values()].flatMap(({ up, down }, i) => [
      [name(up), normal(2 * i, up.dims)] as const,
      [name(down), { dims: down.dims, data: normal(2 * i + 1, down.dims).data.map((x) => 0.02 * x) }] as const,
    ]);
    const given = Object.fromEntries(values);
    const { noise } = await evaluate(graph, { ...feeds(), ...data, ...given });

    for (const [key, { up, down, dims }] of factors) {
      assert.deepEqual(dims, weights.get(key)!.dims);
      weights.set(key, withFactors(weights.get(key)!, given[name(up)], given[name(down)]));
    }
    const plain = new Graph({ weightsAsInputs: () => true });
    plain.output("noise", unetCondition(config)(plain.weights("unet"), inputs(plain)).noise);
    const { noise: wanted } = await evaluate(plain, { ...feeds(), ...data });
    const most = Math.max(...[...wanted.data].map((x) => Math.abs(Number(x))));
    wanted.data.forEach((x, i) => assert.ok(Math.abs(Number(x) - Number(noise.data[i])) <= 1e-4 * most, `${i}`));

    // Every matrix and kernel has factors, but those that are not to be trained, and nothing else has.
    const matrices = [...weights].filter(([key, { dims }]) => dims.length >= 2 && !key.startsWith("time_embedding"));
    assert.deepEqual([...factors.keys()].toSorted(), matrices.map(([key]) => key).toSorted());
    const [kernel] = [...factors.values()].filter(({ dims }) => dims.length === 4 && dims[1] === 32);
    assert.deepEqual([kernel.up.dims, kernel.down.dims], [[kernel.dims[0], rank], [rank, 32 * kernel.dims[2] ** 2]]);
  });
});
