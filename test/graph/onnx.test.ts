/** The ONNX writer, read back by an independent decoder (onnx-buf) and by ONNX Runtime. */
import { describe, it } from "node:test";
import assert from "node:assert/strict";
import { fromBinary } from "@bufbuild/protobuf";
import fc from "fast-check";
import { type ModelProto, ModelProtoSchema, type TensorProto } from "onnx-buf";
import { Graph, GraphError, type Op } from "../../src/graph/graph.ts";
import { printGraph, toOnnx, type WeightLocator, type WeightPlace } from "../../src/graph/onnx.ts";
import { add, cast, mul } from "../../src/graph/ops/elementwise.ts";
import { conv2d } from "../../src/graph/ops/conv.ts";
import { matmul } from "../../src/graph/ops/linear.ts";
import { layerNorm } from "../../src/graph/ops/normalize.ts";
import { reduceSum } from "../../src/graph/ops/reduce.ts";
import { gather, reshape, slice, transpose, upsampleNearest } from "../../src/graph/ops/shape.ts";
import { Writer } from "../../src/graph/protobuf.ts";
import { parseHeader, write } from "../../src/tensor/safetensors.ts";
import { size } from "../../src/tensor/tensor.ts";
import { evaluate } from "../support/evaluate.ts";

const noWeights: WeightLocator = () => {
  throw new Error("no weights");
};

const decode = (graph: Graph, locate: WeightLocator = noWeights): ModelProto =>
  fromBinary(ModelProtoSchema, toOnnx(graph, locate).model);

/** What a decoded attribute says, by the type that it claims to have. */
const attributes = (model: ModelProto, node: number): Record<string, unknown> =>
  Object.fromEntries(model.graph!.node[node].attribute.map((a) => {
    const values: Record<number, unknown> = { 1: a.f, 2: a.i, 3: new TextDecoder().decode(a.s), 7: a.ints };
    return [a.name, values[a.type]];
  }));

const int64s = (t: TensorProto): bigint[] => [...new BigInt64Array(t.rawData.slice().buffer)];
const floats = (t: TensorProto): number[] => [...new Float32Array(t.rawData.slice().buffer)];

const shapeOf = (info: NonNullable<ModelProto["graph"]>["input"][number]) => {
  assert.equal(info.type?.value.case, "tensorType");
  const { elemType, shape } = info.type.value.value;
  return { name: info.name, elemType, dims: shape?.dim.map((d) => Number(d.value.value)) };
};

describe("ONNX writer", () => {
  it("writes what the decoder reads: header, inputs, outputs, nodes in order, constants", () => {
    const g = new Graph();
    const x = g.input("x", "float32", [2, 3]);
    const i = g.input("i", "int32", []);
    const table = g.constant({ dims: [2, 2], data: Float32Array.of(1, -2, 3, 0.5) });
    g.output("rows", gather(table, i));
    g.output("moved", transpose(reshape(x, [3, 2]), [1, 0]));
    const model = decode(g);
    assert.equal(model.irVersion, 10n);
    assert.deepEqual(model.opsetImport.map((o) => [o.domain, o.version]), [["", 21n]]);
    const graph = model.graph!;
    assert.deepEqual(graph.input.map(shapeOf), [
      { name: "x", elemType: 1, dims: [2, 3] },
      { name: "i", elemType: 6, dims: [] },
    ]);
    assert.deepEqual(graph.output.map(shapeOf), [
      { name: "rows", elemType: 1, dims: [2] },
      { name: "moved", elemType: 1, dims: [2, 3] },
    ]);
    const known = new Set([...graph.input, ...graph.initializer].map((v) => v.name));
    for (const node of graph.node) {
      for (const input of node.input) assert.ok(known.has(input), `${input} is used before it is made`);
      for (const output of node.output) known.add(output);
    }
    for (const output of graph.output) assert.ok(known.has(output.name));
    const constants = graph.initializer.map((
      t,
    ) => [t.dataType, t.dims.map(Number), t.dataType === 7 ? int64s(t) : floats(t)]);
    assert.deepEqual(constants, [[7, [2], [3n, 2n]], [1, [2, 2], [1, -2, 3, 0.5]]]);
  });

  it("keeps the kind of each attribute: whole numbers, negative ones, fractions, lists, strings", () => {
    const g = new Graph();
    const x = g.input("x", "float32", [1, 2, 4, 4]);
    const op: Op = { type: "Any", infer: ([x]) => x };
    g.output(
      "y",
      g.apply(op, [x], {
        axis: { int: -1 },
        lowest: { int: -(2 ** 53) + 1 },
        one: { float: 1 },
        small: { float: 1e-5 },
        list: { ints: [0, -2, 300, 2 ** 40] },
        none: { ints: [] },
        text: { string: "größe" },
      }),
    );
    assert.deepEqual(attributes(decode(g), 0), {
      axis: -1n,
      lowest: -9007199254740991n,
      one: 1,
      small: Math.fround(1e-5),
      list: [0n, -2n, 300n, 1099511627776n],
      none: [],
      text: "größe",
    });
  });

  it("lowers each operation to ONNX's own form", () => {
    const g = new Graph();
    const x = g.input("x", "float32", [1, 2, 4, 4]);
    const w = g.input("w", "float32", [3, 2, 3, 3]);
    const padding = { top: 0, left: 1, bottom: 2, right: 3 };
    g.output("conv", conv2d(x, w, undefined, { stride: 2, padding }));
    g.output("slice", slice(x, -1, 1, 3));
    g.output("sum", reduceSum(x, [-1, 2]));
    g.output("up", upsampleNearest(x, 2));
    g.output("norm", layerNorm(x, g.scalarRow(1, 4), g.scalarRow(0, 4), 1e-6));
    g.output("ints", cast(x, "int32"));
    const model = decode(g);
    const find = (type: string) => {
      const index = model.graph!.node.findIndex((n) => n.opType === type);
      const { input } = model.graph!.node[index];
      const constant = (name: string) => {
        const t = model.graph!.initializer.find((t) => t.name === name);
        return t === undefined ? name : t.dataType === 7 ? int64s(t) : floats(t);
      };
      return { inputs: input.map(constant), attributes: attributes(model, index) };
    };
    assert.deepEqual(find("Conv"), {
      inputs: ["x", "w"],
      attributes: { pads: [0n, 1n, 2n, 3n], strides: [2n, 2n], kernel_shape: [3n, 3n] },
    });
    assert.deepEqual(find("Slice"), { inputs: ["x", [1n], [3n], [3n]], attributes: {} });
    assert.deepEqual(find("ReduceSum"), { inputs: ["x", [2n, 3n]], attributes: { keepdims: 1n } });
    assert.deepEqual(find("Resize"), {
      inputs: ["x", "", [1, 1, 2, 2]],
      attributes: { mode: "nearest", nearest_mode: "floor", coordinate_transformation_mode: "asymmetric" },
    });
    assert.deepEqual(find("LayerNormalization").attributes, { axis: 3n, epsilon: Math.fround(1e-6) });
    assert.deepEqual(find("Cast").attributes, { to: 6n });
  });

  it("imports the domains of the operations that are needed, and no others", () => {
    const g = new Graph();
    const x = g.input("x", "float32", [2]);
    const op = (type: string, domain?: string): Op => ({ type, domain, infer: ([x]) => x });
    g.output("y", g.apply(op("QuickGelu", "com.microsoft"), [x]));
    g.apply(op("Unused", "elsewhere"), [x]);
    const model = decode(g);
    assert.deepEqual(model.opsetImport.map((o) => [o.domain, o.version]), [["", 21n], ["com.microsoft", 1n]]);
    assert.deepEqual(model.graph!.node.map((n) => [n.domain, n.opType]), [["com.microsoft", "QuickGelu"]]);
  });

  it("writes each value once, however many outputs and nodes use it", async () => {
    const g = new Graph();
    const x = g.input("x", "float32", [2]);
    const y = add(x, 1);
    g.output("x again", x);
    g.output("first", y);
    g.output("second", y);
    g.output("product", mul(y, y));
    g.output("three", g.scalar(3));
    const model = decode(g);
    assert.deepEqual(model.graph!.node.map((n) => n.opType).sort(), ["Add", "Identity", "Identity", "Mul"]);
    const got = await evaluate(g, { x: { dims: [2], data: Float32Array.of(1, 2) } });
    assert.deepEqual(
      Object.fromEntries(Object.entries(got).map(([name, t]) => [name, [...t.data]])),
      { "x again": [1, 2], first: [2, 3], second: [2, 3], product: [4, 9], three: [3] },
    );
  });

  it("an output may bear the name of the input that it is", async () => {
    const g = new Graph();
    g.output("x", g.input("x", "float32", [2]));
    assert.deepEqual([...(await evaluate(g, { x: { dims: [2], data: Float32Array.of(1, 2) } })).x.data], [1, 2]);
  });

  it("refuses one name for two values", () => {
    const g = new Graph();
    g.output("x", add(g.input("x", "float32", [2]), 1));
    assert.throws(
      () => toOnnx(g, noWeights),
      new GraphError("x is the name of two values; rename the input or the output"),
    );
  });

  it("numbers of any size survive the wire format", () => {
    fc.assert(fc.property(fc.maxSafeInteger(), fc.float({ noNaN: true }), (int, float) => {
      const attribute = new Writer().string(1, "a").int(3, int).float(2, float).int(20, 2);
      const node = new Writer().message(5, attribute);
      const bytes = new Writer().message(7, new Writer().message(1, node)).finish();
      const [a] = fromBinary(ModelProtoSchema, bytes).graph!.node[0].attribute;
      assert.deepEqual([a.i, a.f], [BigInt(int), float]);
    }));
  });

  it("printGraph shows one line a value, in order", () => {
    const g = new Graph();
    g.output("y", add(g.input("x", "float32", [2, 3]), g.weights("unet")("conv.bias", [3])));
    assert.equal(
      printGraph(g),
      "%1: float32[3] = weight unet conv.bias\n%0: float32[2,3] = input x\n%2: float32[2,3] = Add(%0, %1) {}",
    );
  });
});

describe("weights as external data", () => {
  /** A file whose tensors begin at an offset that is `lag` more than a multiple of 4, as safetensors files may. */
  const file = (lag: number, dtype: "float32" | "float16", values: readonly number[]) => {
    const bytes = dtype === "float32"
      ? new Uint8Array(Float32Array.from(values).buffer)
      : new Uint8Array(Float16Array.from(values).buffer);
    const header = 64 + lag;
    const data = new Uint8Array(header + bytes.length);
    data.set(bytes, header);
    const place: WeightPlace = { path: "unet.safetensors", offset: header, length: bytes.length, dtype, dims: [2, 3] };
    return { place, external: [{ path: "unet.safetensors", data }] };
  };

  for (const dtype of ["float32", "float16"] as const) {
    for (const lag of [0, 1, 2, 3]) {
      it(`${dtype} at an offset ≡ ${lag} mod 4 is read where it lies`, async () => {
        const { place, external } = file(lag, dtype, [1, -2, 0.5, 4, 1024, -0.25]);
        const g = new Graph();
        const w = g.weights("unet")("to_k.weight", [2, 3]);
        g.output("y", matmul(g.input("x", "float32", [1, 2]), w));
        g.output("w", w);
        const model = decode(g, () => place);
        const stored = model.graph!.initializer.find((t) => t.externalData.length > 0)!;
        assert.equal(stored.dataLocation, 1);
        assert.equal(stored.rawData.length, 0);
        assert.deepEqual(
          Object.fromEntries(stored.externalData.map((e) => [e.key, e.value])),
          { location: "unet.safetensors", offset: `${64 + lag}`, length: `${place.length}` },
        );
        const got = await evaluate(g, { x: { dims: [1, 2], data: Float32Array.of(10, 1) } }, () => place, external);
        assert.deepEqual([...got.y.data], [14, 1004, 4.75]);
        assert.deepEqual([...got.w.data], [1, -2, 0.5, 4, 1024, -0.25]);
      });
    }
  }

  for (const dtype of ["float32", "float16"] as const) {
    it(`${dtype} that stands turned over in the file is turned by the graph`, async () => {
      const { place, external } = file(0, dtype, [1, 4, -2, 1024, 0.5, -0.25]);
      const g = new Graph();
      g.output("w", g.weights("unet")("to_k.weight", [2, 3]));
      const { w } = await evaluate(g, {}, () => ({ ...place, turned: true }), external);
      assert.deepEqual([[...w.data], w.dims], [[1, -2, 0.5, 4, 1024, -0.25], [2, 3]]);
    });
  }

  it("weights of two parts come from two files, as our own safetensors writer makes them", async () => {
    const files = Object.fromEntries(["unet", "vae"].map((part, i) => {
      const bytes = write(
        new Map([
          ["skipped", { dims: [3], data: Float32Array.of(9, 9, 9) }],
          ["w", { dims: [2], data: Float32Array.of(i + 1, 10 * (i + 1)) }],
        ]),
      );
      return [part, { bytes, header: parseHeader(bytes, bytes.length, part) }];
    }));
    const locate: WeightLocator = (part, key) => {
      const { dims, begin, end } = files[part].header.entries.get(key)!;
      return { path: `${part}.safetensors`, offset: begin, length: end - begin, dtype: "float32", dims };
    };
    const g = new Graph();
    g.output("sum", add(g.weights("unet")("w", [2]), g.weights("vae")("w", [2])));
    assert.deepEqual([...toOnnx(g, locate).paths].sort(), ["unet.safetensors", "vae.safetensors"]);
    const external = Object.entries(files).map(([part, { bytes }]) => ({ path: `${part}.safetensors`, data: bytes }));
    assert.deepEqual([...(await evaluate(g, {}, locate, external)).sum.data], [3, 30]);
  });

  it("says which weight has another shape in the file", () => {
    const g = new Graph();
    g.output("w", g.weights("unet")("conv.bias", [3]));
    assert.throws(
      () => toOnnx(g, () => ({ path: "f", offset: 0, length: 16, dtype: "float32", dims: [4] })),
      new GraphError("unet conv.bias: the file holds [4], the network wants [3]"),
    );
  });

  it("a weight chosen as an input is fed at run time, under its part and key", async () => {
    const g = new Graph({ weightsAsInputs: (part, key) => part === "unet" && key.endsWith("to_k.weight") });
    const read = g.weights("unet");
    const w = read("attn2.to_k.weight", [2, 3]);
    assert.equal(read("attn2.to_k.weight", [2, 3]), w);
    g.output("y", matmul(g.input("x", "float32", [1, 2]), w));
    assert.deepEqual(g.weightsUsed(), []);
    assert.deepEqual([...toOnnx(g, noWeights).inputs.keys()], ["unet/attn2.to_k.weight", "x"]);
    const dims = [2, 3];
    const got = await evaluate(g, {
      x: { dims: [1, 2], data: Float32Array.of(1, 2) },
      "unet/attn2.to_k.weight": { dims, data: Float32Array.from({ length: size(dims) }, (_, i) => i) },
    });
    assert.deepEqual([...got.y.data], [6, 9, 12]);
  });
});
