/**
 * How much memory a run of a graph takes, from the graph alone: a value lives from the node that makes it to the last one
 * that reads it.
 */
import type { DType } from "../tensor/tensor.ts";
import { elements, type Graph, type Value } from "./graph.ts";

/** Bytes of the parts of a run. */
export interface MemoryEstimate {
  /** Weights and constants that the model holds, as float32. */
  readonly weights: number;
  /** What is fed. */
  readonly inputs: number;
  /** The most that computed values take at one time, results included. */
  readonly computed: number;
  /** All of it. */
  readonly peak: number;
}

const BYTES: Record<DType, number> = { float32: 4, float16: 2, int32: 4, int64: 8, uint8: 1, bool: 1 };
const bytesOf = (v: Value): number => elements(v) * BYTES[v.dtype];

/**
 * Peak memory of a run. What a kernel takes for itself is not counted, nor what an allocator wastes; nodes that ONNX
 * Runtime fuses take less than is counted.
 */
export const estimateMemory = (graph: Graph): MemoryEstimate => {
  const order = executionOrder(graph);
  const lastUse = new Map<Value, number>();
  order.forEach((value, at) => {
    lastUse.set(owner(value), at);
    for (const input of inputsOf(value)) lastUse.set(owner(input), at);
  });
  for (const { value } of graph.outputs) lastUse.set(owner(value), order.length);
  const ending = new Map<number, Value[]>();
  for (const [value, at] of lastUse) if (isNode(value)) ending.set(at, [...ending.get(at) ?? [], value]);

  let [live, computed] = [0, 0];
  order.forEach((value, at) => {
    if (owner(value) === value) live += bytesOf(value);
    computed = Math.max(computed, live);
    for (const ended of ending.get(at) ?? []) live -= bytesOf(ended);
  });
  const held = graph.reachable().filter((v) => v.source.kind === "weight" || v.source.kind === "constant");
  const weights = total(held);
  const inputs = total(graph.inputs);
  return { weights, inputs, computed, peak: weights + inputs + computed };
};

const total = (values: readonly Value[]): number => values.reduce((n, v) => n + bytesOf(v), 0);

const isNode = (v: Value): boolean => v.source.kind === "node";

const inputsOf = (v: Value): readonly Value[] => v.source.kind === "node" ? v.source.inputs : [];

/** The value whose memory holds this one: a view, such as a reshape, takes none of its own. */
const owner = (v: Value): Value => {
  let at = v;
  while (at.source.kind === "node" && at.source.op.view) at = at.source.inputs[0];
  return at;
};

/**
 * The nodes in the order in which ONNX Runtime runs them (1.30, GraphViewer over Graph::ReverseDFSFrom): depth first from
 * the last node of the file whose result no other takes, and of a node's inputs into the one last in the file.
 */
export const executionOrder = (graph: Graph): Value[] => {
  const file = graph.reachable().filter(isNode);
  const place = new Map(file.map((v, i) => [v, i]));
  const taken = new Set(file.flatMap((v) => inputsOf(v)));
  const order: Value[] = [];
  const seen = new Set<Value>();
  const stack = file.filter((v) => !taken.has(v)).map((value) => ({ value, entered: false }));
  while (stack.length > 0) {
    const { value, entered } = stack.pop()!;
    if (entered) {
      order.push(value);
      continue;
    }
    if (seen.has(value)) continue;
    seen.add(value);
    stack.push({ value, entered: true });
    const inputs = inputsOf(value).filter(isNode).sort((a, b) => place.get(a)! - place.get(b)!);
    for (const input of inputs) stack.push({ value: input, entered: false });
  }
  return order;
};
