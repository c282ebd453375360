import assert from "node:assert/strict";
import { existsSync, readFileSync, rmSync, statSync } from "node:fs";
import { join } from "node:path";
import { after, describe, it } from "node:test";
import { Effect, Result } from "effect";
import fc from "fast-check";
import { type Bundle, withChanges } from "../../src/diffusion/bundle.ts";
import { openBundle } from "../../src/diffusion/bundle_open.ts";
import { BundleError } from "../../src/diffusion/errors.ts";
import { loraLayers, openLora } from "../../src/diffusion/lora_file.ts";
import { curedLora } from "../../src/diffusion/lora_cure.ts";
import { pairDelta, withLoras } from "../../src/diffusion/lora_merge.ts";
import { layerFinder, ldmName, madeFor, newLoraKeys, parseLoraKey } from "../../src/diffusion/lora_names.ts";
import { networkKeys } from "../../src/diffusion/networks.ts";
import { readWeights } from "../../src/diffusion/weights.ts";
import { ModelPort } from "../../src/steps/ports.ts";
import { loraWeights } from "../../src/steps/unlearn_changes.ts";
import { matmul } from "../../src/tensor/linalg.ts";
import { normal } from "../../src/tensor/random.ts";
import { write } from "../../src/tensor/safetensors.ts";
import { size, type Tensor, type TensorData } from "../../src/tensor/tensor.ts";
import { goldenLora, loraModel, readFileTensors } from "../support/lora_model.ts";
import { put, tempFolder } from "../support/bundles.ts";

const temp = tempFolder();
after(() => rmSync(temp, { recursive: true, force: true }));
const model = loraModel(join(temp, "model"));
const opened = Effect.runPromise(openBundle(model));

const CASES = ["kohya", "kohya-ldm", "kohya-no-alpha", "peft", "peft-metadata", "diffusers", "processor"] as const;
/** The weight at which diffusers merged them. */
const strength = (name: string): number => Number(readFileTensors(goldenLora(`${name}.fused`)).header.metadata.weight);
const mergedWith = async (file: string, weight = 1): Promise<Bundle> =>
  await Effect.runPromise(withLoras(await opened, [{ file, weight }]));
const norm = (data: Float32Array): number => Math.sqrt(data.reduce((n, x) => n + x * x, 0));

const patient = { timeout: 120_000 };

describe("LoRAs merged as diffusers merges them", () => {
  for (const name of CASES) {
    it(name, async () => {
      const { tensors } = readFileTensors(goldenLora(`${name}.fused`));
      const merged = await mergedWith(goldenLora(name), strength(name));
      const changed = new Map(
        [...merged.changed.values()].flatMap((values) => [...values]).map(([key, value]) =>
          [key.startsWith("encoder.") ? `text_model.${key}` : key, value] as const
        ),
      );
      assert.deepEqual([...changed.keys()].sort(), [...tensors.keys()].map((key) => `${key}.weight`).sort());
      for (const [key, wanted] of tensors) {
        const got = changed.get(`${key}.weight`)!;
        assert.deepEqual(got.dims, wanted.dims);
        const largest = Math.max(...wanted.data.map(Math.abs));
        wanted.data.forEach((x, i) => {
          const error = Math.abs(got.data[i] - x) / largest;
          assert.ok(error <= 1e-5, `${key}[${i}] is ${got.data[i]}, diffusers has ${x}`);
        });
      }
    });
  }

  it("several are merged one over the other, and the model's notes and hashes name them", async () => {
    const uses = [{ file: goldenLora("kohya"), weight: 1 }, { file: goldenLora("kohya"), weight: -1 }];
    const merged = await Effect.runPromise(withLoras(await opened, uses));
    const base = await opened;
    for (const [part, values] of merged.changed) {
      const old = await Effect.runPromise(readWeights(base, part, [...values.keys()]));
      [...values.values()].forEach(({ data }, i) =>
        data.forEach((x, at) => assert.ok(Math.abs(x - old[i].data[at]) < 1e-6))
      );
    }
    assert.equal([...merged.hashes.keys()].filter((key) => key.startsWith("lora/")).length, 2);
    assert.match(
      merged.notes.join(),
      /kohya\.safetensors is merged at weight -1 \(16 layers of unet and 4 layers of text_encoder, rank 2 to 3\)/,
    );
  });

  it("a convolution in three factors (LoCon) is their product", () => {
    const [rank, inner, out] = [2, 3, 4];
    const down = normal(1, [rank, inner, 1, 1]), mid = normal(2, [rank, rank, 3, 3]), up = normal(3, [out, rank, 1, 1]);
    const layer = { part: "unet", name: "conv", key: "conv.weight", dims: [out, inner, 3, 3] } as const;
    const delta = pairDelta({ rank, scale: 0.5, layer }, down, up, mid);
    // Directly by the definition: Σᵢⱼ up[o, i] mid[i, j, k] down[j, n].
    for (let o = 0; o < out; o++) {
      for (let n = 0; n < inner; n++) {
        for (let k = 0; k < 9; k++) {
          let sum = 0;
          for (let i = 0; i < rank; i++) {
            for (let j = 0; j < rank; j++) {
              sum += up.data[o * rank + i] * mid.data[(i * rank + j) * 9 + k] * down.data[j * inner + n];
            }
          }
          assert.ok(Math.abs(delta[(o * inner + n) * 9 + k] - 0.5 * sum) < 1e-5);
        }
      }
    }
  });

  it("a U-Net's layers have the names of the original checkpoints", () => {
    // Stable Diffusion 1.x: layers_per_block 2.
    const names = {
      "down_blocks.0.attentions.0.proj_in": "input_blocks.1.1.proj_in",
      "down_blocks.0.downsamplers.0.conv": "input_blocks.3.0.op",
      "down_blocks.2.resnets.1.conv1": "input_blocks.8.0.in_layers.2",
      "mid_block.attentions.0.proj_out": "middle_block.1.proj_out",
      "mid_block.resnets.1.conv2": "middle_block.2.out_layers.3",
      "up_blocks.3.attentions.2.transformer_blocks.0.attn2.to_k": "output_blocks.11.1.transformer_blocks.0.attn2.to_k",
      "conv_out": "out.2",
    };
    for (const [name, wanted] of Object.entries(names)) assert.equal(ldmName(name, 2), wanted);
  });
});

const ATTN2 = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k";
const file = (
  tensors: Record<string, Tensor<TensorData>>,
  metadata?: Record<string, string>,
  name = "lora.safetensors",
) => put(join(temp, crypto.randomUUID(), name), write(new Map(Object.entries(tensors)), metadata));
const pair = (stem: string, rank: number, [out, inner]: readonly [number, number] = [8, 16]) => ({
  [`${stem}.lora_down.weight`]: normal(1, [rank, inner]),
  [`${stem}.lora_up.weight`]: normal(2, [out, rank]),
});
const refused = async (path: string, ...expected: readonly RegExp[]) => {
  const error = await Effect.runPromise(Effect.flip(openLora(await opened, path)));
  assert.ok(error instanceof BundleError);
  for (const pattern of expected) assert.match(error.message, pattern);
};

describe("what is no LoRA for this model is refused in plain words", () => {
  const nothing = normal(1, [2, 2]);
  it("layers that the model does not have, with the nearest", async () => {
    await refused(
      file({ ...pair(ATTN2, 2), ...pair(ATTN2.replace("down_blocks_0", "down_blocks_7"), 2) }),
      /names 1 of 2 layers that this model does not have: .*down_blocks_7/,
      /nearest to the first is down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k/,
    );
  });
  it("a LoRA for SDXL, by its names and by its metadata", async () => {
    const stem = "lora_unet_input_blocks_7_1_transformer_blocks_9_attn2_to_k";
    await refused(file(pair(stem, 2)), /made for SDXL/);
    await refused(file(pair("lora_te2_text_model_encoder_layers_0_mlp_fc1", 2)), /made for SDXL/);
    assert.equal(madeFor([], { ss_base_model_version: "sdxl_base_v1-0" }), "SDXL");
    assert.equal(madeFor(["lora_unet_double_blocks_0_img_attn_qkv.alpha"], {}), "FLUX");
    assert.equal(madeFor([`${ATTN2}.alpha`], {}), undefined);
  });
  it("one factor without the other", async () => {
    const { [`${ATTN2}.lora_up.weight`]: up } = pair(ATTN2, 2);
    await refused(file({ [`${ATTN2}.lora_up.weight`]: up }), /holds only one factor of .*attn2\.to_k/);
  });
  it("shapes that do not fit", async () => {
    await refused(file(pair(ATTN2, 2, [8, 24])), /takes down \[r, 16\] and up \[8, r\]/, /another width/);
    const wrong = { ...pair(ATTN2, 2), [`${ATTN2}.lora_up.weight`]: normal(1, [8, 3]) };
    await refused(file(wrong), /up \[8, 3\]/);
  });
  it("rank 0, and ranks beyond all reason", async () => {
    await refused(file(pair(ATTN2, 0)), /the rank 0/);
    await refused(file(pair(ATTN2, 5000)), /the rank 5000/, /from 1 to 4096/);
  });
  it("values that are no numbers", async () => {
    const bad = pair(ATTN2, 2);
    bad[`${ATTN2}.lora_down.weight`].data[3] = NaN;
    await refused(file(bad), /1 values that are not finite/);
  });
  it("an alpha that no training makes", async () => {
    for (const alpha of [1e9, 0, Infinity]) {
      const tensors = { ...pair(ATTN2, 2), [`${ATTN2}.alpha`]: { dims: [], data: Float32Array.of(alpha) } };
      await refused(file(tensors), /scales the change of .* by|not finite/);
    }
    const wide = { ...pair(ATTN2, 2), [`${ATTN2}.alpha`]: normal(1, [64]) };
    await refused(file(wide), /one number/);
  });
  it("pickles, by their name and by their first bytes", async () => {
    for (const name of ["lora.pt", "lora.bin", "lora.ckpt"]) {
      await refused(
        file(pair(ATTN2, 2), {}, name),
        /is a pickled LoRA/,
        /not read here/,
        /safetensors\.torch\.save_file/,
      );
    }
    await refused(put(join(temp, "zip.safetensors"), "PK\u0003\u0004 and so on"), /is a pickled LoRA/);
    await refused(
      put(join(temp, "pickle.safetensors"), Uint8Array.of(0x80, 2, 0x7d, 0, 0, 0, 0, 0)),
      /is a pickled LoRA/,
    );
  });
  it("relatives of LoRA, by name", async () => {
    const relatives = {
      [`${ATTN2}.dora_scale`]: /DoRA/,
      "unet.conv_in.lora_magnitude_vector": /DoRA/,
      [`${ATTN2}.hada_w1_a`]: /LoHa/,
      [`${ATTN2}.lokr_w1`]: /LoKr/,
      [`${ATTN2}.oft_blocks`]: /OFT/,
      [`${ATTN2}.on_input`]: /IA³/,
      [`${ATTN2}.diff`]: /whole weights/,
      "bundle_emb.cat.string_to_param.*": /embeddings/,
      "emb_params": /textual inversion/,
      "model.diffusion_model.out.2.weight": /whole checkpoint/,
    };
    for (const [key, words] of Object.entries(relatives)) {
      await refused(file({ ...pair(ATTN2, 2), [key]: nothing }), words, /expected: a plain LoRA/);
    }
  });
  it("files that hold none", async () => {
    await refused(file({}), /holds no LoRA/);
    await refused(file({ weight: nothing }), /holds no LoRA; its 1 tensors are called weight/);
    await refused(file({ ...pair(ATTN2, 2), other: nothing }), /holds 1 tensors that are no part of a LoRA: other/);
    await refused(join(temp, "absent.safetensors"), /cannot be opened/);
    await refused(temp, /is a folder|EISDIR/);
  });
  it("a layer named twice", async () => {
    const dotted = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k";
    const again = Object.entries(pair(dotted, 2)).map(([key, t]) =>
      [key.replace("lora_down", "lora_A").replace("lora_up", "lora_B"), t] as const
    );
    await refused(file({ ...pair(ATTN2, 2), ...Object.fromEntries(again) }), /changes .*attn2\.to_k twice/);
  });
  it("a weight of nothing", async () => {
    for (const weight of [0, NaN, 1000]) {
      const error = await Effect.runPromise(
        Effect.flip(withLoras(await opened, [{ file: goldenLora("peft"), weight }])),
      );
      assert.match(error.message, /with the weight/);
    }
  });
});

/** A model opened with a LoRA, of which a "cure" changed every second layer, and a layer that the LoRA does not hold. */
const cured = async (name: string, added: readonly string[], weight = strength(name)): Promise<Bundle> => {
  let bundle = await mergedWith(goldenLora(name), weight);
  for (const part of ["unet", "text_encoder"] as const) {
    const values = [...bundle.changed.get(part) ?? []].filter((_, i) => i % 2 === 0);
    const own = added.filter((key) => key.startsWith("encoder.") === (part === "text_encoder"));
    const old = await Effect.runPromise(readWeights(bundle, part, own));
    const wanted = [...values, ...own.map((key, i) => [key, old[i]] as const)];
    bundle = withChanges(
      bundle,
      part,
      new Map(wanted.map(([key, { dims, data }], i) => {
        const [out, inner] = [dims[0], size(dims.slice(1))];
        const change = matmul(normal(30 + i, [out, 2]).data, normal(60 + i, [2, inner]).data, out, 2, inner);
        return [key, { dims, data: data.map((x, at) => x + 0.1 * change[at]) }];
      })),
    );
  }
  return bundle;
};
const K = "up_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k.weight";
const CONV = "up_blocks.1.resnets.0.conv2.weight";
const FC = "encoder.layers.0.mlp.fc2.weight";

describe("a model that came with a LoRA is handed back as that LoRA", () => {
  for (const name of CASES) {
    it(`${name}: base + cured LoRA is the cured model, names and element types are the file's`, async () => {
      const bundle = await cured(name, [K, CONV, FC]);
      const use = bundle.loras!.uses[0];
      const found = await Effect.runPromise(curedLora(bundle, use));
      assert.ok(found?._tag === "lora");
      assert.ok(found.cured.largest < 0.01, `misses ${found.cured.largest}`);
      assert.equal(found.cured.added, 3);
      const path = put(join(temp, crypto.randomUUID(), "cured.safetensors"), found.bytes);
      const before = readFileTensors(goldenLora(name)), now = readFileTensors(path);
      for (const [key, { dtype, dims }] of before.header.entries) {
        const entry = now.header.entries.get(key);
        assert.ok(entry !== undefined, `${key} is gone`);
        assert.equal(entry.dtype, dtype);
        assert.equal(entry.dims.length, dims.length);
      }
      const again = await mergedWith(path, use.weight);
      const base = await opened;
      for (const [part, values] of bundle.changed) {
        assert.deepEqual([...again.changed.get(part)!.keys()].sort(), [...values.keys()].sort());
        const old = await Effect.runPromise(readWeights(base, part, [...values.keys()]));
        [...values].forEach(([key, { data }], i) => {
          const got = again.changed.get(part)!.get(key)!.data;
          const change = data.map((x, at) => x - old[i].data[at]);
          const apart = norm(got.map((x, at) => x - data[at])) / norm(change);
          assert.ok(apart < 0.01, `${key} is off by ${apart}`);
        });
      }
    });
  }

  it("ranks are lower where more may be missed, and what is missed is told", async () => {
    const bundle = await cured("kohya", []);
    const exact = await Effect.runPromise(curedLora(bundle, bundle.loras!.uses[0]));
    const rough = await Effect.runPromise(curedLora(bundle, bundle.loras!.uses[0], 0.4));
    assert.ok(exact?._tag === "lora" && rough?._tag === "lora");
    // A LoRA of rank 2 or 3, and a cure of rank 2.
    assert.ok(exact.cured.ranks[0] >= 3 && exact.cured.ranks[1] <= 5, String(exact.cured.ranks));
    assert.ok(rough.cured.ranks[1] < exact.cured.ranks[1], String(rough.cured.ranks));
    assert.ok(rough.cured.largest > 0.05 && rough.cured.largest <= 0.4, String(rough.cured.largest));
  });

  it("layers that the cure left alone keep their bytes, and alpha stays", async () => {
    const bundle = await cured("kohya", [K]);
    const found = await Effect.runPromise(curedLora(bundle, bundle.loras!.uses[0]));
    assert.ok(found?._tag === "lora");
    const path = put(join(temp, "kept", "cured.safetensors"), found.bytes);
    const [before, now] = [goldenLora("kohya"), path].map((file) => {
      const bytes = readFileSync(file);
      return { bytes, ...readFileTensors(file) };
    });
    const bytesOf = ({ bytes, header }: typeof now, key: string) => {
      const { begin, end } = header.entries.get(key)!;
      return bytes.subarray(begin, end).toString("hex");
    };
    const same = [...before.header.entries.keys()].filter((key) => bytesOf(before, key) === bytesOf(now, key));
    assert.ok(same.length > 20, `${same.length} tensors are as they were`);
    for (const key of before.header.entries.keys()) if (key.endsWith(".alpha")) assert.ok(same.includes(key));
    const stem = `lora_unet_${K.replace(".weight", "").replaceAll(".", "_")}`;
    assert.deepEqual([...now.tensors.get(`${stem}.alpha`)!.data], [1.5]);
    assert.equal(now.header.metadata["sau.weight"], "1");
  });

  it("new layers are named as the file names its own", async () => {
    const stems: Record<string, readonly string[]> = {
      "kohya-ldm": [
        "lora_unet_output_blocks_2_1_transformer_blocks_0_attn2_to_k.lora_down.weight",
        "lora_unet_output_blocks_2_0_out_layers_3.lora_up.weight",
        "lora_te_text_model_encoder_layers_0_mlp_fc2.alpha",
      ],
      peft: [
        `unet.${K.replace(".weight", "")}.lora_A.weight`,
        "text_encoder.text_model.encoder.layers.0.mlp.fc2.lora_B.weight",
      ],
      diffusers: [
        `unet.${K.replace(".weight", "")}.lora.down.weight`,
        "text_encoder.text_model.encoder.layers.0.mlp.fc2.lora_linear_layer.up.weight",
      ],
      processor: ["unet.up_blocks.1.attentions.0.transformer_blocks.0.attn2.processor.to_k_lora.down.weight"],
    };
    for (const [name, keys] of Object.entries(stems)) {
      const bundle = await cured(name, [K, CONV, FC]);
      const found = await Effect.runPromise(curedLora(bundle, bundle.loras!.uses[0]));
      assert.ok(found?._tag === "lora");
      const { header } = readFileTensors(put(join(temp, name, "cured.safetensors"), found.bytes));
      for (const key of keys) assert.ok(header.entries.has(key), `${name} lacks ${key}`);
    }
  });

  it("a change that no LoRA holds is told by name, and none is written", async () => {
    const merged = await mergedWith(goldenLora("peft"));
    const bundle = withChanges(merged, "unet", new Map([["conv_in.bias", normal(1, [8])]]));
    const found = await Effect.runPromise(curedLora(bundle, bundle.loras!.uses[0]));
    assert.deepEqual(found, { _tag: "unfit", unfit: ["unet.conv_in.bias"] });
    const stem = join(temp, "unfit");
    const notes = await Effect.runPromise(ModelPort.save!({ bundle }, stem, { loraOnly: true }));
    assert.match(String(notes), /No unfit\.lora\.safetensors was written: .*unet\.conv_in\.bias/);
    assert.equal(existsSync(`${stem}.lora.safetensors`), false);
  });

  it("without a cure there is nothing to hand back; a cure that takes all back leaves none", async () => {
    const merged = await mergedWith(goldenLora("peft"));
    assert.equal(await Effect.runPromise(curedLora(merged, merged.loras!.uses[0])), undefined);
    let bare = merged;
    for (const [part, values] of merged.changed) {
      const old = await Effect.runPromise(readWeights(await opened, part, [...values.keys()]));
      bare = withChanges(bare, part, new Map([...values.keys()].map((key, i) => [key, old[i]])));
    }
    assert.deepEqual(await Effect.runPromise(curedLora(bare, bare.loras!.uses[0])), { _tag: "gone" });
  });

  it("the port writes folder, delta and LoRA, or the LoRA alone", async () => {
    const bundle = await cured("kohya", [K]);
    const [whole, alone] = [join(temp, "whole"), join(temp, "alone")];
    const notes = await Effect.runPromise(ModelPort.save!({ bundle }, whole));
    assert.match(
      String(notes),
      /^whole\.lora\.safetensors takes the place of kohya\.safetensors, at the same weight \(1\): 11 layers/,
    );
    assert.ok(statSync(join(whole, "unet")).isDirectory());
    await Effect.runPromise(ModelPort.save!({ bundle }, alone, { loraOnly: true }));
    assert.equal(existsSync(alone), false);
    assert.deepEqual(readFileSync(`${alone}.lora.safetensors`), readFileSync(`${whole}.lora.safetensors`));
  });
});

describe("what a cure of a model with a LoRA trains", () => {
  const chosen = async (bundle: Bundle, part: "unet" | "text_encoder") => {
    const trained = await Effect.runPromise(loraWeights(bundle, part));
    return [...(await Effect.runPromise(networkKeys(bundle.parts[part]))).keys()].filter(trained ?? (() => false));
  };
  it("is the layers of the LoRA, or of a part that it leaves alone what a LoRA can hold", async () => {
    const merged = await mergedWith(goldenLora("kohya-ldm"));
    assert.deepEqual((await chosen(merged, "unet")).sort(), [...merged.changed.get("unet")!.keys()].sort());
    const text = await chosen(merged, "text_encoder");
    assert.equal(text.length, 2 * 6, "four projections and two of the MLP in each of two layers");
    assert.ok(text.every((key) => /(_proj|fc[12])\.weight$/.test(key)), text.join());
  });
  it("is left to the setting without a LoRA, and with several", async () => {
    const two = await Effect.runPromise(
      withLoras(await opened, ["peft", "kohya"].map((name) => ({ file: goldenLora(name), weight: 1 }))),
    );
    for (const bundle of [await opened, two]) {
      assert.equal(await Effect.runPromise(loraWeights(bundle, "unet")), undefined);
    }
  });
});

describe("a model with LoRAs in the cache", () => {
  it("is stored by what the cure changed alone, and opened again with its LoRA", async () => {
    const bundle = await cured("kohya", []);
    const stored = ModelPort.encode({ bundle });
    assert.equal(Object.keys(stored.tensors).length, 10, "10 of 20 layers were changed by the cure");
    const again = await Effect.runPromise(Effect.suspend(() => {
      const decoded = ModelPort.decode(stored);
      return Effect.isEffect(decoded) ? decoded : Effect.succeed(decoded);
    }));
    for (const [part, values] of bundle.changed) {
      for (const [key, { data }] of values) assert.deepEqual(again.bundle.changed.get(part)!.get(key)!.data, data);
    }
  });

  it("is not opened again when its LoRA has changed since", async () => {
    const path = file(pair(ATTN2, 2));
    const bundle = await mergedWith(path);
    const stored = ModelPort.encode({ bundle });
    put(path, write(new Map(Object.entries(pair(ATTN2, 3)))));
    const decoded = ModelPort.decode(stored);
    assert.ok(Effect.isEffect(decoded));
    await assert.rejects(Effect.runPromise(decoded as Effect.Effect<unknown, unknown>), /has changed since/);
  });
});

describe("properties", () => {
  it("every layer of the model is found by each of its names", async () => {
    const layers = await Effect.runPromise(loraLayers(await opened));
    const finder = layerFinder(layers, 1);
    const samples = await Promise.all(
      CASES.map(async (name) => (await Effect.runPromise(openLora(await opened, goldenLora(name)))).samples),
    );
    fc.assert(
      fc.property(fc.constantFrom(...layers), fc.constantFrom(...samples), (layer, like) => {
        const { down, up } = newLoraKeys(layer, like, finder);
        for (const key of [down, up]) {
          const parsed = parseLoraKey(key);
          assert.ok(parsed !== undefined, key);
          assert.deepEqual(finder.find(parsed.stem, parsed.suffix).map((found) => found.layer), [layer], key);
        }
      }),
      { numRuns: 300 },
    );
  });

  it("any names, shapes and values are opened or refused, nothing else", patient, async () => {
    const bundle = await opened;
    const words = [
      "lora_unet_",
      "lora_te_",
      "unet.",
      "text_encoder.",
      "down_blocks_0_attentions_0_",
      "conv_in",
      ".",
      "_",
    ];
    const ends = [
      ".lora_down.weight",
      ".lora_up.weight",
      ".lora_mid.weight",
      ".alpha",
      "_lora.up.weight",
      ".weight",
      "",
    ];
    const name = fc.tuple(
      fc.array(fc.oneof(fc.constantFrom(...words, ATTN2), fc.string({ maxLength: 4 })), { maxLength: 3 }),
      fc.constantFrom(...ends),
    ).map(([stem, end]) => stem.join("") + end).filter((key) => key !== "__metadata__");
    const tensor = fc.tuple(fc.array(fc.nat(3), { maxLength: 5 }), fc.float()).map(([dims, value]): Tensor => ({
      dims,
      data: new Float32Array(size(dims)).fill(value),
    }));
    const metadata = fc.dictionary(
      fc.constantFrom("lora_adapter_metadata", "ss_base_model_version"),
      fc.oneof(fc.string(), fc.json()),
    );
    const path = join(temp, "any.safetensors");
    await fc.assert(
      fc.asyncProperty(fc.dictionary(name, tensor, { maxKeys: 4 }), metadata, async (tensors, said) => {
        put(path, write(new Map(Object.entries(tensors)), said));
        const found = await Effect.runPromise(Effect.result(openLora(bundle, path)));
        assert.ok(Result.isSuccess(found) || found.failure instanceof BundleError);
      }),
      { numRuns: 100 },
    );
  });
});
