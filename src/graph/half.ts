/** Which values of a graph a model compiled for half precision holds in it, as mixed precision does (Micikevicius et al. 2018). */
import type { Graph, Value } from "./graph.ts";

/**
 * Products are computed in half precision, and what only moves, adds or scales their results stays in it; norms, softmax
 * and whatever else sums or divides is computed in single precision, as are functions of the timestep. Weights and constants
 * are not told here: each reader gets them as it wants them.
 */
export const halfValues = (graph: Graph): ReadonlySet<Value> => {
  const half = new Set<Value>();
  const given = (v: Value): boolean => v.source.kind === "weight" || v.source.kind === "constant";
  for (const value of graph.reachable()) {
    if (value.dtype !== "float32" || value.source.kind !== "node") continue;
    const { op, inputs } = value.source;
    const computed = inputs.filter((v) => v.dtype === "float32" && !given(v));
    if (op.half === "computes" || (op.half === "follows" && computed.every((v) => half.has(v)))) half.add(value);
  }
  return half;
};
