/**
 * How much memory a run of a graph takes, from the graph alone: a value lives from the node that makes it to the last one
 * that reads it.
 */
import { byteText } from "../tensor/bytes.ts";
import type { DType } from "../tensor/tensor.ts";
import { elements, type Graph, postOrder, type Value } from "./graph.ts";

/** Bytes of the parts of a run. */
export interface MemoryEstimate {
  /** Weights and constants that the model holds, as float32, and what is made of them alone (a transposed weight). */
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
  const folded = foldedValues(graph);
  const order = executionOrder(graph).filter((v) => !folded.has(v));
  const outputs = graph.outputs.map(({ value }) => owner(value));
  const lastUse = new Map<Value, number>();
  order.forEach((value, at) => {
    for (const used of [value, ...inputsOf(value)]) lastUse.set(owner(used), at);
  });
  for (const value of outputs) lastUse.set(value, order.length);
  const computed = new Set(order);
  const ending = new Map<number, Value[]>();
  for (const [value, at] of lastUse) if (computed.has(value)) ending.set(at, [...ending.get(at) ?? [], value]);

  let [live, peak] = [0, 0];
  order.forEach((value, at) => {
    if (owner(value) === value) live += bytesOf(value);
    peak = Math.max(peak, live);
    for (const ended of ending.get(at) ?? []) live -= bytesOf(ended);
  });
  const held = [...lastUse.keys()].filter((v) => v.source.kind !== "input" && !computed.has(v));
  const [weights, inputs] = [total(held), total(graph.inputs)];
  return { weights, inputs, computed: peak, peak: weights + inputs + peak };
};

/** What is made of weights and constants alone: ONNX Runtime computes it when it loads the model, and holds it from then on. */
const foldedValues = (graph: Graph): ReadonlySet<Value> => {
  const folded = new Set<Value>();
  for (const value of graph.reachable()) {
    const constant = (v: Value) => v.source.kind === "weight" || v.source.kind === "constant" || folded.has(v);
    if (isNode(value) && inputsOf(value).every(constant)) folded.add(value);
  }
  return folded;
};

/** `8.7 GB at the most: 3.4 GB weights, 0.2 GB inputs, 5.1 GB computed`, in decimal units. */
export const showMemory = ({ weights, inputs, computed, peak }: MemoryEstimate): string => {
  const [most, ...parts] = [peak, weights, inputs, computed].map(byteText);
  return `${most} at the most: ${parts[0]} weights, ${parts[1]} inputs, ${parts[2]} computed`;
};

const total = (values: readonly Value[]): number => values.reduce((n, v) => n + bytesOf(v), 0);

const isNode = (v: Value): boolean => v.source.kind === "node";

const inputsOf = (v: Value): readonly Value[] => v.source.kind === "node" ? v.source.inputs : [];

/** The value whose memory holds this one: a view, such as a reshape, takes none of its own. */
export const owner = (v: Value): Value => {
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
  const inputsLast = (v: Value) => inputsOf(v).filter(isNode).sort((a, b) => place.get(a)! - place.get(b)!);
  return postOrder(file.filter((v) => !taken.has(v)), inputsLast);
};
