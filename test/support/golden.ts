/**
 * Golden values: what diffusers and transformers answered, and the weights that they answered with.
 * test/golden/make_networks.py writes them. SAU_TEST_MODEL and SAU_TEST_GOLDEN point the tests at another checkpoint and
 * at the golden values made from it.
 */
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import type { WeightPlace } from "../../src/graph/onnx.ts";
import { Graph, type Value, type WeightReader } from "../../src/graph/graph.ts";
import { type Header, parseHeader, readTensor } from "../../src/tensor/safetensors.ts";
import type { DType, Tensor, TensorData } from "../../src/tensor/tensor.ts";
import { evaluator } from "./evaluate.ts";

const here = fileURLToPath(new URL(".", import.meta.url));

/** The checkpoint that the golden values of whole networks were made from. */
export const model = process.env.SAU_TEST_MODEL ?? join(here, "../../examples/mini-sd");
/** base/ of the checkpoint: a diffusers folder. */
export const base = existsSync(join(model, "base")) ? join(model, "base") : model;
export const golden = process.env.SAU_TEST_GOLDEN ?? join(here, "../golden");

/** A .safetensors file in memory. */
export class Stored {
  readonly path: string;
  readonly bytes: Uint8Array;
  readonly header: Header;

  constructor(path: string) {
    this.path = path;
    this.bytes = new Uint8Array(readFileSync(path));
    this.header = parseHeader(this.bytes, this.bytes.length, path);
  }

  get keys(): string[] {
    return [...this.header.entries.keys()];
  }

  floats(key: string): Tensor {
    return readTensor(this.bytes, this.header, key);
  }

  ints(key: string): Tensor<Int32Array> {
    const { dims, data } = this.floats(key);
    return { dims, data: Int32Array.from(data) };
  }

  /** Where a weight's bytes are, for the ONNX writer; `path` is the name that the session will know the file by. */
  place(path: string, key: string): WeightPlace {
    const entry = this.header.entries.get(key);
    if (entry === undefined) throw new Error(`${this.path} holds no ${key}`);
    const dtype = ({ F32: "float32", F16: "float16" } as Record<string, DType>)[entry.dtype];
    return { path, offset: entry.begin, length: entry.end - entry.begin, dtype, dims: entry.dims };
  }

  hash(): string {
    return createHash("sha256").update(this.bytes).digest("hex");
  }
}

export const readJson = (path: string): unknown => JSON.parse(readFileSync(path, "utf8"));

/** Why the tests of whole networks cannot run here, or false: an option for `it`. */
export const missing: string | false = existsSync(join(base, "model_index.json")) ? false : `no checkpoint in ${model}`;

/** A file of golden values. @throws AssertionError when it was made from other weights than those that lie there now. */
export const goldenOf = (name: string, weights: Readonly<Record<string, Stored>> = {}): Stored => {
  const path = join(golden, name);
  assert.ok(existsSync(path), `${path} is missing: run python test/golden/make_networks.py`);
  const values = new Stored(path);
  for (const [part, file] of Object.entries(weights)) {
    assert.equal(
      values.header.metadata[part],
      file.hash(),
      `${path} was made from other weights than ${file.path}: run python test/golden/make_networks.py`,
    );
  }
  return values;
};

/** A network ready to answer: its graph on ONNX Runtime, its weights as external data in their own files. */
export const network = async (
  files: Readonly<Record<string, Stored>>,
  build: (graph: Graph, weights: (part: string) => WeightReader) => Readonly<Record<string, Value>>,
) => {
  const graph = new Graph();
  const outputs = build(graph, (part) => graph.weights(part));
  for (const [name, value] of Object.entries(outputs)) graph.output(name, value);
  const session = await evaluator(
    graph,
    (part, key) => files[part].place(part, key),
    Object.entries(files).map(([part, { bytes }]) => ({ path: part, data: bytes })),
  );
  return {
    ...session,
    run: async (feeds: Readonly<Record<string, Tensor<TensorData>>>): Promise<Record<string, Tensor>> => {
      const results = await session.run(feeds);
      return Object.fromEntries(
        Object.entries(results).map(([name, { dims, data }]) => {
          assert.ok(data instanceof Float32Array);
          return [name, { dims, data }];
        }),
      );
    },
  };
};

/** max |a − b| / max |b|, b being the golden value. Shapes must agree. */
export const relativeError = (a: Tensor<TensorData>, b: Tensor): number => {
  assert.deepEqual(a.dims, b.dims, "shape");
  let [apart, largest] = [0, 0];
  b.data.forEach((want, i) => {
    const difference = Math.abs(Number(a.data[i]) - want);
    // A NaN must not hide in Math.max's operands.
    apart = difference <= apart ? apart : difference;
    largest = Math.max(largest, Math.abs(want));
  });
  return apart / largest;
};

/** Agreement with PyTorch that the project promises. */
export const LIMIT = 1e-4;

export const assertClose = (a: Tensor<TensorData>, b: Tensor, what: string): void => {
  const error = relativeError(a, b);
  if (process.env.SAU_TEST_VERBOSE) console.log(`${what}: relative error ${error.toExponential(1)}`);
  assert.ok(error <= LIMIT, `${what}: relative error ${error.toExponential(2)}, at most ${LIMIT} is allowed`);
};
