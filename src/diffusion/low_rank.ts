/**
 * Training changes of low rank: W + U D for every matrix and kernel W (LoRA: Hu et al. 2021; of a kernel, over its flattened
 * inputs), of which U and D alone are trained. AdamW moves every number that it trains by about its rate, whatever the
 * gradient says of it: over all of a network's weights that is mostly noise, which pictures that are to stay show.
 */
import { Effect } from "effect";
import {
  add,
  estimateMemory,
  type Graph,
  matmul,
  reshape,
  type Value,
  weightInput,
  type WeightReader,
} from "../graph/mod.ts";
import { normal, seedOf } from "../tensor/random.ts";
import { size, type Tensor, zeros } from "../tensor/tensor.ts";
import type { DistillationGraph } from "./distillation.ts";
import type { PartName } from "./part.ts";
import { openGraphTrainer, type Weights } from "./train.ts";
import { type PartSource, readWeights } from "./weights.ts";

/** The factors of one weight: U [out, r] and D [r, inputs] of W [out, inputs…]. */
interface Factors {
  readonly up: Value;
  readonly down: Value;
  readonly dims: readonly number[];
}

/** Factors by the key of the weight that they change. */
export type LowRank = ReadonlyMap<string, Factors>;

/** A reader of a part's weights that adds factors to those that are `trained` and have two dimensions or more. */
export const lowRankReader = (graph: Graph, part: string, rank: number, trained: (key: string) => boolean) => {
  const plain = graph.weights(part);
  const factors = new Map<string, Factors>();
  const read: WeightReader = (key, dims) => {
    const weight = plain(key, dims);
    if (dims.length < 2 || !trained(key)) return weight;
    const known = factors.get(key), inputs = size(dims.slice(1)), r = Math.min(rank, dims[0], inputs);
    const own = known ?? {
      up: graph.input(`${weightInput(part, key)} up`, "float32", [dims[0], r]),
      down: graph.input(`${weightInput(part, key)} down`, "float32", [r, inputs]),
      dims,
    };
    if (known === undefined) factors.set(key, own);
    return add(weight, reshape(matmul(own.up, own.down), dims));
  };
  return { read, factors: factors satisfies LowRank };
};

/** The inputs that are to be trained. */
export const factorInputs = (factors: LowRank): Value[] => [...factors.values()].flatMap(({ up, down }) => [up, down]);

/** W + U D */
export const withFactors = (weight: Tensor, up: Tensor, down: Tensor): Tensor => {
  const [out, rank] = up.dims, inputs = down.dims[1], data = weight.data.slice();
  for (let o = 0; o < out; o++) {
    for (let r = 0; r < rank; r++) {
      const u = up.data[o * rank + r];
      for (let i = 0; i < inputs; i++) data[o * inputs + i] += u * down.data[r * inputs + i];
    }
  }
  return { dims: weight.dims, data };
};

/**
 * Opens a trainer of factors, which begin without a change: U is 0, rows of D have length 1 in the mean.
 * @returns as openPartTrainer; weights are read with their changes
 */
export const openLowRankTrainer = Effect.fnUntraced(function* (
  name: string,
  { graph, state, factors }: DistillationGraph & { readonly factors: LowRank },
  source: PartSource,
  part: PartName,
  seed: number,
) {
  const keys = [...factors.keys()];
  const own = new Map((yield* readWeights(source, part, keys)).map((weight, i) => [keys[i], weight])) satisfies Weights;
  const begin = Object.fromEntries(
    [...factors].flatMap(([key, { up, down }]) => {
      const { dims, data } = normal(seedOf(seed, key), down.dims), scale = 1 / Math.sqrt(down.dims[1]);
      return [[nameOf(up), zeros(up.dims)], [nameOf(down), { dims, data: data.map((x) => x * scale) }]] as const;
    }),
  );
  const trainer = yield* openGraphTrainer(name, { graph, state }, source, part, begin);
  const read = Effect.fnUntraced(function* () {
    const found = yield* trainer.read("weight");
    return new Map(
      [...factors].map(([key, { up, down }]) => [
        key,
        withFactors(own.get(key)!, found.get(nameOf(up))!, found.get(nameOf(down))!),
      ]),
    ) satisfies Weights;
  });
  return { step: trainer.step, read, start: own, own, memory: estimateMemory(graph) };
});

const nameOf = ({ source }: Value): string => source.kind === "input" ? source.name : "";
