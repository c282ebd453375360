/** Matrix products and convolution. */
import { type Attributes, GraphError, type Op, showType, type Value } from "../graph.ts";
import { add, broadcast } from "./elementwise.ts";
import { slice, transpose } from "./shape.ts";

const matmulOp: Op = {
  type: "MatMul",
  infer: ([a, b]) => {
    const [k, l] = [a.dims.at(-1), b.dims.at(-2)];
    if (a.dims.length < 2 || b.dims.length < 2 || k !== l) {
      throw new GraphError(`MatMul: ${showType(a)} by ${showType(b)}`);
    }
    const batch = broadcast(a.dims.slice(0, -2), b.dims.slice(0, -2), "MatMul");
    return { dtype: a.dtype, dims: [...batch, a.dims.at(-2)!, b.dims.at(-1)!] };
  },
};

/** Matrix product of the last two axes; the axes before them broadcast. */
export const matmul = (a: Value, b: Value): Value => a.graph.apply(matmulOp, [a, b]);

/** x Wᵀ + b for W [out, in], as torch.nn.Linear. */
export const linear = (x: Value, weight: Value, bias?: Value): Value => {
  const y = matmul(x, transpose(weight, [1, 0]));
  return bias === undefined ? y : add(y, bias);
};

/** Zeros around an image: one number for all sides, or each side. */
export type Padding = number | {
  readonly top: number;
  readonly left: number;
  readonly bottom: number;
  readonly right: number;
};

const convOp: Op = {
  type: "Conv",
  infer: ([x, w, b], a) => {
    const { pads, strides } = convAttributes(a);
    const [n, c, h, width] = x.dims;
    const [out, inner, kh, kw] = w.dims;
    if (x.dims.length !== 4 || w.dims.length !== 4 || c !== inner || (b !== undefined && b.dims.join() !== `${out}`)) {
      throw new GraphError(`Conv: ${showType(x)} with weight ${showType(w)}${b ? ` and bias ${showType(b)}` : ""}`);
    }
    const length = (size: number, kernel: number, before: number, after: number, stride: number) =>
      Math.floor((size + before + after - kernel) / stride) + 1;
    return {
      dtype: x.dtype,
      dims: [n, out, length(h, kh, pads[0], pads[2], strides[0]), length(width, kw, pads[1], pads[3], strides[1])],
    };
  },
};

const convAttributes = (a: Attributes): { pads: readonly number[]; strides: readonly number[] } => {
  const { pads, strides } = a as Record<string, { readonly ints: readonly number[] }>;
  return { pads: pads.ints, strides: strides.ints };
};

/** 2-D convolution of [N, C, H, W] by weight [out, C, kh, kw], plus bias [out]. */
export const conv2d = (
  x: Value,
  weight: Value,
  bias?: Value,
  options: { readonly stride?: number; readonly padding?: Padding } = {},
): Value => {
  const [out, channels, kernel] = weight.dims;
  const whole = channels - channels % 4;
  if (kernel > 1 && channels > 3 && channels % 3 === 0 && channels % 4 !== 0 && out % 4 === 0) {
    // ONNX Runtime 1.30 computes exactly these shapes wrongly on WebGPU, and says nothing (microsoft/onnxruntime#29651).
    // A convolution is a sum over its input channels, so it is split where the fault does not reach.
    const part = (begin: number, end: number, b?: Value) =>
      conv2d(slice(x, 1, begin, end), slice(weight, 1, begin, end), b, options);
    return add(part(0, whole, bias), part(whole, channels));
  }
  const { stride = 1, padding = 0 } = options;
  const p = typeof padding === "number" ? { top: padding, left: padding, bottom: padding, right: padding } : padding;
  return x.graph.apply(convOp, bias === undefined ? [x, weight] : [x, weight, bias], {
    pads: { ints: [p.top, p.left, p.bottom, p.right] },
    strides: { ints: [stride, stride] },
    kernel_shape: { ints: weight.dims.slice(2) },
  });
};
