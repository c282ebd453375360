/**
 * Reverse-mode differentiation (Linnainmaa 1970; Baydin et al. 2018, §3.2) as a transform of the graph: the backward pass
 * is appended to the graph that holds the forward one. Both are then one static graph, compiled and run as any other, and
 * values of the forward pass that the rules in `ops/` ask for are the forward pass's own.
 */
import { heldValues, recomputedValues } from "./checkpoint.ts";
import { elements, type Graph, GraphError, type Op, showType, type Value } from "./graph.ts";
import { add } from "./ops/elementwise.ts";
import { expand } from "./ops/shape.ts";

export interface GradientOptions {
  /**
   * Cuts the forward pass into so many segments, each of which but the last is computed a second time during the backward
   * pass, so that only what goes from one to another is held (checkpoint.ts). The default, 1, holds everything. More
   * segments are not always less memory: `estimateMemory` tells before a run. U-Net of SD 1.5, text keys and values
   * trained, one picture of 64 × 64 cells: 5.1 GB computed values at the most, 1.8 GB in 8 segments, 3.9 GB in 24.
   */
  readonly segments?: number;
}

/**
 * Gradients of `loss` with respect to each value of `wrt`, of that value's shape.
 *
 * @param loss one float32 element, of any rank.
 * @param wrt float32 inputs, weights or values in between that the loss depends on.
 * @throws GraphError when the loss does not depend on one of them, or for an operation on the way without a gradient rule.
 */
export const gradient = (
  graph: Graph,
  loss: Value,
  wrt: readonly Value[],
  { segments = 1 }: GradientOptions = {},
): Value[] => {
  if (loss.graph !== graph) throw new GraphError("gradient: the loss belongs to another graph");
  if (loss.dtype !== "float32" || elements(loss) !== 1) {
    throw new GraphError(`gradient: the loss is ${showType(loss)}, not one float32 number`);
  }
  const order = graph.reachable([loss]);
  const between = dependents(order, wrt);
  const forward = segments > 1 ? recomputedValues(graph, order, segments) : heldValues;
  const gradients = new Map<Value, Value>([[loss, expand(graph.scalar(1), loss.dims)]]);
  for (const value of order.toReversed()) {
    const dy = gradients.get(value);
    const { source } = value;
    if (dy === undefined || source.kind !== "node") continue;
    const rule = ruleOf(source.op);
    forward.enter(value, dy);
    const application = {
      inputs: source.inputs.map(forward.at),
      attributes: source.attributes,
      output: forward.at(value),
    };
    for (const [i, input] of source.inputs.entries()) {
      if (!between.has(input)) continue;
      const dx = rule(dy, application, i);
      if (dx.dims.join() !== input.dims.join()) {
        throw new GraphError(`gradient of ${source.op.type}: ${showType(dx)} for an input ${showType(input)}`);
      }
      const other = gradients.get(input);
      gradients.set(input, other === undefined ? dx : add(other, dx));
    }
  }
  return wrt.map((value) => {
    const found = gradients.get(value);
    if (found === undefined) throw new GraphError(`gradient: the loss does not depend on ${describe(value)}`);
    return found;
  });
};

/** The values that are made from one of `roots`, and these themselves. Only float32 carries a gradient. */
const dependents = (order: readonly Value[], roots: readonly Value[]): ReadonlySet<Value> => {
  const wanted = new Set(roots);
  const found = new Set<Value>();
  for (const value of order) {
    const { source } = value;
    const depends = wanted.has(value) || (source.kind === "node" && source.inputs.some((input) => found.has(input)));
    if (depends && value.dtype === "float32") found.add(value);
  }
  return found;
};

const ruleOf = (op: Op) => {
  if (op.gradient === undefined) throw new GraphError(`gradient: the operation ${op.type} has no gradient rule`);
  return op.gradient;
};

const describe = (value: Value): string => {
  const { source } = value;
  const name = source.kind === "input"
    ? `the input ${source.name}`
    : source.kind === "weight"
    ? `the weight ${source.part} ${source.key}`
    : source.kind === "node"
    ? `a result of ${source.op.type}`
    : "a constant";
  return `${name}, ${showType(value)}`;
};
