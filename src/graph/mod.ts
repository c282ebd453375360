/** The graph: build with operations, take gradients, compile to ONNX. */
export * from "./gradient.ts";
export * from "./graph.ts";
export * from "./memory.ts";
export * from "./onnx.ts";
export * from "./ops/attention.ts";
export * from "./ops/conv.ts";
export * from "./ops/elementwise.ts";
export * from "./ops/linear.ts";
export * from "./ops/normalize.ts";
export * from "./ops/reduce.ts";
export * from "./ops/shape.ts";
export * from "./ops/sinusoid.ts";
export * from "./optimizer.ts";
export * from "./training.ts";
