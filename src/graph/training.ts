/** A training step as one graph: weights, optimiser state and data in, new weights, new state and the loss out. */
import { gradient, type GradientOptions } from "./gradient.ts";
import { elements, type Graph, GraphError, type Value } from "./graph.ts";
import { concat, reshape, slice } from "./ops/shape.ts";
import { adamW, type AdamWSettings, clipByGlobalNorm, ema, globalNorm } from "./optimizer.ts";

export interface TrainingOptions extends Partial<AdamWSettings>, GradientOptions {
  /** The inputs that are trained. The default is every input that feeds a weight (`weightsAsInputs`). */
  readonly weights?: readonly Value[];
  /** Largest global norm of the gradients; larger ones are scaled down to it. No limit by default. */
  readonly clipNorm?: number;
  /** Also keeps a running mean of each weight, of which this share is kept at each step. */
  readonly averageDecay?: number;
}

/** What a tensor is of which a step makes the next; weights are told by the names of the inputs that feed them. */
type Role =
  /** A weight or its running mean: they start as the checkpoint has the weight. */
  | { readonly role: "weight" | "average"; readonly weight: string; readonly weights?: undefined }
  /** Moments of the gradients of one weight or of several, one behind the other: they start at 0. */
  | { readonly role: "first" | "second"; readonly weights: readonly string[]; readonly weight?: undefined };

/** A tensor that a step takes as `input` and gives back, changed, as `output`: the next step's input. */
export type StateTensor = Role & {
  readonly input: string;
  readonly output: string;
  readonly dims: readonly number[];
};

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
  const groups = grouped(weights, gradient(graph, loss, weights, { segments }));
  const gradients = groups.map((group) => group.gradient);
  const { norm, factor } = clipNorm === undefined
    ? { norm: globalNorm(gradients), factor: undefined }
    : clipByGlobalNorm(gradients, clipNorm);
  graph.output("loss", reshape(loss, []));
  graph.output("gradient norm", norm);

  const state: StateTensor[] = [];
  const give = (input: string, value: Value, role: Role) => {
    graph.output(`next/${input}`, value);
    state.push({ input, output: `next/${input}`, dims: value.dims, ...role });
  };
  for (const { name, members, gradient } of groups) {
    const take = (role: string) => graph.input(`${role}/${name}`, "float32", gradient.dims);
    const old = { weight: joined(members), first: take("first"), second: take("second") };
    const next = adamW(old, gradient, moment, settings, factor);
    const parts = parted(next.weight, members);
    members.forEach((w, i) => give(nameOf(w), parts[i], { role: "weight", weight: nameOf(w) }));
    const weights = members.map(nameOf);
    for (const role of ["first", "second"] as const) give(`${role}/${name}`, next[role], { role, weights });
    if (averageDecay === undefined) continue;
    members.forEach((w, i) => {
      const input = `average/${nameOf(w)}`;
      const mean = ema(graph.input(input, "float32", w.dims), parts[i], averageDecay);
      give(input, mean, { role: "average", weight: nameOf(w) });
    });
  }
  return state;
};

/** Weights that the optimiser goes over at once. */
interface Group {
  /** What the names of their moments end in. */
  readonly name: string;
  readonly members: readonly Value[];
  /** Of the member's shape; of several members, flat and one behind the other. */
  readonly gradient: Value;
}

/** A network has hundreds of biases and norms; to go over them one by one takes longer than their numbers do. */
const SMALL = 2 ** 14;

const grouped = (weights: readonly Value[], gradients: readonly Value[]): Group[] => {
  const single = weights.map((w, i) => ({ name: nameOf(w), members: [w], gradient: joined([gradients[i]]) }));
  const [small, large] = [true, false].map((is) => single.filter((g) => (elements(g.gradient) <= SMALL) === is));
  if (small.length < 2) return single;
  const members = small.flatMap((g) => g.members);
  // The first, whose share of the global norm is computed last: it waits for gradients of the first layers.
  return [{ name: "small weights", members, gradient: joined(small.map((g) => g.gradient)) }, ...large];
};

/**
 * Several values as one vector; of a single one its axes of more than one element. ONNX Runtime goes through a tensor with
 * a scalar one stretch of the last axis after the other, which in the kernel of a 1 × 1 convolution is a single number.
 */
const joined = (values: readonly Value[]): Value =>
  values.length === 1
    ? reshape(values[0], values[0].dims.filter((d) => d !== 1))
    : concat(values.map((v) => reshape(v, [elements(v)])), 0);

/** The reverse of `joined`. */
const parted = (value: Value, like: readonly Value[]): Value[] => {
  if (like.length === 1) return [reshape(value, like[0].dims)];
  let end = 0;
  return like.map((v) => reshape(slice(value, 0, end, end += elements(v)), v.dims));
};

const nameOf = ({ source }: Value): string => {
  if (source.kind !== "input") throw new GraphError("trainingStep: only an input can be trained");
  return source.name;
};
