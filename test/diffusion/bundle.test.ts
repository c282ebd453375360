import { after, describe, it } from "node:test";
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { mkdirSync, readFileSync, renameSync, rmSync, symlinkSync, truncateSync } from "node:fs";
import { join } from "node:path";
import { Effect } from "effect";
import { type Bundle, partWeights, readWeights, weightsBytes, withChanges } from "../../src/diffusion/bundle.ts";
import { openBundle, type Replacement } from "../../src/diffusion/bundle_open.ts";
import { BundleError } from "../../src/diffusion/errors.ts";
import { checkKeys } from "../../src/diffusion/keys.ts";
import { openScoringModel } from "../../src/diffusion/scoring.ts";
import { parseHeader, readTensor } from "../../src/tensor/safetensors.ts";
import { tensor } from "../../src/tensor/tensor.ts";
import { configs, put, tempFolder, tinyBundle, tinyWeights, weightsFile } from "../support/bundles.ts";
import { miniSd, noMiniSd } from "../support/mini_sd.ts";

const temp = tempFolder();
after(() => rmSync(temp, { recursive: true, force: true }));

const open = (path: string, replace: Replacement = {}): Promise<Bundle> =>
  Effect.runPromise(openBundle(path, { replace }));
const failure = async (path: string, replace: Replacement = {}): Promise<BundleError> => {
  const error = await Effect.runPromise(Effect.flip(openBundle(path, { replace })));
  assert.ok(error instanceof BundleError);
  return error;
};
const unetFile = (folder: string) => join(folder, "unet", "diffusion_pytorch_model.safetensors");
const hashOf = (path: string) => createHash("sha256").update(readFileSync(path)).digest("hex");

describe("bundle: opening", () => {
  it("reads parts, tokenizer, scheduler and the hash of every file it reads", async () => {
    const folder = tinyBundle(temp);
    const bundle = await open(folder);
    assert.deepEqual(Object.keys(bundle.parts).sort(), ["text_encoder", "unet", "vae"]);
    assert.equal(bundle.tokenizer.maxLength, 32);
    assert.equal(bundle.scheduler.num_train_timesteps, 1000);
    assert.equal(bundle.hashes.get("unet/weights"), hashOf(unetFile(folder)));
    assert.equal(bundle.hashes.get("tokenizer/tokenizer.json"), hashOf(join(folder, "tokenizer", "tokenizer.json")));
    assert.equal(bundle.hashes.size, 10);
    assert.deepEqual(bundle.notes, []);
  });
  it("takes an fp16 variant when there is no plain file, and the plain one when there are both", async () => {
    const folder = tinyBundle(
      temp,
      (f) => renameSync(unetFile(f), unetFile(f).replace(".safetensors", ".fp16.safetensors")),
    );
    assert.match((await open(folder)).parts.unet.file, /fp16/);
    put(unetFile(folder), weightsFile(tinyWeights.unet));
    assert.doesNotMatch((await open(folder)).parts.unet.file, /fp16/);
  });
  it("swaps a part given as its own folder, as a folder that holds it, or in a list", async () => {
    const folder = tinyBundle(temp);
    const attack = join(tinyBundle(temp), "..", "attack");
    put(join(attack, "unet", "config.json"), configs.unet);
    put(unetFile(attack), weightsFile({ ...tinyWeights.unet, "conv_in.bias": tensor(Float32Array.of(9, 9, 9), [3]) }));
    const unet = join(attack, "unet");
    for (const replace of [{ unet }, { unet: attack }, [unet], [attack]]) {
      const bundle = await open(folder, replace);
      assert.equal(bundle.parts.unet.folder.path, unet);
      assert.equal(bundle.parts.vae.folder.path, join(folder, "vae"));
      assert.match(bundle.notes.join(), /unet is taken from/);
    }
    assert.match((await failure(folder, [attack, unet])).message, /replaces unet, as .* does/);
    assert.match((await failure(folder, { text_encoder: attack })).message, /holds no text_encoder/);
    assert.match((await failure(folder, [temp])).message, /holds no part of a model/);
  });
  it("follows the links of Hugging Face's download cache, and no other link out of the folder", async () => {
    const cache = join(temp, "models--a--b");
    const snapshot = join(cache, "snapshots", "0123");
    mkdirSync(join(cache, "blobs"), { recursive: true });
    mkdirSync(join(cache, "snapshots"));
    renameSync(tinyBundle(temp), snapshot);
    const link = (target: string) => {
      renameSync(unetFile(snapshot), target);
      symlinkSync(target, unetFile(snapshot));
    };
    link(join(cache, "blobs", "abc"));
    await open(snapshot);
    rmSync(unetFile(snapshot));
    put(unetFile(snapshot), weightsFile(tinyWeights.unet));
    link(join(temp, "elsewhere.safetensors"));
    assert.match((await failure(snapshot)).message, /is a link that leaves its folder/);
  });
  it("does not follow a linked sub-folder out of the model", async () => {
    const folder = tinyBundle(temp, (f) => {
      renameSync(join(f, "vae"), join(temp, "vae-elsewhere"));
      symlinkSync(join(temp, "vae-elsewhere"), join(f, "vae"));
    });
    assert.match((await failure(folder)).message, /vae is a link that leaves its folder/);
  });
});

describe("bundle: folders that cannot be used are refused, with what to do", () => {
  const spoilt = (change: (folder: string) => void) => failure(tinyBundle(temp, change));
  const cases: [string, (folder: string) => void, RegExp][] = [
    [
      "no model_index.json",
      (f) => rmSync(join(f, "model_index.json")),
      /model_index.json is missing[^]*one .safetensors file/,
    ],
    [
      "another pipeline",
      (f) => put(join(f, "model_index.json"), { _class_name: "StableDiffusion3Pipeline" }),
      /StableDiffusion3Pipeline[^]*1.x or 2.x[^]*StableDiffusionXLPipeline/,
    ],
    [
      "an export to OpenVINO",
      (f) => put(join(f, "model_index.json"), { _class_name: "OVStableDiffusionPipeline" }),
      /OVStableDiffusionPipeline, an export[^]*Give the model it came from/,
    ],
    ["no unet", (f) => rmSync(join(f, "unet"), { recursive: true }), /unet is missing/],
    ["no config", (f) => rmSync(join(f, "vae", "config.json")), /config.json is missing/],
    ["a config that is not JSON", (f) => put(join(f, "vae", "config.json"), "{oops"), /config.json is not JSON/],
    [
      "another class",
      (f) => put(join(f, "unet", "config.json"), { _class_name: "FluxTransformer2DModel" }),
      /FluxTransformer2DModel[^]*UNet2DConditionModel/,
    ],
    ["no weights", (f) => rmSync(unetFile(f)), /holds no weights[^]*diffusion_pytorch_model.safetensors/],
    [
      "only pickles",
      (f) => renameSync(unetFile(f), join(f, "unet", "diffusion_pytorch_model.bin")),
      /no safetensors weights, only diffusion_pytorch_model.bin[^]*can run code[^]*safe_serialization/,
    ],
    [
      "an index that is no index",
      (f) => renameSync(unetFile(f), join(f, "unet", "diffusion_pytorch_model.safetensors.index.json")),
      /index.json is not JSON/,
    ],
    [
      "weights under another name",
      (f) => renameSync(unetFile(f), join(f, "unet", "mine.safetensors")),
      /unknown names: mine.safetensors/,
    ],
    [
      "a truncated file",
      (f) => truncateSync(unetFile(f), readFileSync(unetFile(f)).length - 5),
      /is truncated: its tensors need \d+ bytes, the file has \d+[^]*Fetch the file again/,
    ],
    ["an empty file", (f) => put(unetFile(f), ""), /has 0 bytes/],
    [
      "a web page in place of weights",
      (f) => put(unetFile(f), "<!DOCTYPE html><html>not found</html>"),
      /claims a header of/,
    ],
    ["no tokenizer", (f) => rmSync(join(f, "tokenizer"), { recursive: true }), /tokenizer is missing/],
    [
      "no scheduler config",
      (f) => rmSync(join(f, "scheduler", "scheduler_config.json")),
      /scheduler_config.json is missing/,
    ],
    [
      "an unknown noise schedule",
      (f) => put(join(f, "scheduler", "scheduler_config.json"), { beta_schedule: "cubic" }),
      /scheduler_config.json does not hold[^]*beta_schedule/,
    ],
    [
      "a text encoder of another width",
      (f) => put(join(f, "text_encoder", "config.json"), { ...configs.text_encoder, hidden_size: 9 }),
      /cross_attention_dim is 8, hidden_size there is 9/,
    ],
    [
      "a text encoder of fewer tokens",
      (f) => put(join(f, "text_encoder", "config.json"), { ...configs.text_encoder, vocab_size: 800 }),
      /has 800 tokens, the tokenizer has 870/,
    ],
  ];
  for (const [name, change, message] of cases) {
    it(name, async () => assert.match((await spoilt(change)).message, message));
  }

  it("values that are no numbers, with their tensor and their count, in every floating type", async () => {
    const bad = [NaN, Infinity, -Infinity, 1];
    for (const data of [Float32Array.from(bad), Float16Array.from(bad)]) {
      const error = await spoilt((f) =>
        put(unetFile(f), weightsFile({ a: tensor(Float32Array.of(1), [1]), "mid.weight": tensor(data, [4]) }))
      );
      assert.equal(error.key, "mid.weight");
      assert.match(error.message, /holds 3 values that are not finite numbers in mid.weight/);
    }
  });
  it("a folder, a file, or a hub name that is not there", async () => {
    assert.match((await failure("runwayml/stable-diffusion-v1-5")).message, /does not exist[^]*hf download runwayml/);
    assert.match(
      (await failure(join(temp, "no", "where"))).message,
      /does not exist[^]*Nearest folder that exists: .*sau-test-/,
    );
    assert.match((await failure(put(join(temp, "sd.ckpt"), ""))).message, /is a file[^]*Pickled/);
    assert.match((await failure(join(tinyBundle(temp), "unet"))).message, /This folder holds one part, a unet/);
  });
});

describe("bundle: keys", () => {
  const check = async (expected: Record<string, number[]>, change?: (folder: string) => void) =>
    checkKeys((await open(tinyBundle(temp, change))).parts.text_encoder, new Map(Object.entries(expected)));
  const name = "final_layer_norm.bias";
  const file = (f: string) => join(f, "text_encoder", "model.safetensors");

  it("finds CLIP's weights with and without their prefix, under the file's own name", async () => {
    assert.deepEqual(await Effect.runPromise(await check({ [name]: [2] })), new Map([[name, `text_model.${name}`]]));
    assert.deepEqual(
      await Effect.runPromise(await check({ [`text_model.${name}`]: [2] })),
      new Map([[`text_model.${name}`, `text_model.${name}`]]),
    );
    const bare = (f: string) =>
      put(
        file(f),
        weightsFile({
          [name]: tensor(Float32Array.of(1, 2), [2]),
          "embeddings.position_ids": tensor(Int32Array.of(0), [1]),
        }),
      );
    assert.deepEqual(
      await Effect.runPromise(await check({ [`text_model.${name}`]: [2] }, bare)),
      new Map([[`text_model.${name}`, name]]),
    );
  });
  it("finds an autoencoder's attention weights under their older names", async () => {
    const bundle = await open(
      tinyBundle(temp, (f) =>
        put(
          join(f, "vae", "diffusion_pytorch_model.safetensors"),
          weightsFile({ "a.proj_attn.weight": tensor(Float32Array.of(1), [1]) }),
        )),
    );
    const keys = await Effect.runPromise(checkKeys(bundle.parts.vae, new Map([["a.to_out.0.weight", [1]]])));
    assert.equal(keys.get("a.to_out.0.weight"), "a.proj_attn.weight");
  });
  it("lists what is missing, misshapen and unexpected at once", async () => {
    const error = await Effect.runPromise(
      Effect.flip(
        await check(
          { [name]: [3], gone: [1] },
          (f) =>
            put(
              file(f),
              weightsFile({ [name]: tensor(Float32Array.of(1, 2), [2]), odd: tensor(Float32Array.of(1), [1]) }),
            ),
        ),
      ),
    );
    assert.match(
      error.message,
      /1 missing \(gone\); 1 of another shape \(final_layer_norm.bias: \[2\], expected \[3\]\); 1 that the network does not have \(odd\)/,
    );
  });
});

describe("bundle: changes", () => {
  const change = new Map([["mid.weight", tensor(Float32Array.of(1, 0.1, -2, 0), [2, 2])]]);
  it("are a delta: the bundle they were made from stays as it was", async () => {
    const before = await open(tinyBundle(temp));
    const after = withChanges(before, "unet", change);
    assert.equal(before.changed.size, 0);
    assert.deepEqual(after.changed.get("unet"), change);
    const more = withChanges(after, "unet", new Map([["conv_in.bias", tensor(Float32Array.of(0, 0, 0), [3])]]));
    assert.deepEqual([...more.changed.get("unet")?.keys() ?? []], ["mid.weight", "conv_in.bias"]);
  });
  it("are patched into the file's own type, and no other byte changes", async () => {
    const bundle = await open(tinyBundle(temp));
    const [old, now] = await Promise.all(
      [bundle, withChanges(bundle, "unet", change)].map((b) => Effect.runPromise(weightsBytes(b, "unet"))),
    );
    assert.deepEqual(new Uint8Array(readFileSync(bundle.parts.unet.file)), old);
    const header = parseHeader(now, now.length, "now");
    assert.deepEqual(readTensor(now, header, "mid.weight").data, new Float32Array(Float16Array.of(1, 0.1, -2, 0)));
    const { begin, end } = header.entries.get("mid.weight") ?? { begin: 0, end: 0 };
    now.set(old.subarray(begin, end), begin);
    assert.deepEqual(now, old);
    assert.deepEqual(
      (await Effect.runPromise(readWeights(withChanges(bundle, "unet", change), "unet", ["mid.weight"])))[0].dims,
      [2, 2],
    );
  });
  it("of unknown keys or other shapes are refused", async () => {
    const bundle = await open(tinyBundle(temp));
    for (const [key, dims] of [["nowhere", [1]], ["conv_in.bias", [1]]] as const) {
      const changed = withChanges(bundle, "unet", new Map([[key, tensor(Float32Array.of(1), [...dims])]]));
      assert.equal((await Effect.runPromise(Effect.flip(weightsBytes(changed, "unet")))).key, key);
    }
  });
  it("a file that changes while the model is in use is noticed", async () => {
    const bundle = await open(tinyBundle(temp));
    put(bundle.parts.unet.file, weightsFile(tinyWeights.vae));
    assert.match(
      (await Effect.runPromise(Effect.flip(weightsBytes(bundle, "unet")))).message,
      /was changed while it was in use/,
    );
  });
  it("weights for a graph lie where the file has them; types that no graph takes become float32", async () => {
    const bundle = await open(tinyBundle(temp));
    const { external: [{ data }], locate } = await Effect.runPromise(partWeights(bundle, "text_encoder"));
    const place = locate("final_layer_norm.bias");
    assert.equal(place.dtype, "float16");
    assert.deepEqual(
      data.subarray(place.offset, place.offset + place.length),
      new Uint8Array(Float16Array.of(1, 2).buffer),
    );
    assert.throws(() => locate("nowhere"), BundleError);
    const python = new URL("../golden/python.safetensors", import.meta.url);
    const foreign = await open(tinyBundle(temp, (f) => put(unetFile(f), new Uint8Array(readFileSync(python)))));
    const weights = await Effect.runPromise(partWeights(foreign, "unet"));
    const bf16 = weights.locate("bf16");
    assert.equal(bf16.dtype, "float32");
    assert.equal(bf16.length, 4 * 12);
  });
});

describe("bundle: a scoring CLIP", () => {
  const clip = (files: Record<string, object> = {}) => {
    const folder = join(temp, `clip-${Math.random()}`);
    put(join(folder, "config.json"), { architectures: ["CLIPModel"], text_config: { vocab_size: 870 } });
    put(join(folder, "model.safetensors"), weightsFile(tinyWeights.vae));
    for (const [name, content] of Object.entries(files)) put(join(folder, name), content);
    return folder;
  };
  it("takes its normalisation from preprocessor_config.json, and the model's tokenizer when it has none", async () => {
    const { tokenizer } = await open(tinyBundle(temp));
    const openClip = (folder: string) => Effect.runPromise(openScoringModel(folder, tokenizer));
    const bare = await openClip(clip());
    assert.equal(bare.tokenizer, tokenizer);
    assert.deepEqual(bare.normalisation.mean, [0.5, 0.5, 0.5]);
    assert.equal(bare.notes.length, 2);
    const own = await openClip(
      clip({ "preprocessor_config.json": { image_mean: [0.1, 0.2, 0.3], image_std: [1, 2, 3] } }),
    );
    assert.deepEqual(own.normalisation, { mean: [0.1, 0.2, 0.3], std: [1, 2, 3] });
    const few = clip({ "config.json": { architectures: ["CLIPModel"], text_config: { vocab_size: 5 } } });
    assert.match((await Effect.runPromise(Effect.flip(openScoringModel(few, tokenizer)))).message, /knows 5 tokens/);
  });
});

describe("bundle: mini-SD", { skip: noMiniSd }, () => {
  it("opens, alone and with each attack's part", async () => {
    const base = join(miniSd ?? "", "base");
    assert.ok((await open(base)).parts.unet.header.entries.size > 100);
    const attacked = await open(base, [join(miniSd ?? "", "attacks", "eviledit")]);
    assert.notEqual(attacked.parts.unet.sha256, (await open(base)).parts.unet.sha256);
  });
});
