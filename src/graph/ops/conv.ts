/** Convolution, and its gradients as convolutions and matrix products that every backend has kernels for. */
import type { Tensor } from "../../tensor/tensor.ts";
import { type Attributes, GraphError, type Op, showType, type Value } from "../graph.ts";
import { add } from "./elementwise.ts";
import { matmul } from "./linear.ts";
import { reduceSum } from "./reduce.ts";
import { concat, pad, reshape, slice, transpose } from "./shape.ts";

/** Zeros around an image: one number for all sides, or each side. */
export type Padding = number | {
  readonly top: number;
  readonly left: number;
  readonly bottom: number;
  readonly right: number;
};

const convOp: Op = {
  type: "Conv",
  half: "computes",
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
  gradient: (dy, { inputs: [x, w], attributes }, i) => {
    const { pads, strides } = convAttributes(attributes);
    if (i === 0) return inputGradient(dy, x.dims, w, pads, strides[0]);
    return i === 1 ? weightGradient(dy, x, w.dims, pads, strides[0]) : reshape(reduceSum(dy, [0, 2, 3]), [w.dims[0]]);
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

/**
 * Gradient with respect to x: the convolution of dy, its cells set `stride` apart, by the kernel turned by 180° with its
 * channel axes exchanged (Dumoulin and Visin 2016, §4). It goes through `conv2d`, and so round the fault that is told there.
 */
const inputGradient = (
  dy: Value,
  [, , height, width]: readonly number[],
  weight: Value,
  [top, left]: readonly number[],
  stride: number,
): Value => {
  const [out, , kh, kw] = weight.dims;
  const [n, , h, w] = dy.dims;
  let apart = dy;
  if (stride > 1) {
    // Zeros behind each cell and each row; four axes are enough for it.
    const cells = pad(reshape(dy, [n * out * h, 1, w, 1]), [0, 0, 0, 0], [0, stride - 1, 0, stride - 1]);
    apart = reshape(cells, [n, out, h * stride, w * stride]);
  }
  const [above, below] = [kh - 1 - top, height + top - h * stride];
  const [before, behind] = [kw - 1 - left, width + left - w * stride];
  // Where the forward padding was wider than the kernel reaches, the outermost cells never met x.
  const rows = slice(apart, 2, Math.max(0, -above), h * stride - Math.max(0, -below));
  const cut = slice(rows, 3, Math.max(0, -before), w * stride - Math.max(0, -behind));
  return conv2d(cut, turnedKernel(weight), undefined, {
    padding: {
      top: Math.max(0, above),
      left: Math.max(0, before),
      bottom: Math.max(0, below),
      right: Math.max(0, behind),
    },
  });
};

/** The kernel turned by 180°, its channel axes exchanged: [out, C, kh, kw] → [C, out, kh, kw]. */
const turnedKernel = (weight: Value): Value => {
  const [out, channels, kh, kw] = weight.dims;
  const places = kh * kw;
  // Reversing each kernel's places is a product: many times faster than moving single elements, and as exact.
  const reversed = places === 1
    ? weight
    : matmul(reshape(weight, [out * channels, places]), weight.graph.constant(exchange(places)));
  return reshape(transpose(reshape(reversed, [out, channels, places]), [1, 0, 2]), [channels, out, kh, kw]);
};

/** The exchange matrix: ones from the upper right to the lower left. */
const exchange = (n: number): Tensor => ({
  dims: [n, n],
  data: Float32Array.from({ length: n * n }, (_, i) => Math.floor(i / n) + i % n === n - 1 ? 1 : 0),
});

/**
 * Gradient with respect to the weight: for each place in the kernel, the cells of x that it met, in all pictures, side by
 * side as rows of one matrix, times dy (im2col). One product over all pictures leaves no sum over them for afterwards, and
 * its result lies as the weight does. Several times faster than the convolution of x by dy, whose kernel would be an image.
 */
const weightGradient = (
  dy: Value,
  x: Value,
  [out, channels, kh, kw]: readonly number[],
  [top, left, bottom, right]: readonly number[],
  stride: number,
): Value => {
  const [n, , height, width] = x.dims;
  const [, , h, w] = dy.dims;
  const channelsFirst = [1, 0, 2, 3];
  const rows = Math.ceil((height + top + bottom) / stride);
  const columns = Math.ceil((width + left + right) / stride);
  const padded = pad(
    transpose(x, channelsFirst),
    [0, 0, top, left],
    [0, 0, rows * stride - height - top, columns * stride - width - left],
  );
  const cells = reshape(padded, [channels * n * rows, stride, columns, stride]);
  /** Every stride-th cell in both directions, beginning at (i, j). */
  const phase = (i: number, j: number) =>
    reshape(slice(slice(cells, 1, i, i + 1), 3, j, j + 1), [channels, n, rows, columns]);
  const met: Value[] = [];
  for (let i = 0; i < kh; i++) {
    for (let j = 0; j < kw; j++) {
      const [row, column] = [Math.floor(i / stride), Math.floor(j / stride)];
      // Columns first: what all rows of the kernel share is then cut once, and rows are whole stretches of memory.
      met.push(slice(slice(phase(i % stride, j % stride), 3, column, column + w), 2, row, row + h));
    }
  }
  const patches = reshape(concat(met, 1), [channels * kh * kw, n * h * w]);
  const answers = reshape(transpose(dy, channelsFirst), [out, n * h * w]);
  return reshape(matmul(answers, transpose(patches, [1, 0])), [out, channels, kh, kw]);
};
