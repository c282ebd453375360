import { describe, it } from "node:test";
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import fc from "fast-check";
import {
  encodeAs,
  type Header,
  parseHeader,
  patch,
  readTensor,
  SafetensorsError,
  write,
} from "../../src/tensor/safetensors.ts";
import { size, type Tensor, tensor } from "../../src/tensor/tensor.ts";

const open = (bytes: Uint8Array): Header => parseHeader(bytes, bytes.length, "test.safetensors");

/** A file from a hand-written header. */
const file = (header: unknown, data = 0, text = JSON.stringify(header)): Uint8Array => {
  const head = new TextEncoder().encode(text);
  const out = new Uint8Array(8 + head.length + data);
  new DataView(out.buffer).setBigUint64(0, BigInt(head.length), true);
  out.set(head, 8);
  return out;
};

const refused = (bytes: Uint8Array, message: RegExp) =>
  assert.throws(() => open(bytes), (e) => e instanceof SafetensorsError && message.test(e.message), String(message));

const anyTensor: fc.Arbitrary<Tensor> = fc.array(fc.nat(4), { maxLength: 4 }).chain((dims) =>
  fc.float32Array({ minLength: size(dims), maxLength: size(dims) }).map((data) => tensor(data, dims))
);
const anyTensors = fc.uniqueArray(fc.tuple(fc.string().filter((k) => k !== "__metadata__"), anyTensor), {
  selector: ([k]) => k,
  maxLength: 6,
}).map((list) => new Map(list));

const golden: {
  tensors: Record<string, { dtype: string; shape: number[]; values: (number | string)[] }>;
  metadata: Record<string, string>;
  rounded: { values: number[]; F16: string; BF16: string };
} = JSON.parse(readFileSync(new URL("../golden/safetensors.json", import.meta.url), "utf8"));
const goldenFile = new Uint8Array(readFileSync(new URL("../golden/python.safetensors", import.meta.url)));

describe("safetensors: files of Python's safetensors", () => {
  it("every element type that networks use reads as Python reads it", () => {
    const header = open(goldenFile);
    assert.deepEqual({ ...header.metadata }, golden.metadata);
    assert.deepEqual([...header.entries.keys()].sort(), Object.keys(golden.tensors).sort());
    for (const [key, want] of Object.entries(golden.tensors)) {
      const got = readTensor(goldenFile, header, key);
      assert.equal(header.entries.get(key)?.dtype, want.dtype);
      assert.deepEqual(got.dims, want.shape);
      assert.deepEqual([...got.data], want.values.map(Number), key);
    }
  });

  it("float16 and bfloat16 are rounded as torch rounds them", () => {
    const hex = (dtype: "F16" | "BF16") => {
      const values = Float32Array.from(golden.rounded.values);
      const entry = { dtype, dims: [values.length], begin: 0, end: 0 };
      const header: Header = { file: "x", entries: new Map([["w", entry]]), metadata: {}, bytes: 0 };
      return [...encodeAs(header, "w", tensor(values, [values.length]))].map((b) => b.toString(16).padStart(2, "0"))
        .join("");
    };
    assert.equal(hex("F16"), golden.rounded.F16);
    assert.equal(hex("BF16"), golden.rounded.BF16);
  });

  it("a file that is written again from the same tensors and order is the same, byte for byte", () => {
    const header = open(goldenFile);
    const floats = new Map(["f32", "f32.matrix"].map((k) => [k, readTensor(goldenFile, header, k)]));
    const python = new Uint8Array(readFileSync(new URL("../golden/python_f32.safetensors", import.meta.url)));
    assert.deepEqual(write(floats, golden.metadata), python);
  });
});

describe("safetensors: laws", () => {
  it("what is written is read back: dims, bits and metadata", () => {
    fc.assert(fc.property(anyTensors, fc.dictionary(fc.string(), fc.string()), (tensors, metadata) => {
      const bytes = write(tensors, metadata);
      const header = open(bytes);
      assert.deepEqual({ ...header.metadata }, { ...metadata });
      assert.deepEqual(new Set(header.entries.keys()), new Set(tensors.keys()));
      for (const [key, { dims, data }] of tensors) {
        const got = readTensor(bytes, header, key);
        assert.deepEqual(got.dims, dims);
        assert.deepEqual(new Uint32Array(got.data.buffer), new Uint32Array(data.slice().buffer));
      }
    }));
  });

  it("patch changes the named tensors and no other byte", () => {
    fc.assert(fc.property(anyTensors, fc.nat(), (tensors, pick) => {
      const keys = [...tensors.keys()];
      if (keys.length === 0) return;
      const key = keys[pick % keys.length];
      const bytes = write(tensors);
      const header = open(bytes);
      const entry = header.entries.get(key);
      assert.ok(entry);
      const before = bytes.slice();
      const dims = entry.dims;
      const after = patch(bytes, header, new Map([[key, tensor(new Float32Array(size(dims)).fill(1.5), dims)]]));
      assert.deepEqual(bytes, before);
      assert.deepEqual(readTensor(after, header, key).data, new Float32Array(size(dims)).fill(1.5));
      after.set(before.subarray(entry.begin, entry.end), entry.begin);
      assert.deepEqual(after, before);
    }));
  });

  it("patching what was read changes nothing, in every floating type", () => {
    const header = open(goldenFile);
    const same = ["f32", "f16", "bf16", "f64"].map((k) => [k, readTensor(goldenFile, header, k)] as const);
    assert.deepEqual(patch(goldenFile, header, new Map(same)), goldenFile);
  });

  it("a corrupted file is read or refused with SafetensorsError, and nothing else happens", () => {
    const change = fc.record({ at: fc.nat(), byte: fc.nat(255), cut: fc.option(fc.nat(), { freq: 4 }) });
    fc.assert(
      fc.property(fc.array(change, { minLength: 1, maxLength: 4 }), (changes) => {
        let bytes = goldenFile.slice();
        for (const { at, byte, cut } of changes) {
          if (bytes.length > 0) bytes[at % Math.min(bytes.length, 900)] = byte;
          if (cut !== null) bytes = bytes.slice(0, cut % (bytes.length + 1));
        }
        try {
          const header = open(bytes);
          for (const key of header.entries.keys()) readTensor(bytes, header, key);
        } catch (e) {
          assert.ok(e instanceof SafetensorsError, String(e));
        }
      }),
      { numRuns: 500 },
    );
  });
});

describe("safetensors: strangers' files are refused for what is wrong with them", () => {
  const f32 = (shape: unknown, data_offsets: unknown, dtype = "F32") => ({ dtype, shape, data_offsets });

  it("a file cut anywhere is called truncated or too short", () => {
    for (let n = 0; n < goldenFile.length; n += 7) refused(goldenFile.subarray(0, n), /truncated|at least 8/);
  });
  it("a truncated file says how many bytes were expected and how many are there", () =>
    refused(file({ w: f32([4], [0, 16]) }, 10), /need \d+ bytes, the file has \d+ \(first one cut: w\)/));
  it("a header longer than the limit or the file", () => {
    const huge = new Uint8Array(16).fill(255);
    refused(huge, /claims a header of 18446744073709551615 bytes/);
    const long = new Uint8Array(16);
    new DataView(long.buffer).setBigUint64(0, 1000n, true);
    refused(long, /header needs 1008 bytes/);
  });
  it("a header that is not an object of entries", () => {
    refused(file(null, 0, "[]"), /start with \{/);
    refused(file(null, 0, "{"), /not JSON/);
    refused(file({ w: 3 }), /not an object/);
    refused(file({ w: f32([1], [0, 4]), __metadata__: { a: 1 } }, 4), /values other than strings/);
  });
  it("one key twice, also when written with escapes or inside an entry", () => {
    const entry = JSON.stringify(f32([1], [0, 4]));
    refused(file(null, 4, `{"w":${entry},"w":${entry}}`), /"w" twice/);
    refused(file(null, 4, `{"w":${entry},"\\u0077" :${entry}}`), /"w" twice/);
    refused(file(null, 4, `{"w":{"dtype":"F32","shape":[1],"shape":[1],"data_offsets":[0,4]}}`), /"shape" twice/);
  });
  it("gaps, overlaps and left-over bytes", () => {
    refused(file({ a: f32([1], [0, 4]), b: f32([1], [8, 12]) }, 12), /b: leaves a gap/);
    refused(file({ a: f32([2], [0, 8]), b: f32([1], [4, 8]) }, 8), /b: overlaps/);
    refused(file({ a: f32([1], [4, 8]) }, 8), /a: leaves a gap/);
    refused(file({ a: f32([1], [0, 4]) }, 5), /1 bytes after its last tensor/);
  });
  it("shapes and offsets that are not whole, not safe, negative, or do not agree", () => {
    refused(file({ a: f32([-1], [0, 4]) }, 4), /shape/);
    refused(file({ a: f32([1.5], [0, 6]) }, 6), /shape/);
    refused(file({ a: f32([1], [4, 0]) }, 4), /hold -4/);
    refused(file({ a: f32([1], [0, 2 ** 60]) }, 4), /data_offsets/);
    refused(file({ a: f32([2 ** 40, 2 ** 40], [0, 4]) }, 4), /too many elements/);
    refused(file({ a: f32([3], [0, 8]) }, 8), /takes 12 bytes, its data_offsets hold 8/);
    refused(file({ a: f32("1", [0, 4]) }, 4), /shape/);
    refused(file({ a: f32([1], [0, 4, 8]) }, 4), /data_offsets/);
  });
  it("element types that nobody knows, with the known ones", () =>
    refused(file({ a: f32([1], [0, 4], "F33") }, 4), /"F33".*F32, F16/));
  it("a tensor called __proto__ is a tensor", () => {
    const bytes = file(null, 4, `{"__proto__":${JSON.stringify(f32([1], [0, 4]))}}`);
    assert.deepEqual(readTensor(bytes, open(bytes), "__proto__").data, new Float32Array(1));
  });
});

describe("safetensors: values that do not fit are refused", () => {
  const header = open(goldenFile);
  const put = (key: string, value: number, dims = header.entries.get(key)?.dims ?? []) =>
    patch(goldenFile, header, new Map([[key, tensor(new Float32Array(size(dims)).fill(value), dims)]]));
  it("NaN, infinity and what overflows the file's type", () => {
    assert.throws(() => put("f32", NaN), SafetensorsError);
    assert.throws(() => put("f16", 65520), /does not fit into F16/);
    assert.throws(() => put("bf16", 3.4e38), /does not fit into BF16/);
    assert.doesNotThrow(() => put("f16", 65519));
    assert.doesNotThrow(() => put("f16", -65519));
  });
  it("wrong dims, unknown keys and whole-number tensors", () => {
    assert.throws(() => put("f32", 1, [2, 2]), /have shape \[2, 2\]/);
    assert.throws(() => put("nowhere", 1, []), /holds no tensor nowhere/);
    assert.throws(() => put("i64", 1), /no weights/);
  });
});
