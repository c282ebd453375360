/** A training step as one graph: weights, optimiser state and data in, new weights, new state and the loss out. */
import { gradient, type GradientOptions } from "./gradient.ts";
import { type Graph, GraphError, type Value } from "./graph.ts";
import { reshape } from "./ops/shape.ts";
import { adamW, type AdamWSettings, clipByGlobalNorm, ema, globalNorm } from "./optimizer.ts";

export interface TrainingOptions extends Partial<AdamWSettings>, GradientOptions {
  /** The inputs that are trained. The default is every input that feeds a weight (`weightsAsInputs`). */
  readonly weights?: readonly Value[];
  /** Largest global norm of the gradients; larger ones are scaled down to it. No limit by default. */
  readonly clipNorm?: number;
  /** Also keeps a running mean of each weight, of which this share is kept at each step. */
  readonly averageDecay?: number;
}

/** A tensor that a step takes as `input` and gives back, changed, as `output`: the next step's input. */
export interface StateTensor {
  readonly input: string;
  readonly output: string;
  readonly dims: readonly number[];
  /** Name of the input that feeds the weight it belongs to. */
  readonly weight: string;
  /** A weight starts as the checkpoint has it, and so does its running mean; the moments start at 0. */
  readonly role: "weight" | "first" | "second" | "average";
}

/**
 * Adds the backward pass and AdamW to a graph, and names the results:
 *
 * - inputs: those the graph has; `step` (float32 scalar, counted from 1), `rate` (float32 scalar, the learning rate); the state
 * - outputs: `loss` and `gradient norm` (float32 scalars; the norm is that before clipping); the state
 *
 * @param loss one float32 element.
 * @returns the state: what goes from each step to the next.
 * @throws GraphError when nothing is trained, or the loss does not depend on a weight.
 */
export const trainingStep = (graph: Graph, loss: Value, options: TrainingOptions = {}): StateTensor[] => {
  const { weights = graph.weightInputs(), clipNorm, averageDecay, segments, ...settings } = options;
  if (weights.length === 0) throw new GraphError("trainingStep: no weight is an input, so there is nothing to train");
  const moment = { step: graph.input("step", "float32", []), rate: graph.input("rate", "float32", []) };
  const raw = gradient(graph, loss, weights, { segments });
  const { gradients, norm } = clipNorm === undefined
    ? { gradients: raw, norm: globalNorm(raw) }
    : clipByGlobalNorm(raw, clipNorm);
  graph.output("loss", reshape(loss, []));
  graph.output("gradient norm", norm);

  const state: StateTensor[] = [];
  weights.forEach((weight, i) => {
    if (weight.source.kind !== "input") throw new GraphError("trainingStep: only an input can be trained");
    const { name } = weight.source;
    const of = (role: StateTensor["role"]) => role === "weight" ? name : `${role}/${name}`;
    const take = (role: StateTensor["role"]) => graph.input(of(role), "float32", weight.dims);
    const give = (role: StateTensor["role"], value: Value) => {
      graph.output(`next/${of(role)}`, value);
      state.push({ input: of(role), output: `next/${of(role)}`, dims: weight.dims, weight: name, role });
    };
    const next = adamW({ weight, first: take("first"), second: take("second") }, gradients[i], moment, settings);
    give("weight", next.weight);
    give("first", next.first);
    give("second", next.second);
    if (averageDecay !== undefined) give("average", ema(take("average"), next.weight, averageDecay));
  });
  return state;
};
