/** Exports to ONNX: every weight found again by who uses it, computed with, cured and saved; and what is refused. */
import assert from "node:assert/strict";
import {
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { Effect, Result } from "effect";
import { type Bundle, partWeights, readWeights, withChanges } from "../../src/diffusion/bundle.ts";
import { openBundle } from "../../src/diffusion/bundle_open.ts";
import { openFolder } from "../../src/diffusion/files.ts";
import { inspect } from "../../src/diffusion/inspect.ts";
import { checkBundle, openSession } from "../../src/diffusion/networks.ts";
import { openPart, type Part, type PartName } from "../../src/diffusion/part.ts";
import { openDecoder } from "../../src/diffusion/pictures.ts";
import { saveBundle } from "../../src/diffusion/save.ts";
import { openTextEncoder } from "../../src/diffusion/text.ts";
import { networkWeights } from "../../src/diffusion/whole_network.ts";
import { Graph } from "../../src/graph/mod.ts";
import { Writer } from "../../src/graph/protobuf.ts";
import { parseUnetConfig, unetCondition } from "../../src/models/unet_2d_condition.ts";
import { native } from "../../src/runtime/native.ts";
import { toHost } from "../../src/runtime/mod.ts";
import { type Tensor, tensor } from "../../src/tensor/tensor.ts";
import { tempFolder } from "../support/bundles.ts";
import { tensorsOf } from "../support/forms.ts";
import { LIMIT, relativeError } from "../support/golden.ts";
import { exportAnswers, knownWeight, unpackExport } from "../support/onnx.ts";
import { withRuntime } from "../support/runtime.ts";

/** Computing takes longer on a busy machine than Bun gives a test by itself. */
const patient = { timeout: 120_000 };
const temp = tempFolder();
after(() => rmSync(temp, { recursive: true, force: true }));
const fresh = (): string => mkdtempSync(join(temp, "t-"));
const open = (folder: string) => Effect.runPromise(openBundle(folder));
const failure = async (folder: string) => (await Effect.runPromise(Effect.flip(openBundle(folder)))).message;
const partOf = (name: PartName, folder: string) =>
  Effect.runPromise(Effect.flatMap(openFolder(folder, "part"), (found) => openPart(name, found)));

/** As diffusers and transformers name it. */
const fullName = (part: PartName, key: string) => part === "text_encoder" ? `text_model.${key}` : key;

/** Every tensor of a part's network must be there once and be, to the bit, what the export was made of. */
const checkPart = async (part: Part): Promise<void> => {
  const expected = await Effect.runPromise(networkWeights(part));
  assert.deepEqual([...part.header.entries.keys()].sort(), [...expected.keys()].sort());
  const names = [...expected.keys()];
  const found = await Effect.runPromise(
    readWeights({ parts: { [part.name]: part }, changed: new Map() }, part.name, names),
  );
  names.forEach((name, i) => {
    const dims = expected.get(name) ?? [];
    assert.deepEqual(found[i].dims, dims, name);
    const want = knownWeight(fullName(part.name, name), dims);
    assert.ok(found[i].data.every((x, j) => x === want[j]), `${part.name} ${name}`);
  });
};

const sample = tensor(Float32Array.from({ length: 256 }, (_, i) => -1 + 2 * i / 255), [1, 4, 8, 8]);

/** The U-Net's answer, of a part whose weights a session reads. */
const noiseOf = (bundle: Pick<Bundle, "parts" | "changed">, context: Tensor) =>
  Effect.gen(function* () {
    const g = new Graph();
    const inputs = {
      sample: g.input("sample", "float32", sample.dims),
      timestep: g.input("timestep", "float32", [1]),
      context: g.input("context", "float32", context.dims),
    };
    g.output("noise", unetCondition(parseUnetConfig(bundle.parts.unet.config))(g.weights("unet"), inputs).noise);
    const session = yield* openSession("unet", g, bundle, "unet");
    const { noise } = yield* session.run({ sample, timestep: tensor(Float32Array.of(300), [1]), context });
    const { data, dims } = yield* toHost(noise);
    return tensor(Float32Array.from(data, Number), dims);
  });

describe("ONNX exports: weights", patient, () => {
  let sd = "";
  before(() => {
    sd = unpackExport("sd", fresh());
  });

  it("a whole pipeline of Optimum's: the weights it was made of, to the bit, and what diffusers answers", async () => {
    const bundle = await open(sd);
    await Effect.runPromise(checkBundle(bundle));
    for (const part of Object.values(bundle.parts)) await checkPart(part);
    assert.deepEqual(bundle.parts.unet.files.map(({ path }) => path.slice(sd.length + 1)), [
      "unet/model.onnx",
      "unet/model.onnx_data",
    ]);
    assert.match(
      bundle.notes.join("\n"),
      /unet: read from an ONNX export, \d+ tensors, of which \d+ stand turned over and \d\d share/,
    );
    assert.match(bundle.notes.join("\n"), /vae_decoder and vae_encoder: read from an ONNX export/);
    const golden = exportAnswers();
    const ids = [[868, 869].map((n) => n - 868 + bundle.tokenizer.vocabSize - 2)].map(([bos, eos]) => [
      bos,
      10,
      20,
      ...new Array(13).fill(eos),
    ]);
    const [hidden, noise, picture] = await withRuntime(Effect.gen(function* () {
      const texts = yield* (yield* openTextEncoder(bundle))(ids);
      return [
        texts,
        yield* noiseOf(bundle, golden["sd.hidden"]),
        yield* (yield* openDecoder(bundle, 8, 8))({
          dims: sample.dims,
          data: sample.data.map((x) => x * Number(bundle.parts.vae.config.scaling_factor)),
        }),
      ];
    }));
    assert.ok(relativeError(hidden, golden["sd.hidden"]) < LIMIT);
    assert.ok(relativeError(noise, golden["sd.noise"]) < LIMIT);
    // Pictures lie between 0 and 1.
    const shown = golden["sd.picture"].data.map((x) => Math.min(1, Math.max(0, x / 2 + 0.5)));
    assert.ok(relativeError(picture, tensor(shown, picture.dims)) < LIMIT);
  });

  it("torch's newer exporter: the same weights", async () => {
    const newer = unpackExport("sd-dynamo", fresh());
    const folder = unpackExport("sd", fresh());
    for (const part of ["unet", "text_encoder"] as const) {
      rmSync(join(folder, part, "model.onnx_data"), { force: true });
      for (const file of readdirSync(join(newer, part))) renameSync(join(newer, part, file), join(folder, part, file));
    }
    const bundle = await open(folder);
    await Effect.runPromise(checkBundle(bundle));
    for (const part of Object.values(bundle.parts)) await checkPart(part);
  });

  it("SDXL's U-Net and second text encoder", async () => {
    const xl = unpackExport("xl", fresh());
    for (const part of ["unet", "text_encoder_2"] as const) await checkPart(await partOf(part, join(xl, part)));
  });

  it("a model saved by Optimum's own pipelines says so in model_index.json and in its configs", async () => {
    const folder = unpackExport("sd", fresh());
    const file = join(folder, "model_index.json");
    const ort = ["optimum.onnxruntime.modeling_diffusion", "ORTUnet"];
    const index = { ...JSON.parse(readFileSync(file, "utf8")), unet: ort, vae_encoder: ort, vae_decoder: ort };
    delete index.vae;
    writeFileSync(file, JSON.stringify({ ...index, _class_name: "ORTStableDiffusionPipeline" }));
    const classes = {
      unet: "ORTUnet",
      vae_decoder: "ORTVaeDecoder",
      vae_encoder: "ORTVaeEncoder",
      text_encoder: "ORTTextEncoder",
    };
    for (const [part, name] of Object.entries(classes)) {
      const path = join(folder, part, "config.json");
      writeFileSync(path, JSON.stringify({ ...JSON.parse(readFileSync(path, "utf8")), _class_name: name }));
    }
    const { index: understood, parts } = await open(folder);
    assert.deepEqual(
      [parts.unet, parts.vae, parts.text_encoder].map(({ config }) => config._class_name),
      ["UNet2DConditionModel", "AutoencoderKL", undefined],
    );
    const seen = await Effect.runPromise(inspect(folder));
    assert.deepEqual(seen.parts.map((part) => part.class).sort(), [
      "AutoencoderKL",
      "CLIPTextModel",
      "UNet2DConditionModel",
    ]);
    assert.equal(understood._class_name, "StableDiffusionPipeline");
    assert.deepEqual(understood.unet, ["diffusers", "UNet2DConditionModel"]);
    assert.deepEqual(understood.vae, ["diffusers", "AutoencoderKL"]);
    assert.ok(!("vae_decoder" in understood));
  });

  it("configs that an exporter did not save come from a folder that describes the model", async () => {
    const folder = unpackExport("sd", fresh());
    const described = fresh();
    for (const [part, from] of [["unet", "unet"], ["text_encoder", "text_encoder"], ["vae", "vae_decoder"]]) {
      mkdirSync(join(described, part));
      renameSync(join(folder, from, "config.json"), join(described, part, "config.json"));
    }
    assert.match(await failure(folder), /config.json is missing[^]*--config/);
    const bundle = await Effect.runPromise(openBundle(folder, { config: described }));
    for (const part of Object.values(bundle.parts)) await checkPart(part);
    assert.ok(bundle.hashes.has("config/unet/config.json"));
    const out = join(fresh(), "out");
    await Effect.runPromise(saveBundle(bundle, out));
    await Effect.runPromise(checkBundle(await open(out)));
  });

  const found = Effect.runPromise(Effect.scoped(Effect.result(native().find({ software: false }))));
  it("an engine that reads files by itself is given places in the data file, turned over in the graph", async (t) => {
    const bundle = await open(sd);
    const key = "down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k.weight";
    const { locate, folder, external } = await Effect.runPromise(partWeights(bundle, "unet", { files: true }));
    assert.match(folder?.path ?? "", /unet$/);
    assert.equal(external.length, 0);
    const place = locate(key);
    assert.deepEqual([place.path, place.turned, place.bytes], ["model.onnx_data", true, undefined]);
    // Small tensors lie within the graph's file, and there at odd places as it happens.
    const within = bundle.parts.unet.files[0].header.entries.keys().map((name) => locate(name)).toArray();
    const held = within.filter(({ bytes }) => bytes !== undefined);
    assert.ok(held.length > 0 && within.every(({ bytes, offset }) => bytes !== undefined || offset % 4 === 0));
    if (Result.isFailure(await found)) return t.skip("onnxruntime-node is not installed");
    const g = new Graph();
    g.output("out", g.weights("unet")(key, place.dims));
    const out = await withRuntime(
      Effect.gen(function* () {
        const session = yield* openSession("one weight", g, bundle, "unet");
        const answers = yield* noiseOf(bundle, exportAnswers()["sd.hidden"]);
        assert.ok(relativeError(answers, exportAnswers()["sd.noise"]) < LIMIT);
        return yield* toHost((yield* session.run({})).out);
      }),
      "native",
    );
    assert.deepEqual(Float32Array.from(out.data, Number), knownWeight(key, place.dims));
  });

  it("is cured as a diffusers folder of safetensors; of tensors that shared bytes the changed one changes alone", async () => {
    const bundle = await open(sd);
    const files = (folder: string) =>
      readdirSync(folder, { recursive: true, encoding: "utf8" }).filter((f) => /\.\w+$/.test(f)).sort();
    const before = files(sd).map((file) => readFileSync(join(sd, file)));
    const [shared, turned] = [
      "down_blocks.0.resnets.0.norm2.weight",
      "mid_block.attentions.0.transformer_blocks.0.attn1.to_q.weight",
    ];
    const values = await Effect.runPromise(readWeights(bundle, "unet", [shared, turned]));
    const changes = new Map(
      [shared, turned].map((key, i) => [key, tensor(values[i].data.map((x) => x + 0.25), values[i].dims)] as const),
    );
    const out = join(fresh(), "cured");
    const saved = await Effect.runPromise(saveBundle(withChanges(bundle, "unet", changes), out));
    assert.match(saved.exported.join(), /came as ONNX, the cure is a diffusers folder[^]*still hold the backdoor/);
    assert.deepEqual(files(out), [
      "model_index.json",
      "sau.json",
      "scheduler/scheduler_config.json",
      "text_encoder/config.json",
      "text_encoder/model.safetensors",
      "tokenizer/merges.txt",
      "tokenizer/special_tokens_map.json",
      "tokenizer/tokenizer_config.json",
      "tokenizer/vocab.json",
      "unet/config.json",
      "unet/diffusion_pytorch_model.safetensors",
      "vae/config.json",
      "vae/diffusion_pytorch_model.safetensors",
    ]);
    for (const part of ["unet", "text_encoder", "vae"] as const) {
      const stem = part === "text_encoder" ? "model" : "diffusion_pytorch_model";
      const tensors = tensorsOf(join(out, part, `${stem}.safetensors`));
      assert.equal(tensors.size, bundle.parts[part].header.entries.size);
      for (const [name, { data, dims }] of tensors) {
        const want = part === "unet" ? changes.get(name)?.data : undefined;
        assert.deepEqual(data, want ?? knownWeight(name, dims), name);
      }
    }
    const { comparison, findings, parts } = await Effect.runPromise(inspect(sd, out));
    assert.deepEqual(parts.map(({ name, tensors }) => [name, tensors.length]).sort(), [
      ["text_encoder", bundle.parts.text_encoder.header.entries.size],
      ["unet", bundle.parts.unet.header.entries.size],
      ["vae", bundle.parts.vae.header.entries.size],
    ]);
    assert.deepEqual(findings.filter(({ severity }) => severity === "warn"), []);
    assert.deepEqual(
      comparison?.parts.flatMap(({ name, tensors }) =>
        tensors.filter(({ state }) => state !== "same").map(({ key }) => `${name} ${key}`)
      ).sort(),
      [shared, turned].map((key) => `unet ${key}`).sort(),
    );
    const again = await open(out);
    await Effect.runPromise(checkBundle(again));
    assert.equal(again.parts.unet.sha256, saved.sha256.get("unet"));
    assert.deepEqual(files(sd).map((file) => readFileSync(join(sd, file))), before);
  });
});

/** A graph of a few nodes and constants, as an ONNX file. */
const graphOf = (
  constants: ReadonlyArray<
    { name: string; dims: number[]; raw?: Uint8Array; external?: Record<string, string>; type?: number }
  >,
  nodes: ReadonlyArray<{ type: string; inputs: string[]; name?: string; domain?: string }> = [],
): Uint8Array => {
  const graph = new Writer();
  for (const { type, inputs, name = "", domain = "" } of nodes) {
    const node = new Writer();
    for (const input of inputs) node.string(1, input);
    graph.message(1, node.string(2, `${name}_out`).string(3, name).string(4, type).string(7, domain));
  }
  for (const { name, dims, raw, external, type = 1 } of constants) {
    const t = new Writer();
    for (const d of dims) t.int(1, d);
    t.int(2, type).string(8, name);
    if (raw !== undefined) t.bytes(9, raw);
    for (const [key, value] of Object.entries(external ?? {})) {
      t.message(13, new Writer().string(1, key).string(2, value));
    }
    graph.message(5, external === undefined ? t : t.int(14, 1));
  }
  return new Writer().int(1, 8).string(2, "test").message(7, graph).finish();
};

describe("ONNX exports: what cannot be read is refused, with what was found and what to do", patient, () => {
  const unet = (bytes: Uint8Array): string => {
    const folder = unpackExport("sd", fresh());
    writeFileSync(join(folder, "unet/model.onnx"), bytes);
    return folder;
  };
  const conv = { name: "conv_in.weight", dims: [8, 4, 3, 3] };
  const taken = [{ type: "Conv", inputs: ["x", "conv_in.weight"], name: "/conv_in/Conv" }];
  const at = (location: string, more: Record<string, string> = {}) => ({ ...conv, external: { location, ...more } });
  const cases: [string, () => Uint8Array, RegExp][] = [
    ["no ONNX file at all", () => new TextEncoder().encode("<html>not found</html>"), /unet\/model.onnx[^]*at byte 0/],
    ["an empty file", () => new Uint8Array(), /holds no graph/],
    ["a number without an end", () => new Uint8Array(30).fill(0xff), /more than 10 bytes/],
    [
      "a path out of the folder",
      () => graphOf([at("../text_encoder/model.onnx")], taken),
      /lies in "\.\.\/text_encoder\/model\.onnx"[^]*do not trust/,
    ],
    ["data that is missing", () => graphOf([at("other.data")], taken), /"other.data", which is not there/],
    [
      "data beyond the file's end",
      () => graphOf([at("model.onnx_data", { offset: "99999999" })], taken),
      /is truncated: conv_in.weight/,
    ],
    [
      "a position that is none",
      () => graphOf([at("model.onnx_data", { offset: "-1" })], taken),
      /gives "-1" as a position/,
    ],
    [
      "a length that is not the shape's",
      () => graphOf([at("model.onnx_data", { length: "4" })], taken),
      /4 bytes; its shape/,
    ],
    [
      "huge dimensions",
      () => graphOf([{ name: "w", dims: [2 ** 40, 2 ** 40] }]),
      /claims the shape \[1099511627776, 1099511627776\]/,
    ],
    ["negative dimensions", () => graphOf([{ name: "w", dims: [-1, 2] }]), /claims the shape \[-1, 2\]/],
    ["many dimensions", () => graphOf([{ name: "w", dims: new Array(40).fill(1) }]), /more than 8 dimensions/],
    [
      "bytes that do not fill the shape",
      () => graphOf([{ ...conv, raw: new Uint8Array(8) }], taken),
      /holds 8 bytes for conv_in.weight/,
    ],
    [
      "a constant twice",
      () => graphOf([{ ...conv, external: { location: "a" } }, { ...conv, external: { location: "a" } }]),
      /holds conv_in.weight twice/,
    ],
    [
      "weights that are missing",
      () => graphOf([], taken),
      /lacks \d+ of the \d+ tensors[^]*conv_in[^]*Export the model again/,
    ],
    [
      "weights of another shape",
      () => graphOf([{ name: "conv_in.weight", dims: [1, 1], raw: new Uint8Array(4) }], taken),
      /1 weights that config.json's network does not have \(conv_in.weight \[1, 1\]/,
    ],
    [
      "a weight that the network does not have",
      () =>
        graphOf([{ name: "w", dims: [2, 2], raw: new Uint8Array(16) }], [{
          type: "MatMul",
          inputs: ["x", "w"],
          name: "/extra/MatMul",
        }]),
      /w \[2, 2\], which a MatMul in extra takes/,
    ],
    [
      "nodes without modules",
      () =>
        graphOf([{ name: "onnx::MatMul_1", dims: [2, 2], raw: new Uint8Array(16) }], [{
          type: "MatMul",
          inputs: ["x", "onnx::MatMul_1"],
          name: "MatMul_7",
        }]),
      /MatMul in no named module[^]*PyTorch 1.13/,
    ],
    [
      "two constants for one weight",
      () =>
        graphOf(["a", "b"].map((name) => ({ name, dims: [8], raw: new Uint8Array(32) })), [
          { type: "Add", inputs: ["x", "a"], name: "/conv_in/Add" },
          { type: "Add", inputs: ["x", "b"], name: "/conv_in/Add_1" },
        ]),
      /two tensors that could be conv_in.bias: a \[8\] and b \[8\]/,
    ],
    [
      "an optimised graph",
      () =>
        graphOf([], [{
          type: "MultiHeadAttention",
          inputs: [],
          domain: "com.microsoft",
          name: "/mid_block/MultiHeadAttention",
        }]),
      /optimised for one program: it has a MultiHeadAttention of com.microsoft in mid_block/,
    ],
    [
      "a quantised graph",
      () => graphOf([], [{ type: "MatMulInteger", inputs: [], name: "/a/MatMulInteger" }]),
      /is quantised/,
    ],
  ];
  for (const [name, bytes, message] of cases) {
    it(name, async () => assert.match(await failure(unet(bytes())), message));
  }

  it("a graph that is cut off, at many places", async () => {
    const folder = unpackExport("sd", fresh());
    const file = join(folder, "unet/model.onnx");
    const whole = readFileSync(file);
    for (let n = 1; n < 24; n++) {
      writeFileSync(file, whole.subarray(0, Math.floor(whole.length * n / 24)));
      assert.match(await failure(folder), /unet\/model.onnx[^]*is truncated/);
    }
  });

  it("data that was cut off, or is a link that leaves the folder", async () => {
    const folder = unpackExport("sd", fresh());
    const file = join(folder, "unet/model.onnx_data");
    const whole = readFileSync(file);
    writeFileSync(file, whole.subarray(0, whole.length - 8));
    assert.match(await failure(folder), /model.onnx_data[^]*is truncated/);
    rmSync(file);
    const elsewhere = join(fresh(), "secret");
    writeFileSync(elsewhere, whole);
    symlinkSync(elsewhere, file);
    assert.match(await failure(folder), /is a link that leaves its folder/);
  });

  it("values that are no numbers", async () => {
    const folder = unpackExport("sd", fresh());
    const file = join(folder, "unet/model.onnx_data");
    const whole = readFileSync(file);
    whole.fill(0xff, 0, 8);
    writeFileSync(file, whole);
    assert.match(await failure(folder), /values that are not finite numbers/);
  });

  it("a graph under another name, and a VAE of one half", async () => {
    const folder = unpackExport("sd", fresh());
    renameSync(join(folder, "unet/model.onnx"), join(folder, "unet/model_quantized.onnx"));
    assert.match(await failure(folder), /under another name than model.onnx: model_quantized.onnx/);
    const half = unpackExport("sd", fresh());
    rmSync(join(half, "vae_encoder"), { recursive: true });
    assert.match(await failure(half), /vae_encoder[^]*is missing/);
  });
});
