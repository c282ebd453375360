/**
 * Strangers' bytes: every parser reads any of them or fails with its own error, within bounds. SAU_FUZZ says how many
 * inputs each gets (a million at night: `deno task fuzz`); the corpus in test/corpus/parsers.json always runs.
 */
import { Cause, Effect, Exit } from "effect";
import fc from "fast-check";
import assert from "node:assert/strict";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { after, before, describe, it } from "node:test";
import { fileURLToPath } from "node:url";
import { BundleError } from "../../src/diffusion/errors.ts";
import { openFolder } from "../../src/diffusion/files.ts";
import { OnnxError, readOnnx } from "../../src/diffusion/onnx/model.ts";
import { placesIn } from "../../src/diffusion/onnx/places.ts";
import { loadTokenizer } from "../../src/diffusion/tokenizer_files.ts";
import { Writer } from "../../src/graph/protobuf.ts";
import { ProtobufError } from "../../src/graph/protobuf_reader.ts";
import { parseHeader, readTensor } from "../../src/tensor/safetensors.ts";
import { SafetensorsError } from "../../src/tensor/safetensors_header.ts";

const INPUTS = Number(process.env.SAU_FUZZ ?? 3000);
const SEED = Number(process.env.SAU_FUZZ_SEED ?? 1);
/** A night's work takes hours; a run in CI does not. */
const timeout = INPUTS > 10_000 ? 10_800_000 : 120_000;

const corpus: { safetensors: string[]; tokenizer: Record<string, string>[] } = JSON.parse(
  readFileSync(fileURLToPath(new URL("../corpus/parsers.json", import.meta.url)), "utf8"),
);

/** Bytes from a line of the corpus: Latin-1, one character a byte. */
const bytesOf = (line: string): Uint8Array => Uint8Array.from(line, (c) => c.charCodeAt(0));

const file = (header: string, data: number, length = header.length): Uint8Array => {
  const bytes = new Uint8Array(8 + header.length + data);
  new DataView(bytes.buffer).setBigUint64(0, BigInt(length), true);
  bytes.set(new TextEncoder().encode(header).subarray(0, header.length), 8);
  return bytes;
};

const dtype = fc.constantFrom(
  "F32",
  "F16",
  "BF16",
  "F64",
  "I64",
  "I32",
  "U8",
  "BOOL",
  "F8_E4M3",
  "",
  "f32",
  "__proto__",
);
const count = fc.oneof(
  fc.nat(8),
  fc.constantFrom(-1, 0.5, 1e9, 2 ** 31, 2 ** 53, 2 ** 53 + 2, 1e308, null, "4"),
);
const entry = fc.record({
  dtype,
  shape: fc.oneof(fc.array(count, { maxLength: 4 }), fc.jsonValue({ maxDepth: 1 })),
  data_offsets: fc.oneof(fc.tuple(count, count), fc.jsonValue({ maxDepth: 1 })),
}, { requiredKeys: [] });
const key = fc.oneof(
  fc.constantFrom("a", "b", "__metadata__", "__proto__", "constructor", ""),
  fc.string({ maxLength: 6 }),
);
const header = fc.oneof(
  fc.dictionary(key, fc.oneof({ weight: 5, arbitrary: entry }, fc.jsonValue({ maxDepth: 2 })), { maxKeys: 4 })
    .map((value) => JSON.stringify(value)),
  fc.json({ maxDepth: 3 }),
  fc.string({ maxLength: 40 }),
  fc.nat(3000).map((depth) => `{"a":${"[".repeat(depth)}`),
);
const safetensors = fc.oneof(
  { weight: 8, arbitrary: fc.tuple(header, fc.nat(40)).map(([text, data]) => file(text, data)) },
  fc.tuple(header, fc.nat(40), fc.oneof(fc.nat(200), fc.constantFrom(2 ** 32, 2 ** 53)))
    .map(([text, data, length]) => file(text, data, length)),
  fc.uint8Array({ maxLength: 40 }),
  // One byte of a sound file is another.
  fc.tuple(fc.nat(80), fc.nat(255)).map(([at, byte]) => {
    const bytes = file('{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}', 8);
    bytes[at % bytes.length] = byte;
    return bytes;
  }),
);

const readAll = (bytes: Uint8Array): void => {
  try {
    const found = parseHeader(bytes, bytes.length, "fuzz");
    for (const name of found.entries.keys()) readTensor(bytes, found, name);
  } catch (error) {
    assert.ok(error instanceof SafetensorsError, `${error}\n${JSON.stringify(String.fromCharCode(...bytes))}`);
  }
};

/** A small tokenizer of the kind that is read; what is put over it makes it another. */
const SOUND = {
  normalizer: { type: "Sequence", normalizers: [{ type: "NFC" }, { type: "Replace" }, { type: "Lowercase" }] },
  pre_tokenizer: { type: "Sequence", pretokenizers: [{ type: "Split" }, { type: "ByteLevel" }] },
  added_tokens: [{ id: 4, content: "<|startoftext|>" }, { id: 5, content: "<|endoftext|>" }],
  model: {
    type: "BPE",
    end_of_word_suffix: "</w>",
    vocab: { a: 0, b: 1, "b</w>": 2, "ab</w>": 3 },
    merges: [["a", "b</w>"]],
  },
};
const any = fc.oneof(fc.jsonValue({ maxDepth: 2 }), fc.constantFrom(-1, 1e9, 1e308, "", "a b", "__proto__", [], {}));
const paths = [
  ["normalizer"],
  ["normalizer", "normalizers"],
  ["pre_tokenizer"],
  ["added_tokens"],
  ["added_tokens", "0", "id"],
  ["added_tokens", "0", "content"],
  ["model"],
  ["model", "vocab"],
  ["model", "vocab", "a"],
  ["model", "merges"],
  ["model", "merges", "0"],
  ["model", "merges", "0", "1"],
];
const put = (target: unknown, [first, ...rest]: readonly string[], value: unknown): unknown => {
  if (first === undefined) return value;
  const copy: unknown = structuredClone(target ?? {});
  if (typeof copy === "object" && copy !== null) {
    Reflect.set(copy, first, put(Reflect.get(copy, first), rest, value));
  }
  return copy;
};
const tokenizer = fc.record({
  "tokenizer.json": fc.oneof(
    {
      weight: 6,
      arbitrary: fc.array(fc.tuple(fc.constantFrom(...paths), any), { maxLength: 3 })
        .map((changes) =>
          JSON.stringify(changes.reduce<unknown>((json, [path, value]) => put(json, path, value), SOUND))
        ),
    },
    fc.json({ maxDepth: 3 }),
    fc.string({ maxLength: 30 }),
    fc.nat(5000).map((depth) => "[".repeat(depth)),
  ),
  "tokenizer_config.json": fc.oneof(
    fc.constant("{}"),
    fc.record({ model_max_length: any, bos_token: any, pad_token: any, added_tokens_decoder: any }, {
      requiredKeys: [],
    })
      .map((value) => JSON.stringify(value)),
  ),
});

/** A small network, and a sound graph of it: what is put in its place or over it makes it another. */
const NETWORK = new Map([["a.weight", [2, 3]], ["a.bias", [2]], ["b.weight", [2, 1, 1, 1]]]);
const message = (...fields: readonly (readonly [number, string | number | Uint8Array])[]): Uint8Array => {
  const w = new Writer();
  for (const [n, v] of fields) {
    if (typeof v === "number") w.int(n, v);
    else if (typeof v === "string") w.string(n, v);
    else w.bytes(n, v);
  }
  return w.finish();
};
const SOUND_GRAPH = message([1, 8], [2, "pytorch"], [
  7,
  message(
    [1, message([1, "x"], [1, "onnx::MatMul_1"], [2, "y"], [3, "/a/MatMul"], [4, "MatMul"])],
    [1, message([1, "y"], [1, "a.bias"], [2, "z"], [3, "/a/Add"], [4, "Add"])],
    [1, message([2, "c"], [4, "Constant"], [5, message([1, "value"], [5, message([2, 1], [9, new Uint8Array(4)])])])],
    [1, message([1, "b.weight"], [2, "t"], [4, "Transpose"], [5, message([1, "perm"], [8, 1], [8, 0])])],
    [5, message([1, 3], [1, 2], [2, 1], [8, "onnx::MatMul_1"], [9, new Uint8Array(24)])],
    [5, message([1, 2], [2, 1], [8, "a.bias"], [9, new Uint8Array(8)])],
    [
      5,
      message(
        [1, new Uint8Array([2, 1, 1, 1])],
        [2, 10],
        [8, "b.weight"],
        [13, message([1, "location"], [2, "data"])],
        [13, message([1, "offset"], [2, "4"])],
        [14, 1],
      ),
    ],
  ),
]);
const field = fc.tuple(
  fc.constantFrom(1, 2, 3, 4, 5, 7, 8, 9, 13, 14, 15),
  fc.oneof(
    fc.constantFrom(0, 1, 7, 10, 2 ** 31, 2 ** 53, -1),
    fc.constantFrom("a.weight", "/a/MatMul", "MatMul", "Constant", "value", "location", "../x", "offset", "1e9", ""),
    fc.uint8Array({ maxLength: 12 }),
  ),
);
const nested = (depth: number): fc.Arbitrary<Uint8Array> =>
  fc.array(
    depth === 0 ? field : fc.oneof(field, fc.tuple(fc.constantFrom(1, 5, 7, 13), nested(depth - 1))),
    { maxLength: 6 },
  ).map((fields) => message(...fields));
const onnx = fc.oneof(
  fc.uint8Array({ maxLength: 60 }),
  nested(3).map((graph) => message([7, graph])),
  // Some bytes of a sound file are others, or it is cut off.
  fc.tuple(fc.array(fc.tuple(fc.nat(), fc.nat(255)), { minLength: 1, maxLength: 3 }), fc.nat()).map(
    ([changes, cut]) => {
      const bytes = SOUND_GRAPH.slice(0, cut % 4 === 0 ? cut % SOUND_GRAPH.length : undefined);
      for (const [at, byte] of changes) bytes[at % Math.max(1, bytes.length)] = byte;
      return bytes;
    },
  ),
);

const placeAll = async (bytes: Uint8Array): Promise<number> => {
  const read = (into: Uint8Array, at: number) => {
    assert.ok(at >= 0 && at + into.length <= bytes.length);
    into.set(bytes.subarray(at, at + into.length));
    return Promise.resolve();
  };
  try {
    const model = await readOnnx(read, bytes.length);
    const { placed } = placesIn(model, NETWORK);
    for (const [key, { constant: { begin, bytes: size, location } }] of placed) {
      assert.ok(location !== undefined || begin === undefined || begin + size <= bytes.length, key);
    }
    return placed.size;
  } catch (error) {
    const known = error instanceof OnnxError || error instanceof ProtobufError;
    assert.ok(known, `${error}\n${JSON.stringify(String.fromCharCode(...bytes))}`);
    return 0;
  }
};

describe("parsers of strangers' files", () => {
  let folder: string;
  before(() => {
    folder = mkdtempSync(join(tmpdir(), "sau-fuzz-"));
  });
  after(() => rmSync(folder, { recursive: true }));

  const readTokenizer = async (files: Readonly<Record<string, string>>) => {
    for (const [name, text] of Object.entries(files)) await writeFile(join(folder, name), text);
    const exit = await Effect.runPromiseExit(
      Effect.flatMap(openFolder(folder, "tokenizer"), (opened) => loadTokenizer(opened, 77)),
    );
    if (Exit.isSuccess(exit)) return exit.value.encode("ab ba");
    const error = Cause.squash(exit.cause);
    assert.ok(error instanceof BundleError, `${error}\n${JSON.stringify(files)}`);
  };

  it("the corpus is read or refused", async () => {
    for (const line of corpus.safetensors) readAll(bytesOf(line));
    for (const files of corpus.tokenizer) await readTokenizer({ "tokenizer_config.json": "{}", ...files });
    assert.ok(await readTokenizer({ "tokenizer.json": JSON.stringify(SOUND), "tokenizer_config.json": "{}" }));
  });

  it("safetensors: any bytes are read or refused", { timeout }, () => {
    fc.assert(fc.property(safetensors, readAll), { numRuns: INPUTS, seed: SEED, endOnFailure: true });
  });

  it("ONNX: any bytes are read or refused", { timeout }, async () => {
    assert.equal(await placeAll(SOUND_GRAPH), 3);
    await fc.assert(fc.asyncProperty(onnx, async (bytes) => void await placeAll(bytes)), {
      numRuns: INPUTS,
      seed: SEED,
      endOnFailure: true,
    });
  });

  it("tokenizer: any files are read or refused", { timeout }, async () => {
    const check = fc.asyncProperty(tokenizer, async (files) => void await readTokenizer(files));
    await fc.assert(check, { numRuns: Math.ceil(INPUTS / (INPUTS > 10_000 ? 1 : 5)), seed: SEED, endOnFailure: true });
  });
});
