/** Every operation of the graph, on random shapes: the shape it infers is ONNX Runtime's, its values are the definition's. */
import { describe, it } from "node:test";
import assert from "node:assert/strict";
import fc from "fast-check";
import { Graph, type Value } from "../../src/graph/graph.ts";
import * as elementwise from "../../src/graph/ops/elementwise.ts";
import * as linear from "../../src/graph/ops/linear.ts";
import * as normalize from "../../src/graph/ops/normalize.ts";
import * as reductions from "../../src/graph/ops/reduce.ts";
import * as shape from "../../src/graph/ops/shape.ts";
import type { DType, Tensor, TensorData } from "../../src/tensor/tensor.ts";
import { evaluate } from "../support/evaluate.ts";
import * as ref from "./reference.ts";
import type { Nd } from "./reference.ts";

/** One application of an operation: what goes in, how the graph says it, what must come out. */
interface Case {
  readonly inputs: readonly { readonly dtype: DType; readonly nd: Nd }[];
  readonly apply: (...values: Value[]) => Value;
  readonly expected: Nd;
  readonly dtype?: DType;
}

const hostTensor = (dtype: DType, nd: Nd): Tensor<TensorData> => ({
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

/** float32 values of a shape, from a seed: the shape is what shrinks. */
const filled = (d: readonly number[], low = -3, high = 3): fc.Arbitrary<Nd> =>
  fc.integer({ min: 1, max: 2 ** 31 - 1 }).map((seed) => {
    let state = seed;
    return ref.build(d, () => {
      state = (state * 48271) % 2147483647;
      return Math.fround(low + (high - low) * state / 2147483647);
    });
  });

const floats = (...nds: readonly Nd[]) => nds.map((nd) => ({ dtype: "float32" as DType, nd }));

const unary = (apply: (x: Value) => Value, f: (x: number) => number, low = -3): fc.Arbitrary<Case> =>
  dims(0, 4).chain((d) => filled(d, low)).map((x) => ({ inputs: floats(x), apply, expected: ref.map(x, f) }));

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
  broadcasting.chain(([a, b]) => fc.tuple(filled(a, low), filled(b, low))).map(([a, b]) => ({
    inputs: floats(a, b),
    apply,
    expected: ref.zip(a, b, f),
    dtype,
  }));

const reduction = (apply: (x: Value, axes: readonly number[]) => Value, f: (values: readonly number[]) => number) =>
  dims(1, 4).chain((d) =>
    fc.tuple(filled(d), fc.subarray(d.map((_, i) => i), { minLength: 1 }), fc.boolean()).map(([x, axes, fromEnd]) => ({
      inputs: floats(x),
      apply: (v: Value) => apply(v, fromEnd ? axes.map((a) => a - d.length) : axes),
      expected: ref.reduce(x, axes, f),
    }))
  );

const axisOf = (d: readonly number[]) => fc.tuple(fc.nat(d.length - 1), fc.boolean());

const cases: Record<string, fc.Arbitrary<Case>> = {
  add: binary(elementwise.add, (a, b) => a + b),
  sub: binary(elementwise.sub, (a, b) => a - b),
  mul: binary(elementwise.mul, (a, b) => a * b),
  div: binary(elementwise.div, (a, b) => a / b, 0.3),
  maximum: binary(elementwise.maximum, Math.max),
  less: binary(elementwise.less, (a, b) => a < b ? 1 : 0, -3, "bool"),
  neg: unary(elementwise.neg, (x) => -x),
  exp: unary(elementwise.exp, Math.exp),
  log: unary(elementwise.log, Math.log, 0.1),
  sqrt: unary(elementwise.sqrt, Math.sqrt, 0.1),
  abs: unary(elementwise.abs, Math.abs),
  erf: unary(elementwise.erf, ref.erf),
  sigmoid: unary(elementwise.sigmoid, ref.sigmoid),
  tanh: unary(elementwise.tanh, Math.tanh),
  sin: unary(elementwise.sin, Math.sin),
  cos: unary(elementwise.cos, Math.cos),
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
        expected: ref.map(x, Math.trunc),
        dtype: "int32",
      },
      {
        inputs: floats(x),
        apply: (v) => elementwise.cast(v, "int64"),
        expected: ref.map(x, Math.trunc),
        dtype: "int64",
      },
      {
        inputs: floats(x),
        apply: (v) => elementwise.cast(v, "bool"),
        expected: ref.map(x, (n) => n === 0 ? 0 : 1),
        dtype: "bool",
      },
      { inputs: floats(x), apply: (v) => elementwise.cast(v, "float32"), expected: x },
      {
        inputs: [{ dtype: "int32", nd: ref.map(x, Math.trunc) }],
        apply: (v) => elementwise.cast(v, "float32"),
        expected: ref.map(x, Math.trunc),
      },
    )
  ),
  where: broadcasting.chain(([a, b]) =>
    fc.tuple(filled(a, 0, 2), filled(b), filled(b)).map(([condition, yes, no]) => {
      const chosen = ref.map(condition, Math.trunc);
      return {
        inputs: [{ dtype: "bool" as DType, nd: chosen }, ...floats(yes, no)],
        apply: (c: Value, x: Value, y: Value) => elementwise.where(c, x, y),
        expected: ref.build(
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
      expected: ref.matmul(x, y),
    }))
  ),
  linear: fc.tuple(dims(1, 3), size, size, fc.boolean()).chain(([d, k, n, withBias]) =>
    fc.tuple(filled([...d, k]), filled([n, k]), filled([n])).map(([x, w, b]) => ({
      inputs: withBias ? floats(x, w, b) : floats(x, w),
      apply: (x: Value, w: Value, b?: Value) => linear.linear(x, w, b),
      expected: ref.zip(ref.matmul(x, ref.transpose(w, [1, 0])), withBias ? b : ref.map(b, () => 0), (y, c) => y + c),
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
      apply: (x: Value, w: Value, b?: Value) => linear.conv2d(x, w, b, { stride, padding }),
      expected: ref.conv2d(
        x,
        w,
        withBias ? b : undefined,
        stride,
        typeof padding === "number"
          ? [padding, padding, padding, padding]
          : [padding.top, padding.left, padding.bottom, padding.right],
      ),
    }))
  ),
  layerNorm: fc.tuple(dims(1, 3), fc.integer({ min: 2, max: 6 })).chain(([d, width]) =>
    fc.tuple(filled([...d, width]), filled([width]), filled([width])).map(([x, scale, bias]) => ({
      inputs: floats(x, scale, bias),
      apply: (x: Value, scale: Value, bias: Value) => normalize.layerNorm(x, scale, bias, 1e-5),
      expected: ref.rows(x, (row) => ref.normalised(row, 1e-5).map((v, i) => v * scale.data[i] + bias.data[i])),
    }))
  ),
  groupNorm: fc.tuple(size, size, fc.integer({ min: 2, max: 3 }), dims(1, 2)).chain(([n, groups, run, space]) =>
    fc.tuple(filled([n, groups * run, ...space]), filled([groups * run]), filled([groups * run])).map((
      [x, scale, bias],
    ) => ({
      inputs: floats(x, scale, bias),
      apply: (x: Value, scale: Value, bias: Value) => normalize.groupNorm(x, groups, scale, bias, 1e-5),
      expected: ref.build(x.dims, (i) => {
        const channel = i[1];
        const perGroup = ref.rows(
          { dims: [n * groups, x.data.length / (n * groups)], data: x.data },
          (row) => ref.normalised(row, 1e-5),
        );
        return ref.at({ dims: x.dims, data: perGroup.data }, ...i) * scale.data[channel] + bias.data[channel];
      }),
    }))
  ),
  reduceSum: reduction(reductions.reduceSum, ref.sum),
  reduceMean: reduction(reductions.reduceMean, ref.mean),
  reduceMax: reduction(reductions.reduceMax, (values) => Math.max(...values)),
  softmax: dims(1, 4).chain((d) => filled(d)).map((x) => ({
    inputs: floats(x),
    apply: reductions.softmax,
    expected: ref.rows(x, (row) => row.map((v) => Math.exp(v) / ref.sum(row.map(Math.exp)))),
  })),
  reshape: dims(1, 4).chain((d) => fc.tuple(filled(d), fc.shuffledSubarray(d, { minLength: d.length }), fc.boolean()))
    .map(([x, to, rest]) => ({
      inputs: floats(x),
      apply: (v: Value) => shape.reshape(v, rest ? [-1, ...to.slice(1)] : to),
      expected: { dims: to, data: x.data },
    })),
  transpose: dims(1, 4).chain((d) =>
    fc.tuple(filled(d), fc.shuffledSubarray(d.map((_, i) => i), { minLength: d.length }))
  ).map(([x, perm]) => ({
    inputs: floats(x),
    apply: (v: Value) => shape.transpose(v, perm),
    expected: ref.transpose(x, perm),
  })),
  concat: fc.tuple(dims(1, 4), fc.array(size, { minLength: 1, maxLength: 3 })).chain(([d, widths]) =>
    fc.tuple(axisOf(d)).chain(([[axis, fromEnd]]) =>
      fc.tuple(...widths.map((w) => filled(d.with(axis, w)))).map((parts) => ({
        inputs: floats(...parts),
        apply: (...values: Value[]) => shape.concat(values, fromEnd ? axis - d.length : axis),
        expected: ref.concat(parts, axis),
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
        expected: ref.slice(x, axis, begin, end),
      };
    },
  ),
  split: fc.tuple(dims(1, 3), size, size, fc.nat(3)).chain(([d, pieces, width, which]) =>
    filled([pieces * width, ...d]).map((x) => ({
      inputs: floats(x),
      apply: (v: Value) => shape.split(v, 0, pieces)[which % pieces],
      expected: ref.slice(x, 0, (which % pieces) * width, (which % pieces + 1) * width),
    }))
  ),
  expand: broadcasting.chain(([a, b]) => filled(a).map((x) => ({ x, to: ref.broadcastDims(a, b) }))).map((
    { x, to },
  ) => ({
    inputs: floats(x),
    apply: (v: Value) => shape.expand(v, to),
    expected: ref.build(to, (i) => ref.atBroadcast(x, i)),
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
    expected: ref.pad(x, before, after),
  })),
  gather: fc.tuple(dims(1, 3), dims(0, 3)).chain(([table, index]) =>
    fc.tuple(filled(table), filled(index, 0, table[0])).map(([t, i]) => {
      const rows = ref.map(i, (x) => Math.min(Math.trunc(x), table[0] - 1));
      return {
        inputs: [...floats(t), { dtype: "int32" as DType, nd: rows }],
        apply: shape.gather,
        expected: ref.build(
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
      expected: ref.build(
        [n, c, h * scale, w * scale],
        ([b, channel, i, j]) => ref.at(x, b, channel, Math.floor(i / scale), Math.floor(j / scale)),
      ),
    }))
  ),
};

/** Exported functions of the operation files that are no operation of their own. */
const helpers = new Set(["broadcast"]);

/** All cases in one graph and one session: creating a session costs far more than running it. */
const check = async (named: Readonly<Record<string, Case>>): Promise<void> => {
  const graph = new Graph();
  const feeds: Record<string, Tensor<TensorData>> = {};
  const results = Object.entries(named).map(([name, { inputs, apply }]) => {
    const values = inputs.map(({ dtype, nd }, i) => {
      feeds[`${name}.${i}`] = hostTensor(dtype, nd);
      return graph.input(`${name}.${i}`, dtype, nd.dims);
    });
    const value = apply(...values);
    graph.output(name, value);
    return { name, value };
  });
  const got = await evaluate(graph, feeds);
  for (const { name, value } of results) {
    const { expected, dtype = "float32" } = named[name];
    assert.deepEqual(value.dims, expected.dims, `${name}: inferred shape`);
    assert.equal(value.dtype, dtype, `${name}: inferred dtype`);
    assert.deepEqual(got[name].dims, expected.dims, `${name}: ONNX Runtime's shape`);
    assert.equal(
      got[name].data.constructor,
      hostTensor(dtype, expected).data.constructor,
      `${name}: ONNX Runtime's dtype`,
    );
    expected.data.forEach((want, i) => {
      const have = Number(got[name].data[i]);
      assert.ok(
        Math.abs(have - want) <= 2e-5 * (1 + Math.abs(want)),
        `${name}[${i}]: ${have}, the definition says ${want}`,
      );
    });
  }
};

describe("operations", () => {
  it("each exported operation is tested here", () => {
    const exported = [elementwise, linear, normalize, reductions, shape].flatMap((m) => Object.keys(m));
    assert.deepEqual(exported.filter((name) => !helpers.has(name) && !(name in cases)), []);
  });

  it("shapes are ONNX Runtime's, values are the definitions'", { timeout: 120_000 }, async () => {
    await fc.assert(fc.asyncProperty(fc.record(cases), check), { numRuns: 30 });
  });

  it("numbers stand for float32 scalars, on either side", async () => {
    const graph = new Graph();
    const x = graph.input("x", "float32", [2]);
    graph.output("right", elementwise.sub(x, 1.5));
    graph.output("left", elementwise.div(1, x));
    graph.output("chosen", elementwise.where(elementwise.less(x, 0), -1, x));
    const got = await evaluate(graph, { x: { dims: [2], data: Float32Array.of(-2, 4) } });
    assert.deepEqual([...got.right.data], [-3.5, 2.5]);
    assert.deepEqual([...got.left.data], [-0.5, 0.25]);
    assert.deepEqual([...got.chosen.data], [-1, 4]);
  });
});
