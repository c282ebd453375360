/** From a part of a model to a trainer: the trained weights begin as the part has them, the others stay in its file. */
import { Effect } from "effect";
import { estimateMemory, toOnnx, weightInput } from "../graph/mod.ts";
import { openTrainer, Runtime } from "../runtime/mod.ts";
import type { Tensor } from "../tensor/tensor.ts";
import type { DistillationGraph } from "./distillation.ts";
import type { PartName } from "./part.ts";
import { type PartSource, partWeights, readWeights } from "./weights.ts";

/** Weights by the names that the network gives them. */
export type Weights = ReadonlyMap<string, Tensor>;

/**
 * Opens a trainer of what a graph trains of one part; the part's other weights stay in its file.
 * @param begin values to begin with, by the names of the graph's inputs
 */
export const openGraphTrainer = Effect.fnUntraced(
  function* (
    name: string,
    { graph, state }: DistillationGraph,
    source: PartSource,
    part: PartName,
    begin: Readonly<Record<string, Tensor>>,
  ) {
    const { readsFiles } = yield* Runtime;
    const { external, locate, ...folder } = yield* partWeights(source, part, { files: readsFiles });
    const { model, paths } = toOnnx(graph, (_, key) => locate(key));
    const files = external.filter(({ path }) => paths.has(path));
    return yield* openTrainer({ name, model, external: files, ...folder }, state, begin);
  },
);

/**
 * Opens a trainer of one part.
 * @param start values to begin with instead of the part's own, by the network's names.
 * @returns the trainer's steps, the weights as they are by the network's names, and what a step takes in memory.
 */
export const openPartTrainer = Effect.fnUntraced(
  function* (
    name: string,
    { graph, state }: DistillationGraph,
    source: PartSource,
    part: PartName,
    start: Weights = new Map(),
  ) {
    const prefix = weightInput(part, "");
    const keys = state.flatMap((s) => s.role === "weight" ? [s.weight.slice(prefix.length)] : []);
    const own = yield* readWeights(source, part, keys);
    const begin: Weights = new Map(keys.map((key, i) => [key, start.get(key) ?? own[i]]));
    const trainer = yield* openGraphTrainer(
      name,
      { graph, state },
      source,
      part,
      Object.fromEntries([...begin].map(([key, value]) => [weightInput(part, key), value])),
    );
    return {
      step: trainer.step,
      read: () =>
        Effect.map(
          trainer.read("weight"),
          (found): Weights => new Map([...found].map(([input, value]) => [input.slice(prefix.length), value])),
        ),
      start: begin,
      /** The trained weights as the part has them. */
      own: new Map(keys.map((key, i) => [key, own[i]])) satisfies Weights,
      memory: estimateMemory(graph),
    };
  },
);
