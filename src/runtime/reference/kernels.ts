/**
 * The operations that the graph compiles to, as ONNX defines them (github.com/onnx/onnx, docs/Operators.md), in double
 * precision and rounded once at the end: plain loops, one after another, so that the same feeds give the same bytes.
 */
import { size } from "../../tensor/tensor.ts";
import { type Attribute, dtypeOfElement, numbers, type Typed, typed } from "./model.ts";

export type Kernel = (inputs: readonly Typed[], attributes: Readonly<Record<string, Attribute>>) => Typed;

const int = (a: Attribute | undefined, otherwise = 0): number => typeof a === "number" ? a : otherwise;
const ints = (a: Attribute | undefined): readonly number[] => Array.isArray(a) ? a : [];
const intsOf = (t: Typed): number[] => Array.from(numbers(t));

/** Row-major strides; 0 along axes that broadcast to `dims`. */
const strides = (from: readonly number[], dims: readonly number[] = from): number[] => {
  const out = new Array<number>(dims.length).fill(0);
  for (let i = from.length - 1, step = 1; i >= 0; step *= from[i], i--) {
    out[dims.length - from.length + i] = from[i] === 1 ? 0 : step;
  }
  return out;
};

/** For each element of `dims` in order, the place that `steps` leads to, from `start`. */
const places = (dims: readonly number[], steps: readonly number[], start = 0): Int32Array => {
  const out = new Int32Array(size(dims));
  const index = new Array<number>(dims.length).fill(0);
  for (let i = 0, at = start; i < out.length; i++) {
    out[i] = at;
    for (let axis = dims.length - 1; axis >= 0; axis--) {
      at += steps[axis];
      if (++index[axis] < dims[axis]) break;
      at -= steps[axis] * dims[axis];
      index[axis] = 0;
    }
  }
  return out;
};

const broadcast = (...shapes: readonly (readonly number[])[]): number[] => {
  const rank = Math.max(...shapes.map((s) => s.length));
  return Array.from({ length: rank }, (_, i) => {
    const sizes = shapes.map((s) => s[s.length - rank + i] ?? 1);
    return sizes.find((d) => d !== 1) ?? 1;
  });
};

/** x with the dims and at the places given: every operation that moves elements. */
const moved = (x: Typed, dims: readonly number[], from: Int32Array): Typed => {
  const values = numbers(x), out = new Float64Array(from.length);
  for (let i = 0; i < out.length; i++) out[i] = values[from[i]];
  return typed(x.dtype, dims, out);
};

const unary = (f: (x: number) => number): Kernel => ([x]) => {
  const values = numbers(x), out = new Float64Array(values.length);
  for (let i = 0; i < out.length; i++) out[i] = f(values[i]);
  return typed(x.dtype, x.dims, out);
};

const binary = (f: (a: number, b: number) => number, bool = false): Kernel => ([a, b]) => {
  const dims = broadcast(a.dims, b.dims);
  const [x, y] = [numbers(a), numbers(b)], out = new Float64Array(size(dims));
  if (x.length === out.length && y.length === out.length) {
    for (let i = 0; i < out.length; i++) out[i] = f(x[i], y[i]);
  } else {
    const [atX, atY] = [places(dims, strides(a.dims, dims)), places(dims, strides(b.dims, dims))];
    for (let i = 0; i < out.length; i++) out[i] = f(x[atX[i]], y[atY[i]]);
  }
  return typed(bool ? "bool" : a.dtype, dims, out);
};

/** Σ 2ⁿ x²ⁿ⁺¹ / (2n+1)!! · 2/√π e^(−x²): no term is negative, so that nothing cancels (Abramowitz and Stegun 7.1.6). */
const erf = (x: number): number => {
  if (Math.abs(x) > 6) return Math.sign(x);
  let term = x, sum = x;
  for (let n = 1; Math.abs(term) > 1e-17 * Math.abs(sum); n++) sum += term *= 2 * x * x / (2 * n + 1);
  return 2 / Math.sqrt(Math.PI) * Math.exp(-x * x) * sum;
};

/** `f` of the elements along `axes`, which stay with size 1. */
const reduce = (f: (values: Float64Array) => number): Kernel => ([x, axes]) => {
  const over = intsOf(axes);
  const values = numbers(x), steps = strides(x.dims);
  const kept = x.dims.map((d, i) => over.includes(i) ? 1 : d), inner = x.dims.map((d, i) => over.includes(i) ? d : 1);
  const within = places(inner, steps);
  const group = new Float64Array(within.length);
  const starts = places(kept, steps), out = new Float64Array(starts.length);
  for (let o = 0; o < out.length; o++) {
    for (let i = 0; i < group.length; i++) group[i] = values[starts[o] + within[i]];
    out[o] = f(group);
  }
  return typed(x.dtype, kept, out);
};

const sum = (values: Float64Array): number => {
  let total = 0;
  for (let i = 0; i < values.length; i++) total += values[i];
  return total;
};

/** `f` of each run of `length` elements, in place. */
const inRuns = (x: Typed, length: number, f: (run: Float64Array, which: number) => void): Typed => {
  const out = new Float64Array(numbers(x));
  for (let at = 0, which = 0; at < out.length; at += length, which++) f(out.subarray(at, at + length), which);
  return typed(x.dtype, x.dims, out);
};

/** To mean 0 and variance 1, ε added to the variance. */
const standardise = (run: Float64Array, epsilon: number): void => {
  const mean = sum(run) / run.length;
  let variance = 0;
  for (let i = 0; i < run.length; i++) variance += (run[i] - mean) ** 2 / run.length;
  const scale = 1 / Math.sqrt(variance + epsilon);
  for (let i = 0; i < run.length; i++) run[i] = (run[i] - mean) * scale;
};

const softmax = (run: Float64Array): void => {
  let most = -Infinity, total = 0;
  for (let i = 0; i < run.length; i++) most = Math.max(most, run[i]);
  for (let i = 0; i < run.length; i++) total += run[i] = Math.exp(run[i] - most);
  for (let i = 0; i < run.length; i++) run[i] /= total;
};

const matmul: Kernel = ([a, b]) => {
  const [m, k, n] = [a.dims.at(-2)!, a.dims.at(-1)!, b.dims.at(-1)!];
  const batch = broadcast(a.dims.slice(0, -2), b.dims.slice(0, -2));
  const atA = places(batch, strides(a.dims.slice(0, -2), batch).map((s) => s * m * k));
  const atB = places(batch, strides(b.dims.slice(0, -2), batch).map((s) => s * k * n));
  const [x, y] = [numbers(a), numbers(b)];
  const out = new Float64Array(atA.length * m * n);
  for (let g = 0; g < atA.length; g++) {
    for (let r = 0; r < m; r++) {
      const row = out.subarray((g * m + r) * n, (g * m + r + 1) * n);
      for (let i = 0; i < k; i++) {
        const factor = x[atA[g] + r * k + i], from = atB[g] + i * n;
        for (let c = 0; c < n; c++) row[c] += factor * y[from + c];
      }
    }
  }
  return typed(a.dtype, [...batch, m, n], out);
};

const conv: Kernel = ([x, w, bias], attributes) => {
  const [top, left, bottom, right] = ints(attributes.pads), [down, across] = ints(attributes.strides);
  const [batch, channels, height, width] = x.dims, [outs, , kh, kw] = w.dims;
  const h = Math.floor((height + top + bottom - kh) / down) + 1;
  const v = Math.floor((width + left + right - kw) / across) + 1;
  const [values, kernel] = [numbers(x), numbers(w)];
  const offsets = bias === undefined ? undefined : numbers(bias);
  const out = new Float64Array(batch * outs * h * v);
  for (let plane = 0; plane < batch * outs; plane++) {
    const picture = Math.floor(plane / outs), o = plane % outs;
    const sums = out.subarray(plane * h * v, (plane + 1) * h * v);
    if (offsets !== undefined) sums.fill(offsets[o]);
    for (let tap = 0; tap < channels * kh * kw; tap++) {
      const c = Math.floor(tap / (kh * kw)), i = Math.floor(tap / kw) % kh, j = tap % kw;
      const factor = kernel[o * channels * kh * kw + tap];
      const from = (picture * channels + c) * height * width;
      // The columns whose cell lies inside the picture, so that the innermost loop asks nothing.
      const first = Math.max(0, Math.ceil((left - j) / across));
      const last = Math.min(v - 1, Math.floor((width - 1 + left - j) / across));
      for (let r = 0; r < h; r++) {
        const y = r * down + i - top;
        if (y < 0 || y >= height) continue;
        const row = from + y * width + j - left;
        for (let s = first; s <= last; s++) sums[r * v + s] += factor * values[row + s * across];
      }
    }
  }
  return typed(x.dtype, [batch, outs, h, v], out);
};

const transpose: Kernel = ([x], { perm }) => {
  const steps = strides(x.dims);
  const order = ints(perm), dims = order.map((axis) => x.dims[axis]);
  return moved(x, dims, places(dims, order.map((axis) => steps[axis])));
};

const concat: Kernel = (parts, { axis }) => {
  const a = int(axis), [{ dtype, dims }] = parts;
  const inner = size(dims.slice(a + 1)), outer = size(dims.slice(0, a));
  const joined = dims.map((d, i) => i === a ? parts.reduce((n, p) => n + p.dims[a], 0) : d);
  const out = new Float64Array(size(joined));
  let at = 0;
  const values = parts.map(numbers);
  for (let o = 0; o < outer; o++) {
    for (const [i, part] of parts.entries()) {
      const length = part.dims[a] * inner;
      for (let e = 0; e < length; e++) out[at++] = values[i][o * length + e];
    }
  }
  return typed(dtype, joined, out);
};

const slice: Kernel = ([x, begins, ends, axes]) => {
  const [begin, end, axis] = [begins, ends, axes].map((t) => intsOf(t)[0]);
  const dims = x.dims.with(axis, end - begin), steps = strides(x.dims);
  return moved(x, dims, places(dims, steps, begin * steps[axis]));
};

const expand: Kernel = ([x, shape]) => {
  const dims = broadcast(x.dims, intsOf(shape));
  return moved(x, dims, places(dims, strides(x.dims, dims)));
};

const pad: Kernel = ([x, pads]) => {
  const around = intsOf(pads), rank = x.dims.length;
  const dims = x.dims.map((d, i) => around[i] + d + around[rank + i]);
  const steps = strides(dims.map((d) => d)), start = steps.reduce((n, s, i) => n + s * around[i], 0);
  const out = new Float64Array(size(dims)), values = numbers(x);
  places(x.dims, steps, start).forEach((at, i) => out[at] = values[i]);
  return typed(x.dtype, dims, out);
};

const gather: Kernel = ([table, index]) => {
  const [count, ...rest] = table.dims, row = size(rest);
  const from = intsOf(index).map((i) => i < 0 ? i + count : i);
  const bad = from.find((i) => i < 0 || i >= count);
  if (bad !== undefined) throw new RangeError(`Gather: row ${bad} of a table of ${count} rows`);
  const at = new Int32Array(from.length * row);
  from.forEach((i, r) => {
    for (let e = 0; e < row; e++) at[r * row + e] = i * row + e;
  });
  return moved(table, [...index.dims, ...rest], at);
};

/** Nearest neighbour, by a whole factor. */
const resize: Kernel = ([x, , scales]) => {
  const [, , down, across] = intsOf(scales), [n, c, height, width] = x.dims;
  const [h, w] = [height * down, width * across];
  const at = Int32Array.from({ length: n * c * h * w }, (_, i) => {
    const map = Math.floor(i / (h * w)), row = Math.floor(Math.floor(i / w) % h / down);
    return (map * height + row) * width + Math.floor(i % w / across);
  });
  return moved(x, [n, c, h, w], at);
};

/** Scaled dot-product attention of [B, Q, C] over [B, L, C], as ONNX Runtime's operation of that name. */
const attend = (query: Typed, key: Typed, value: Typed, heads: number): Typed => {
  const [[batch, queries, width], length] = [query.dims, key.dims[1]];
  const [q, k, v] = [query, key, value].map(numbers);
  const depth = width / heads, out = new Float64Array(q.length), weights = new Float64Array(length);
  for (let b = 0; b < batch; b++) {
    for (let h = 0; h < heads; h++) {
      for (let i = 0; i < queries; i++) {
        const from = (b * queries + i) * width + h * depth;
        for (let j = 0; j < length; j++) {
          const at = (b * length + j) * width + h * depth;
          weights[j] = 0;
          for (let d = 0; d < depth; d++) weights[j] += q[from + d] * k[at + d] / Math.sqrt(depth);
        }
        softmax(weights);
        for (let j = 0; j < length; j++) {
          const at = (b * length + j) * width + h * depth;
          for (let d = 0; d < depth; d++) out[from + d] += weights[j] * v[at + d];
        }
      }
    }
  }
  return typed(query.dtype, query.dims, out);
};

/** Every operation that `graph/ops` compiles to, by its ONNX name. */
export const kernels: Readonly<Record<string, Kernel>> = {
  Add: binary((a, b) => a + b),
  Sub: binary((a, b) => a - b),
  Mul: binary((a, b) => a * b),
  Div: binary((a, b) => a / b),
  Max: binary(Math.max),
  Less: binary((a, b) => a < b ? 1 : 0, true),
  Equal: binary((a, b) => a === b ? 1 : 0, true),
  Neg: unary((x) => -x),
  Exp: unary(Math.exp),
  Log: unary(Math.log),
  Sqrt: unary(Math.sqrt),
  Abs: unary(Math.abs),
  Erf: unary(erf),
  Sigmoid: unary((x) => 1 / (1 + Math.exp(-x))),
  Tanh: unary(Math.tanh),
  Not: unary((x) => x === 0 ? 1 : 0),
  Identity: ([x]) => x,
  Cast: ([x], { to }) => typed(dtypeOfElement(int(to)), x.dims, new Float64Array(numbers(x))),
  Where: ([condition, a, b]) => {
    const dims = broadcast(condition.dims, a.dims, b.dims);
    const [c, x, y] = [condition, a, b].map((t) => numbers(moved(t, dims, places(dims, strides(t.dims, dims)))));
    return typed(a.dtype, dims, new Float64Array(x).map((value, i) => c[i] !== 0 ? value : y[i]));
  },
  ReduceSum: reduce(sum),
  ReduceMean: reduce((values) => sum(values) / values.length),
  ReduceMax: reduce((values) => values.reduce((a, b) => Math.max(a, b), -Infinity)),
  Softmax: ([x]) => inRuns(x, x.dims.at(-1)!, softmax),
  LayerNormalization: ([x, scale, bias], { epsilon }) => {
    const [s, b] = [numbers(scale), numbers(bias)];
    return inRuns(x, x.dims.at(-1)!, (run) => {
      standardise(run, int(epsilon));
      for (let i = 0; i < run.length; i++) run[i] = run[i] * s[i] + b[i];
    });
  },
  InstanceNormalization: ([x, scale, bias], { epsilon }) => {
    const [s, b] = [numbers(scale), numbers(bias)];
    return inRuns(x, size(x.dims.slice(2)), (run, which) => {
      const c = which % x.dims[1];
      standardise(run, int(epsilon));
      for (let i = 0; i < run.length; i++) run[i] = run[i] * s[c] + b[c];
    });
  },
  MatMul: matmul,
  MultiHeadAttention: ([query, key, value], { num_heads }) => attend(query, key, value, int(num_heads)),
  Conv: conv,
  Reshape: ([x, shape]) => ({ ...x, dims: intsOf(shape) }),
  Transpose: transpose,
  Concat: concat,
  Slice: slice,
  Expand: expand,
  Pad: pad,
  Gather: gather,
  Resize: resize,
};
