/**
 * Checkpointing (Chen et al. 2016): the forward pass is cut into segments, and what lies within a segment is computed a
 * second time when the backward pass comes to it, instead of being held until then. Time for memory.
 */
import { elements, type Graph, type Value } from "./graph.ts";
import { owner } from "./memory.ts";
import { add, mul } from "./ops/elementwise.ts";
import { reshape, slice } from "./ops/shape.ts";

/** How the backward pass sees the forward pass's values: as they are, or computed again. */
export interface ForwardValues {
  /** Called with each value of the order from last to first that has a gradient, and that gradient. */
  readonly enter: (value: Value, dy: Value) => void;
  /** What a gradient rule is given for a value, after its segment was entered. */
  readonly at: (value: Value) => Value;
}

/** Everything is held from the forward pass to the backward pass. */
export const heldValues: ForwardValues = { enter: () => {}, at: (value) => value };

/**
 * Values that go from one segment into another are held; the others are computed again, once.
 *
 * @param order the forward pass, each value after those it is made from.
 * @param segments number of segments of about equal size, 2 or more. The last is never computed again.
 */
export const recomputedValues = (graph: Graph, order: readonly Value[], segments: number): ForwardValues => {
  const cuts = cutsOf(order, segments);
  const segmentOf = new Map(order.map((v, i) => [v, cuts.filter((cut) => cut <= i).length]));
  const last = cuts.length;
  const held = new Set<Value>();
  const fromData = new Set<Value>();
  const weights = new Set(graph.weightInputs());
  for (const value of order) {
    if (value.source.kind === "input" && !weights.has(value)) fromData.add(value);
    if (value.source.kind !== "node") continue;
    for (const input of value.source.inputs) {
      if (fromData.has(input)) fromData.add(value);
      if (segmentOf.get(input) !== segmentOf.get(value)) held.add(input);
    }
  }

  const again = new Map<Value, Value>();
  const entered = new Set([last]);
  /** Builds the second computation of a segment, bound to come after the gradient that leads into it. */
  const enter = (value: Value, dy: Value): void => {
    const segment = segmentOf.get(value)!;
    if (entered.has(segment)) return;
    entered.add(segment);
    // Equal expressions are one node, here and in ONNX Runtime: the second computation differs by a zero that is made from
    // the gradient, which also keeps it from being run ahead of time.
    const zero = reshape(mul(slice(reshape(dy, [elements(dy)]), 0, 0, 1), 0), []);
    const bound = new Map<Value, Value>();
    const bind = (v: Value): Value => {
      if (!bound.has(v)) bound.set(v, add(v, zero));
      return bound.get(v)!;
    };
    const source = (v: Value): Value =>
      v.source.kind !== "node" || !fromData.has(v) || v.dtype !== "float32"
        ? v
        : segmentOf.get(v) !== segment || held.has(v)
        ? bind(v)
        : again.get(v)!;
    for (const v of order) {
      if (segmentOf.get(v) !== segment || v.source.kind !== "node" || held.has(v)) continue;
      const copy = graph.apply(v.source.op, v.source.inputs.map(source), v.source.attributes);
      // Made from the graph's inputs alone.
      again.set(v, copy === v && fromData.has(v) && v.dtype === "float32" ? bind(v) : copy);
    }
  };
  return { enter, at: (value) => again.get(value) ?? value };
};

/**
 * Positions in the order where segments begin: one near each equal share of what is computed, where the least goes across
 * from what is before to what is behind. Too many segments leave no room for it: a cut then falls within an attention.
 */
const cutsOf = (order: readonly Value[], segments: number): number[] => {
  const sizes = order.map((v) => v.source.kind === "node" && owner(v) === v ? elements(v) : 0);
  const lastUse = new Map<Value, number>();
  order.forEach((value, at) => {
    if (value.source.kind === "node") { for (const input of value.source.inputs) lastUse.set(owner(input), at); }
  });
  const ending = new Map<number, number>();
  const whole = sizes.reduce((a, b) => a + b, 0);
  const best = new Map<number, { cut: number; across: number }>();
  let [before, across] = [0, 0];
  order.forEach((value, at) => {
    // A cut at `at` puts the values before it into one segment, `across` of whose elements are still to be read.
    const share = (before / whole) * segments;
    const nearest = Math.round(share);
    if (nearest >= 1 && nearest < segments && Math.abs(share - nearest) <= 1 / 2) {
      const found = best.get(nearest);
      if (found === undefined || across < found.across) best.set(nearest, { cut: at, across });
    }
    before += sizes[at];
    across += sizes[at] - (ending.get(at) ?? 0);
    const end = lastUse.get(value) ?? order.length;
    ending.set(end, (ending.get(end) ?? 0) + sizes[at]);
  });
  return [...best.values()].map(({ cut }) => cut).sort((a, b) => a - b);
};
