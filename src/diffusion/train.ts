/** From a part of a model to a trainer: the trained weights begin as the part has them, the others stay in its file. */
import { Effect } from "effect";
import { estimateMemory, type MemoryEstimate, toOnnx, weightInput } from "../graph/mod.ts";
import { openTrainer, Runtime, type RuntimeError } from "../runtime/mod.ts";
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

/** Trains weights of a part. */
export interface PartTrainer extends Pick<Effect.Success<ReturnType<typeof openGraphTrainer>>, "step"> {
  /** The weights as they are. */
  readonly read: () => Effect.Effect<Weights, RuntimeError>;
  /** The weights to begin with. */
  readonly start: Weights;
  /** The trained weights as the part has them. */
  readonly own: Weights;
  /** What a step takes. */
  readonly memory: MemoryEstimate;
}

/**
 * Opens a trainer of one part.
 * @param start values to begin with instead of the part's own, by the network's names.
 * @param others what is trained besides the part's weights, and begins with these, by the names of the graph's inputs
 * @returns the trainer's steps, the weights as they are by the network's names, and what a step takes in memory.
 */
export const openPartTrainer = Effect.fnUntraced(
  function* (
    name: string,
    { graph, state }: DistillationGraph,
    source: PartSource,
    part: PartName,
    start: Weights = new Map(),
    others: Readonly<Record<string, Tensor>> = {},
  ) {
    const prefix = weightInput(part, "");
    const keys = state.flatMap((s) =>
      s.role === "weight" && !(s.weight in others) ? [s.weight.slice(prefix.length)] : []
    );
    const own = yield* readWeights(source, part, keys);
    const had: Weights = new Map(keys.map((key, i) => [key, own[i]]));
    const begin: Weights = new Map(keys.map((key, i) => [key, start.get(key) ?? own[i]]));
    const trainer = yield* openGraphTrainer(
      name,
      { graph, state },
      source,
      part,
      { ...others, ...Object.fromEntries([...begin].map(([key, value]) => [weightInput(part, key), value])) },
    );
    const readAll = () =>
      Effect.map(trainer.read("weight"), (found) => {
        const [own, rest] = [false, true].map((is) => [...found].filter(([input]) => input in others === is));
        const weights: Weights = new Map(own.map(([input, value]) => [input.slice(prefix.length), value]));
        return { weights, others: new Map(rest) };
      });
    return {
      step: trainer.step,
      read: () => Effect.map(readAll(), ({ weights }) => weights),
      /** The same, and what is trained besides. */
      readAll,
      start: begin,
      /** The trained weights as the part has them. */
      own: had,
      memory: estimateMemory(graph),
    };
  },
);
