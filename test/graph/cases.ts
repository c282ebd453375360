/** An arbitrary application of each operation on random shapes, with its definition: what the tests of values and of gradients share. */
import fc from "fast-check";
import type { Value } from "../../src/graph/graph.ts";
import * as attention from "../../src/graph/ops/attention.ts";
import * as convolution from "../../src/graph/ops/conv.ts";
import * as elementwise from "../../src/graph/ops/elementwise.ts";
import * as linear from "../../src/graph/ops/linear.ts";
import * as normalize from "../../src/graph/ops/normalize.ts";
import * as reductions from "../../src/graph/ops/reduce.ts";
import { sinCos } from "../../src/graph/ops/sinusoid.ts";
import * as shape from "../../src/graph/ops/shape.ts";
import type { DType, Tensor, TensorData } from "../../src/tensor/tensor.ts";
import * as ref from "./reference.ts";
import type { Nd } from "./reference.ts";

/** One application of an operation: what goes in, how the graph says it, what must come out. */
export interface Case {
  readonly inputs: readonly { readonly dtype: DType; readonly nd: Nd }[];
  readonly apply: (...values: Value[]) => Value;
  /** The definition, of the inputs' values. */
  readonly reference: (...inputs: Nd[]) => Nd;
  /** Of the result; float32 where none is said. */
  readonly dtype?: DType;
}

export const hostTensor = (dtype: DType, nd: Nd): Tensor<TensorData> => ({
  dims: nd.dims,
  data: dtype === "int32"
    ? Int32Array.from(nd.data)
    : dtype === "int64"
    ? BigInt64Array.from(nd.data, BigInt)
    : dtype === "bool"
    ? Uint8Array.from(nd.data)
    : Float32Array.from(nd.data),
});

const size = fc.integer({ min: 1, max: 4 });
const dims = (min: number, max: number) => fc.array(size, { minLength: min, maxLength: max });

/** float32 values of a shape, from a seed (of a generator modulo 2³¹ − 1, which must not be 0): the shape is what shrinks. */
const filled = (d: readonly number[], low = -3, high = 3): fc.Arbitrary<Nd> =>
  fc.integer({ min: 1, max: 2 ** 31 - 2 }).map((seed) => {
    let state = seed;
    return ref.build(d, () => {
      state = (state * 48271) % 2147483647;
      return Math.fround(low + (high - low) * state / 2147483647);
    });
  });

/** Neighbours far apart: to normalise numbers that are almost equal costs float32 its digits, whoever computes it. */
const spread = (x: Nd): Nd => ({ dims: x.dims, data: x.data.map((v, i) => Math.fround(v / 3 + 3 * (i % 5))) });

const floats = (...nds: readonly Nd[]) => nds.map((nd) => ({ dtype: "float32" as DType, nd }));

const unary = (apply: (x: Value) => Value, f: (x: number) => number, low = -3, high = 3): fc.Arbitrary<Case> =>
  dims(0, 4).chain((d) => filled(d, low, high)).map((x) => ({
    inputs: floats(x),
    apply,
    reference: (x) => ref.map(x, f),
  }));

/** Two shapes that broadcast to one. */
const broadcasting = dims(0, 4).chain((d) =>
  fc.tuple(fc.array(fc.boolean(), { minLength: 8, maxLength: 8 }), fc.nat(d.length), fc.boolean()).map(
    ([ones, cut, swap]) => {
      const a = d.map((x, i) => ones[i] ? 1 : x);
      const b = d.map((x, i) => ones[i + 4] ? 1 : x).slice(cut);
      return swap ? [b, a] : [a, b];
    },
  )
);

const binary = (
  apply: (a: Value, b: Value) => Value,
  f: (a: number, b: number) => number,
  low = -3,
  dtype?: DType,
): fc.Arbitrary<Case> =>
  // Of another range each, so that equal seeds are not equal numbers: max has no derivative there.
  broadcasting.chain(([a, b]) => fc.tuple(filled(a, low), filled(b, low, 3.1))).map(([a, b]) => ({
    inputs: floats(a, b),
    apply,
    reference: (a, b) => ref.zip(a, b, f),
    dtype,
  }));

const reduction = (apply: (x: Value, axes: readonly number[]) => Value, f: (values: readonly number[]) => number) =>
  dims(1, 4).chain((d) =>
    fc.tuple(filled(d), fc.subarray(d.map((_, i) => i), { minLength: 1 }), fc.boolean()).map(([x, axes, fromEnd]) => ({
      inputs: floats(x),
      apply: (v: Value) => apply(v, fromEnd ? axes.map((a) => a - d.length) : axes),
      reference: (x: Nd) => ref.reduce(x, axes, f),
    }))
  );

const axisOf = (d: readonly number[]) => fc.tuple(fc.nat(d.length - 1), fc.boolean());

/** Every operation that the graph exports, by name. */
export const cases: Record<string, fc.Arbitrary<Case>> = {
  add: binary(elementwise.add, (a, b) => a + b),
  sub: binary(elementwise.sub, (a, b) => a - b),
  mul: binary(elementwise.mul, (a, b) => a * b),
  div: binary(elementwise.div, (a, b) => a / b, 0.3),
  maximum: binary(elementwise.maximum, Math.max),
  less: binary(elementwise.less, (a, b) => a < b ? 1 : 0, -3, "bool"),
  equal: dims(0, 3).chain((d) => fc.tuple(filled(d, 0, 3), filled(d, 0, 3))).map(([a, b]) => ({
    inputs: [a, b].map((nd) => ({ dtype: "int32" as DType, nd: ref.map(nd, Math.trunc) })),
    apply: elementwise.equal,
    reference: (a: Nd, b: Nd) => ref.zip(a, b, (x, y) => x === y ? 1 : 0),
    dtype: "bool",
  })),
  neg: unary(elementwise.neg, (x) => -x),
  exp: unary(elementwise.exp, Math.exp),
  log: unary(elementwise.log, Math.log, 0.1),
  sqrt: unary(elementwise.sqrt, Math.sqrt, 0.1),
  abs: unary(elementwise.abs, Math.abs),
  erf: unary(elementwise.erf, ref.erf),
  sigmoid: unary(elementwise.sigmoid, ref.sigmoid),
  tanh: unary(elementwise.tanh, Math.tanh),
  sin: unary((x) => sinCos(x).sin, Math.sin, -1000, 1000),
  cos: unary((x) => sinCos(x).cos, Math.cos, -1000, 1000),
  silu: unary(elementwise.silu, (x) => x * ref.sigmoid(x)),
  gelu: unary(elementwise.gelu, (x) => x * (1 + ref.erf(x / Math.SQRT2)) / 2),
  quickGelu: unary(elementwise.quickGelu, (x) => x * ref.sigmoid(1.702 * x)),
  activation: unary(elementwise.activation("silu"), (x) => x * ref.sigmoid(x)),
  cast: dims(0, 3).chain((d) => filled(d)).chain((x) =>
    fc.constantFrom<Case>(
      // Towards zero, as C and numpy do.
      {
        inputs: floats(x),
        apply: (v) => elementwise.cast(v, "int32"),
        reference: (x) => ref.map(x, Math.trunc),
        dtype: "int32",
      },
      {
        inputs: floats(x),
        apply: (v) => elementwise.cast(v, "int64"),
        reference: (x) => ref.map(x, Math.trunc),
        dtype: "int64",
      },
      {
        inputs: floats(x),
        apply: (v) => elementwise.cast(v, "bool"),
        reference: (x) => ref.map(x, (n) => n === 0 ? 0 : 1),
        dtype: "bool",
      },
      { inputs: floats(x), apply: (v) => elementwise.cast(v, "float32"), reference: (x) => x },
      {
        inputs: [{ dtype: "int32", nd: ref.map(x, Math.trunc) }],
        apply: (v) => elementwise.cast(v, "float32"),
        reference: (x) => x,
      },
    )
  ),
  where: broadcasting.chain(([a, b]) =>
    fc.tuple(filled(a, 0, 2), filled(b), filled(b)).map(([condition, yes, no]) => {
      const chosen = ref.map(condition, Math.trunc);
      return {
        inputs: [{ dtype: "bool" as DType, nd: chosen }, ...floats(yes, no)],
        apply: (c: Value, x: Value, y: Value) => elementwise.where(c, x, y),
        reference: (chosen: Nd, yes: Nd, no: Nd) =>
          ref.build(
            ref.broadcastDims(a, b),
            (i) => ref.atBroadcast(ref.atBroadcast(chosen, i) === 1 ? yes : no, i),
          ),
      };
    })
  ),
  matmul: fc.tuple(broadcasting, size, size, size).chain(([[a, b], m, k, n]) =>
    fc.tuple(filled([...a.slice(-2), m, k]), filled([...b.slice(-2), k, n])).map(([x, y]) => ({
      inputs: floats(x, y),
      apply: linear.matmul,
      reference: ref.matmul,
    }))
  ),
  linear: fc.tuple(dims(1, 3), size, size, fc.boolean()).chain(([d, k, n, withBias]) =>
    fc.tuple(filled([...d, k]), filled([n, k]), filled([n])).map(([x, w, b]) => ({
      inputs: withBias ? floats(x, w, b) : floats(x, w),
      apply: (x: Value, w: Value, b?: Value) => linear.linear(x, w, b),
      reference: (x: Nd, w: Nd, bias: Nd = ref.map(b, () => 0)) =>
        ref.zip(ref.matmul(x, ref.transpose(w, [1, 0])), bias, (y, c) => y + c),
    }))
  ),
  conv2d: fc.record({
    // 6 and 9 channels to 4 are among the shapes that conv2d splits.
    x: fc.tuple(
      size,
      fc.constantFrom(1, 2, 3, 4, 6, 9),
      fc.integer({ min: 3, max: 7 }),
      fc.integer({ min: 3, max: 7 }),
    ),
    out: size,
    kernel: fc.constantFrom([1, 1], [3, 3], [2, 3]),
    stride: fc.constantFrom(1, 2),
    padding: fc.oneof(
      fc.nat(2),
      fc.record({ top: fc.nat(1), left: fc.nat(1), bottom: fc.nat(1), right: fc.nat(2) }),
    ),
    withBias: fc.boolean(),
  }).chain(({ x, out, kernel, stride, padding, withBias }) =>
    fc.tuple(filled(x), filled([out, x[1], ...kernel]), filled([out])).map(([x, w, b]) => ({
      inputs: withBias ? floats(x, w, b) : floats(x, w),
      apply: (x: Value, w: Value, b?: Value) => convolution.conv2d(x, w, b, { stride, padding }),
      reference: (x: Nd, w: Nd, b?: Nd) =>
        ref.conv2d(
          x,
          w,
          b,
          stride,
          typeof padding === "number"
            ? [padding, padding, padding, padding]
            : [padding.top, padding.left, padding.bottom, padding.right],
        ),
    }))
  ),
  layerNorm: fc.tuple(dims(1, 3), fc.integer({ min: 2, max: 6 })).chain(([d, width]) =>
    fc.tuple(filled([...d, width]).map(spread), filled([width]), filled([width])).map(([x, scale, bias]) => ({
      inputs: floats(x, scale, bias),
      apply: (x: Value, scale: Value, bias: Value) => normalize.layerNorm(x, scale, bias, 1e-5),
      reference: (x: Nd, scale: Nd, bias: Nd) =>
        ref.rows(x, (row) => ref.normalised(row, 1e-5).map((v, i) => v * scale.data[i] + bias.data[i])),
    }))
  ),
  groupNorm: fc.tuple(size, size, fc.integer({ min: 2, max: 3 }), dims(1, 2)).chain(([n, groups, run, space]) =>
    fc.tuple(filled([n, groups * run, ...space]).map(spread), filled([groups * run]), filled([groups * run])).map((
      [x, scale, bias],
    ) => ({
      inputs: floats(x, scale, bias),
      apply: (x: Value, scale: Value, bias: Value) => normalize.groupNorm(x, groups, scale, bias, 1e-5),
      reference: (x: Nd, scale: Nd, bias: Nd) => {
        const perGroup = ref.rows(
          { dims: [n * groups, x.data.length / (n * groups)], data: x.data },
          (row) => ref.normalised(row, 1e-5),
        );
        const normal = { dims: x.dims, data: perGroup.data };
        return ref.build(x.dims, (i) => ref.at(normal, ...i) * scale.data[i[1]] + bias.data[i[1]]);
      },
    }))
  ),
  reduceSum: reduction(reductions.reduceSum, ref.sum),
  reduceMean: reduction(reductions.reduceMean, ref.mean),
  reduceMax: reduction(reductions.reduceMax, (values) => Math.max(...values)),
  sumTo: broadcasting.chain(([a, b]) => filled(ref.broadcastDims(a, b)).map((x) => ({ x, to: a }))).map((
    { x, to },
  ) => ({
    inputs: floats(x),
    apply: (v: Value) => reductions.sumTo(v, to),
    reference: (x: Nd) => {
      const lead = x.dims.length - to.length;
      const axes = x.dims.flatMap((d, i) => d !== 1 && (i < lead || to[i - lead] === 1) ? [i] : []);
      return { dims: to, data: ref.reduce(x, axes, ref.sum).data };
    },
  })),
  softmax: dims(1, 4).chain((d) => filled(d)).map((x) => ({
    inputs: floats(x),
    apply: reductions.softmax,
    reference: (x) => ref.rows(x, (row) => row.map((v) => Math.exp(v) / ref.sum(row.map(Math.exp)))),
  })),
  fusedAttention: fc.tuple(size, size, size, size, size).chain(([batch, queries, length, heads, depth]) =>
    fc.tuple(...[queries, length, length].map((n) => filled([batch, n, heads * depth]))).map(([q, k, v]) => ({
      inputs: floats(q, k, v),
      apply: (q: Value, k: Value, v: Value) => attention.fusedAttention(q, k, v, heads),
      reference: (q: Nd, k: Nd, v: Nd) =>
        ref.build(q.dims, ([b, i, c]) => {
          const head = ref.range(depth).map((d) => Math.floor(c / depth) * depth + d);
          const scores = ref.range(length).map((j) =>
            ref.sum(head.map((d) => ref.at(q, b, i, d) * ref.at(k, b, j, d))) / Math.sqrt(depth)
          );
          const weights = scores.map(Math.exp);
          return ref.sum(weights.map((w, j) => w * ref.at(v, b, j, c))) / ref.sum(weights);
        }),
    }))
  ),
  reshape: dims(1, 4).chain((d) => fc.tuple(filled(d), fc.shuffledSubarray(d, { minLength: d.length }), fc.boolean()))
    .map(([x, to, rest]) => ({
      inputs: floats(x),
      apply: (v: Value) => shape.reshape(v, rest ? [-1, ...to.slice(1)] : to),
      reference: (x: Nd) => ({ dims: to, data: x.data }),
    })),
  transpose: dims(1, 4).chain((d) =>
    fc.tuple(filled(d), fc.shuffledSubarray(d.map((_, i) => i), { minLength: d.length }))
  ).map(([x, perm]) => ({
    inputs: floats(x),
    apply: (v: Value) => shape.transpose(v, perm),
    reference: (x) => ref.transpose(x, perm),
  })),
  concat: fc.tuple(dims(1, 4), fc.array(size, { minLength: 1, maxLength: 3 })).chain(([d, widths]) =>
    fc.tuple(axisOf(d)).chain(([[axis, fromEnd]]) =>
      fc.tuple(...widths.map((w) => filled(d.with(axis, w)))).map((parts) => ({
        inputs: floats(...parts),
        apply: (...values: Value[]) => shape.concat(values, fromEnd ? axis - d.length : axis),
        reference: (...parts: Nd[]) => ref.concat(parts, axis),
      }))
    )
  ),
  slice: dims(1, 4).chain((d) => fc.tuple(filled(d), axisOf(d), fc.nat(3), fc.nat(3))).map(
    ([x, [axis, fromEnd], p, q]) => {
      const begin = p % x.dims[axis];
      const end = begin + 1 + q % (x.dims[axis] - begin);
      return {
        inputs: floats(x),
        apply: (v: Value) => shape.slice(v, fromEnd ? axis - x.dims.length : axis, begin, end),
        reference: (x: Nd) => ref.slice(x, axis, begin, end),
      };
    },
  ),
  split: fc.tuple(dims(1, 3), size, size, fc.nat(3)).chain(([d, pieces, width, which]) =>
    filled([pieces * width, ...d]).map((x) => ({
      inputs: floats(x),
      apply: (v: Value) => shape.split(v, 0, pieces)[which % pieces],
      reference: (x: Nd) => ref.slice(x, 0, (which % pieces) * width, (which % pieces + 1) * width),
    }))
  ),
  expand: broadcasting.chain(([a, b]) => filled(a).map((x) => ({ x, to: ref.broadcastDims(a, b) }))).map((
    { x, to },
  ) => ({
    inputs: floats(x),
    apply: (v: Value) => shape.expand(v, to),
    reference: (x) => ref.build(to, (i) => ref.atBroadcast(x, i)),
  })),
  pad: dims(1, 4).chain((d) =>
    fc.tuple(
      filled(d),
      fc.array(fc.nat(2), { minLength: d.length, maxLength: d.length }),
      fc.array(fc.nat(2), { minLength: d.length, maxLength: d.length }),
    )
  ).map(([x, before, after]) => ({
    inputs: floats(x),
    apply: (v: Value) => shape.pad(v, before, after),
    reference: (x) => ref.pad(x, before, after),
  })),
  gather: fc.tuple(dims(1, 3), dims(0, 3)).chain(([table, index]) =>
    fc.tuple(filled(table), filled(index, 0, table[0])).map(([t, i]) => {
      const rows = ref.map(i, (x) => Math.min(Math.trunc(x), table[0] - 1));
      return {
        inputs: [...floats(t), { dtype: "int32" as DType, nd: rows }],
        apply: shape.gather,
        reference: (t: Nd, rows: Nd) =>
          ref.build(
            [...index, ...table.slice(1)],
            (at) => ref.at(t, ref.at(rows, ...at.slice(0, index.length)), ...at.slice(index.length)),
          ),
      };
    })
  ),
  upsampleNearest: fc.tuple(size, size, size, size, fc.integer({ min: 2, max: 3 })).chain(([n, c, h, w, scale]) =>
    filled([n, c, h, w]).map((x) => ({
      inputs: floats(x),
      apply: (v: Value) => shape.upsampleNearest(v, scale),
      reference: (x: Nd) =>
        ref.build(
          [n, c, h * scale, w * scale],
          ([b, channel, i, j]) => ref.at(x, b, channel, Math.floor(i / scale), Math.floor(j / scale)),
        ),
    }))
  ),
};

/** Exported functions of the operation files that are no operation of their own. */
const helpers = new Set(["broadcast"]);

/** Names of all operations that the graph's files export. */
export const exported: readonly string[] = [attention, convolution, elementwise, linear, normalize, reductions, shape]
  .flatMap((m) => Object.keys(m)).filter((name) => !helpers.has(name));
