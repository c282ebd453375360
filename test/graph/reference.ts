/** Plain JavaScript definitions of the graph's operations, in float64 and written for reading: what the graph is held against. */

export interface Nd {
  readonly dims: readonly number[];
  readonly data: readonly number[];
}

export const count = (dims: readonly number[]): number => dims.reduce((n, d) => n * d, 1);

const flat = (dims: readonly number[], index: readonly number[]): number =>
  dims.reduce((n, d, i) => n * d + index[i], 0);

export const at = (x: Nd, ...index: number[]): number => x.data[flat(x.dims, index)];

/** The tensor whose element at each index is f(index). */
export const build = (dims: readonly number[], f: (index: number[]) => number): Nd => ({
  dims,
  data: Array.from({ length: count(dims) }, (_, n) => {
    const index = new Array<number>(dims.length);
    for (let i = dims.length - 1, rest = n; i >= 0; rest = Math.floor(rest / dims[i]), i--) index[i] = rest % dims[i];
    return f(index);
  }),
});

export const range = (n: number): number[] => Array.from({ length: n }, (_, i) => i);

export const map = (x: Nd, f: (x: number) => number): Nd => ({ dims: x.dims, data: x.data.map(f) });

/** Shape by numpy's rule, written on its own: align at the right, a 1 gives way. */
export const broadcastDims = (...shapes: readonly (readonly number[])[]): number[] => {
  const rank = Math.max(...shapes.map((s) => s.length));
  return Array.from({ length: rank }, (_, i) => {
    const sizes = shapes.map((s) => i - rank + s.length >= 0 ? s[i - rank + s.length] : 1);
    return sizes.find((d) => d !== 1) ?? 1;
  });
};

/** Element of x at an index of the shape that x broadcasts to. */
export const atBroadcast = (x: Nd, index: readonly number[]): number =>
  at(x, ...x.dims.map((d, i) => d === 1 ? 0 : index[index.length - x.dims.length + i]));

export const zip = (a: Nd, b: Nd, f: (a: number, b: number) => number): Nd =>
  build(broadcastDims(a.dims, b.dims), (i) => f(atBroadcast(a, i), atBroadcast(b, i)));

/** The error function by its Taylor series, exact to double precision for |x| < 5. */
export const erf = (x: number): number => {
  let [term, sum] = [x, x];
  for (let n = 1; n < 150; n++) {
    term *= -x * x / n;
    sum += term / (2 * n + 1);
  }
  return 2 / Math.sqrt(Math.PI) * sum;
};

export const sigmoid = (x: number): number => 1 / (1 + Math.exp(-x));

export const transpose = (x: Nd, perm: readonly number[]): Nd =>
  build(perm.map((p) => x.dims[p]), (i) => {
    const from = new Array<number>(perm.length);
    perm.forEach((p, axis) => from[p] = i[axis]);
    return at(x, ...from);
  });

export const concat = (parts: readonly Nd[], axis: number): Nd => {
  const dims = parts[0].dims.map((d, i) => i === axis ? parts.reduce((n, p) => n + p.dims[axis], 0) : d);
  return build(dims, (i) => {
    let place = i[axis];
    for (const p of parts) {
      if (place < p.dims[axis]) return at(p, ...i.with(axis, place));
      place -= p.dims[axis];
    }
    throw new RangeError("concat");
  });
};

export const slice = (x: Nd, axis: number, begin: number, end: number): Nd =>
  build(x.dims.with(axis, end - begin), (i) => at(x, ...i.with(axis, i[axis] + begin)));

/** Zeros around each axis. */
export const pad = (x: Nd, before: readonly number[], after: readonly number[]): Nd =>
  build(x.dims.map((d, i) => before[i] + d + after[i]), (i) => {
    const from = i.map((v, axis) => v - before[axis]);
    return from.every((v, axis) => v >= 0 && v < x.dims[axis]) ? at(x, ...from) : 0;
  });

export const reduce = (x: Nd, axes: readonly number[], f: (values: readonly number[]) => number): Nd => {
  const groups = new Map<string, number[]>();
  build(x.dims, (i) => {
    const key = i.map((v, axis) => axes.includes(axis) ? 0 : v).join();
    groups.set(key, [...groups.get(key) ?? [], at(x, ...i)]);
    return 0;
  });
  return build(x.dims.map((d, axis) => axes.includes(axis) ? 1 : d), (i) => f(groups.get(i.join())!));
};

export const sum = (values: readonly number[]): number => values.reduce((a, b) => a + b, 0);
export const mean = (values: readonly number[]): number => sum(values) / values.length;

/** (values − mean) / √(variance + ε), the variance divided by the count. */
export const normalised = (values: readonly number[], epsilon: number): number[] => {
  const m = mean(values);
  const scale = 1 / Math.sqrt(mean(values.map((v) => (v - m) ** 2)) + epsilon);
  return values.map((v) => (v - m) * scale);
};

/** Applies f to each row of the last axis. */
export const rows = (x: Nd, f: (row: readonly number[]) => readonly number[]): Nd => {
  const width = x.dims.at(-1)!;
  return {
    dims: x.dims,
    data: Array.from({ length: x.data.length / width }, (_, r) => f(x.data.slice(r * width, (r + 1) * width))).flat(),
  };
};

export const matmul = (a: Nd, b: Nd): Nd => {
  const [m, k, n] = [a.dims.at(-2)!, a.dims.at(-1)!, b.dims.at(-1)!];
  const batch = broadcastDims(a.dims.slice(0, -2), b.dims.slice(0, -2));
  return build([...batch, m, n], (i) => {
    const [row, column] = [i.at(-2)!, i.at(-1)!];
    const outer = i.slice(0, -2);
    return sum(
      Array.from(
        { length: k },
        (_, inner) => atBroadcast(a, [...outer, row, inner]) * atBroadcast(b, [...outer, inner, column]),
      ),
    );
  });
};

/** 2-D convolution (cross-correlation, as in every deep learning library) by its definition. */
export const conv2d = (
  x: Nd,
  w: Nd,
  bias: Nd | undefined,
  stride: number,
  [top, left, bottom, right]: readonly number[],
): Nd => {
  const padded = pad(x, [0, 0, top, left], [0, 0, bottom, right]);
  const [out, channels, kh, kw] = w.dims;
  const height = Math.floor((padded.dims[2] - kh) / stride) + 1;
  const width = Math.floor((padded.dims[3] - kw) / stride) + 1;
  return build([x.dims[0], out, height, width], ([n, o, row, column]) => {
    let total = bias === undefined ? 0 : bias.data[o];
    for (let c = 0; c < channels; c++) {
      for (let i = 0; i < kh; i++) {
        for (let j = 0; j < kw; j++) {
          total += at(padded, n, c, row * stride + i, column * stride + j) * at(w, o, c, i, j);
        }
      }
    }
    return total;
  });
};
