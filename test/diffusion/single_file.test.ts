/** Checkpoints in one file: what diffusers' own conversion makes of the names, and the same model in both forms. */
import { after, before, describe, it } from "node:test";
import assert from "node:assert/strict";
import { cpSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync, truncateSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { Effect } from "effect";
import { type Bundle, partWeights, readWeights, withChanges } from "../../src/diffusion/bundle.ts";
import { openBundle, type OpenOptions } from "../../src/diffusion/bundle_open.ts";
import { saveDelta } from "../../src/diffusion/delta.ts";
import { sliceEmbeddings } from "../../src/diffusion/embeddings.ts";
import { checkBundle, networkKeys } from "../../src/diffusion/networks.ts";
import { pictureNoise } from "../../src/diffusion/picture_noise.ts";
import { openDecoder } from "../../src/diffusion/pictures.ts";
import { openSampler } from "../../src/diffusion/sampler.ts";
import { saveBundle } from "../../src/diffusion/save.ts";
import { layoutOf } from "../../src/diffusion/single_file/layouts.ts";
import { viewsOf } from "../../src/diffusion/single_file/names.ts";
import { partOfFile } from "../../src/diffusion/single_file/part.ts";
import { BIAS, guessPrediction } from "../../src/diffusion/single_file/prediction.ts";
import { openClipRules } from "../../src/diffusion/single_file/text.ts";
import { openTextEncoder } from "../../src/diffusion/text.ts";
import { changedBytes } from "../../src/diffusion/weights.ts";
import { scanFile } from "../../src/diffusion/weights_file.ts";
import { parseAutoencoderKlConfig } from "../../src/models/autoencoder_kl.ts";
import { parseClipTextConfig, parseProjectedTextConfig } from "../../src/models/clip_text.ts";
import { parseUnetConfig } from "../../src/models/unet_2d_condition.ts";
import { encode } from "../../src/steps/encode.ts";
import { modelFiles } from "../../src/steps/open_model.ts";
import { ModelPort } from "../../src/steps/ports.ts";
import { type Entry, type Header, parseHeader } from "../../src/tensor/safetensors.ts";
import { type Tensor, tensor, type TensorData } from "../../src/tensor/tensor.ts";
import { put, tempFolder } from "../support/bundles.ts";
import { tensorsOf } from "../support/forms.ts";
import { readJson } from "../support/golden.ts";
import { withRuntime } from "../support/runtime.ts";
import {
  checkpointBytes,
  goldenNames,
  type Kind,
  leftovers,
  originalTensors,
  type PartOf,
  partsOf,
  smallFolder,
  weightsOf,
} from "../support/single_file.ts";

/** Computing takes longer on a busy machine than Bun gives a test by itself. */
const patient = { timeout: 300_000 };

const golden = fileURLToPath(new URL("../golden/", import.meta.url));
const kinds: readonly Kind[] = ["sd-1.5", "sd-2.1", "sdxl-1.0"];
const nameOf: Readonly<Record<Kind, string>> = {
  "sd-1.5": "Stable Diffusion 1.x",
  "sd-2.1": "Stable Diffusion 2.x",
  "sdxl-1.0": "Stable Diffusion XL",
};
const predictionOf = (kind: Kind) => kind === "sd-2.1" ? "v_prediction" : "epsilon";
const bare = (key: string) => key.replace(/^text_model\./, "");

/** Shapes of a published model's tensors by diffusers' names. */
const shapesOf = (kind: Kind, part: string): Map<string, number[]> =>
  new Map(
    Object.entries(readJson(`${golden}keys/${kind}.${part}.json`) as Record<string, string[]>).flatMap(([dims, keys]) =>
      keys.map((key) => [bare(key), dims.split(",").map(Number)] as const)
    ),
  );

/** The header of the published file, of tensors in half precision, without the file. */
const publishedHeader = (kind: Kind): Header => {
  const entries = new Map<string, Entry>();
  let at = 1000;
  const add = (key: string, dims: readonly number[]) => {
    const begin = at;
    at += 2 * dims.reduce((n, d) => n * d, 1);
    entries.set(key, { dtype: "F16", dims, begin, end: at });
  };
  for (const part of partsOf(kind)) {
    const networks = shapesOf(kind, part);
    const { names, shapes, unused } = goldenNames(kind, part, [...networks.keys()]);
    for (const [key, to] of Object.entries(names)) {
      const dims = networks.get([to].flat()[0]) ?? [];
      const own = shapes[key];
      add(key, own === undefined ? dims : own.length === 4 ? [...dims, 1, 1] : [3 * dims[0], ...dims.slice(1)]);
    }
    for (const key of unused) add(key, [1]);
  }
  return { file: `${kind}.safetensors`, entries, metadata: {}, bytes: 1000 };
};

describe("single file: names and shapes of the published models", patient, () => {
  for (const kind of kinds) {
    it(
      `${kind}: every tensor of the networks, from where diffusers takes it, and every one of the file once`,
      patient,
      async () => {
        const header = publishedHeader(kind);
        const layout = layoutOf(header);
        assert.equal(layout?.name, nameOf[kind]);
        const found = layout?.parts(predictionOf(kind));
        for (const part of partsOf(kind)) {
          const one = found?.[part];
          assert.ok(one);
          const pairs = viewsOf(header, one.prefix, one.rules).map(({ key, name, entry }) =>
            `${key} -> ${bare(name)} [${entry.dims}]`
          );
          const shapes = shapesOf(kind, part);
          const { names } = goldenNames(kind, part, [...shapes.keys()]);
          const expected = Object.entries(names).flatMap(([key, to]) =>
            [to].flat().map((name) => `${key} -> ${name} [${shapes.get(name)}]`)
          );
          assert.deepEqual(pairs.sort(), expected.sort());
          // Queries, keys and values lie one after the other in their tensor.
          const views = viewsOf(header, one.prefix, one.rules);
          for (const [key, to] of Object.entries(names)) {
            if (typeof to === "string") continue;
            const three = views.filter((view) => view.key === key);
            assert.deepEqual(three.map(({ name }) => bare(name)), to);
            assert.deepEqual(three.map(({ entry }) => entry.end), [
              ...three.slice(1).map(({ entry }) => entry.begin),
              header
                .entries.get(key)?.end,
            ]);
          }
          const scanned = { path: header.file, size: 0, modified: 0, sha256: "", nonFinite: new Map(), header };
          const opened = partOfFile(part, { path: header.file, allowed: [] }, scanned, one);
          await Effect.runPromise(networkKeys(opened.part));
        }
      },
    );
    it(`${kind}: the inferred configs build the networks of the published ones`, patient, () => {
      const found = layoutOf(publishedHeader(kind))?.parts(predictionOf(kind));
      const published = (part: string): unknown => readJson(`${golden}configs/${kind}/${part}/config.json`);
      assert.deepEqual(parseUnetConfig(found?.unet.config), parseUnetConfig(published("unet")));
      assert.deepEqual(parseAutoencoderKlConfig(found?.vae.config), parseAutoencoderKlConfig(published("vae")));
      assert.deepEqual(parseClipTextConfig(found?.text_encoder.config), parseClipTextConfig(published("text_encoder")));
      if (kind !== "sdxl-1.0") return;
      assert.deepEqual(
        parseProjectedTextConfig(found?.text_encoder_2?.config),
        parseProjectedTextConfig(published("text_encoder_2")),
      );
    });
  }
  it("SGM's names of the text encoders are read as well", patient, () => {
    for (const kind of ["sd-1.5", "sd-2.1"] as const) {
      const { entries, ...rest } = publishedHeader(kind);
      const renamed = [...entries].map(([key, e]) =>
        [key.replace(/^cond_stage_model\./, "conditioner.embedders.0."), e] as const
      );
      const layout = layoutOf({ ...rest, entries: new Map(renamed) });
      assert.equal(layout?.second, kind === "sd-2.1");
      assert.match(layout?.parts("epsilon").text_encoder.prefix ?? "", /^conditioner/);
    }
  });
  it("OpenCLIP without its last layer, as programs write it from a folder, has 23 all the same", patient, () => {
    const { entries, ...rest } = publishedHeader("sd-2.1");
    const layers = (kept: [string, Entry][]) =>
      layoutOf({ ...rest, entries: new Map(kept) })?.parts("epsilon").text_encoder.config.num_hidden_layers;
    assert.equal(layers([...entries]), 23);
    assert.equal(layers([...entries].filter(([key]) => !key.includes("resblocks.23."))), 23);
  });
  it("a projection, which OpenCLIP multiplies from the other side, is turned over", patient, () => {
    const entry: Entry = { dtype: "F16", dims: [2, 3], begin: 8, end: 20 };
    const header: Header = { file: "x", metadata: {}, bytes: 8, entries: new Map([["model.text_projection", entry]]) };
    const [view] = viewsOf(header, "model.", openClipRules(1, true));
    assert.deepEqual([view.name, view.entry.dims, view.transposed], ["text_projection.weight", [3, 2], true]);
    assert.deepEqual(viewsOf(header, "model.", openClipRules(1)), []);
  });
});

const temp = tempFolder();
after(() => rmSync(temp, { recursive: true, force: true }));
const fresh = (): string => mkdtempSync(join(temp, "t-"));
const open = (path: string, options: OpenOptions = {}) => Effect.runPromise(openBundle(path, options));
const failure = (path: string, options: OpenOptions = {}) => Effect.runPromise(Effect.flip(openBundle(path, options)));

/** Whether two tensors are the same to the bit. (A difference between large arrays is not printed: that takes gigabytes.) */
const same = (a: Tensor, b: Tensor): boolean =>
  `${a.dims}` === `${b.dims}` && a.data.length === b.data.length && a.data.every((x, i) => Object.is(x, b.data[i]));

/** Embeddings and, where asked for, latents after a step and a picture of them. */
const draw = (bundle: Bundle, picture: boolean) =>
  withRuntime(Effect.gen(function* () {
    const texts = yield* (yield* openTextEncoder(bundle))(
      ["a photo of a dog!", ""].map((p) => bundle.tokenizer.encode(p).ids),
    );
    if (!picture) return [texts];
    const sample = yield* openSampler(bundle, { pictures: 1 });
    const { latents } = yield* sample(
      { context: sliceEmbeddings(texts, 0, 1), uncond: sliceEmbeddings(texts, 1, 2) },
      pictureNoise(1, 1, [4, 8, 8]),
      { steps: 1, guidance: 2 },
    );
    return [texts, latents, yield* (yield* openDecoder(bundle, 8, 8))(latents)];
  }));

describe("single file: the same model in both forms", patient, () => {
  const folders = new Map<Kind, string>();
  before(async () => {
    for (const kind of kinds) folders.set(kind, await smallFolder(fresh(), kind));
  });
  const folderOf = (kind: Kind) => folders.get(kind) ?? "";
  const write = (
    kind: Kind,
    change: (tensors: Map<string, Tensor<TensorData>>) => void = () => {},
    half = false,
  ): string => {
    const all = new Map([...leftovers(kind), ...originalTensors(folderOf(kind), kind)]);
    change(all);
    return put(join(fresh(), "model.safetensors"), checkpointBytes(all, { half }));
  };

  for (const kind of kinds) {
    it(`${kind}: holds the folder's networks and tensors, and computes the same bit for bit`, patient, async () => {
      const file = await open(write(kind), kind === "sd-2.1" ? { prediction: "v_prediction" } : {});
      const folder = await open(folderOf(kind));
      assert.equal(file.scheduler.prediction_type, folder.scheduler.prediction_type);
      assert.deepEqual(file.tokenizer.encode("a dog!").ids, folder.tokenizer.encode("a dog!").ids);
      await Effect.runPromise(checkBundle(file));
      for (const part of partsOf(kind)) {
        const names = [...folder.parts[part]?.header.entries.keys() ?? []];
        const [a, b] = await Promise.all(
          [file, folder].map((bundle) => Effect.runPromise(readWeights(bundle, part, names))),
        );
        names.forEach((name, i) => assert.ok(same(a[i], b[i]), `${part} ${name}`));
      }
      assert.deepEqual(parseUnetConfig(file.parts.unet.config), parseUnetConfig(folder.parts.unet.config));
      const [ours, theirs] = [await draw(file, kind !== "sd-2.1"), await draw(folder, kind !== "sd-2.1")];
      for (const [i, name] of ["texts", "latents", "pixels"].entries()) {
        assert.ok(ours.length <= i || same(ours[i], theirs[i]), name);
      }
      assert.equal(ours.length, kind === "sd-2.1" ? 1 : 3);
      assert.match(file.notes.join("\n"), /one file, Stable Diffusion ([12].x|XL) by its tensors/);
      assert.match(file.notes.join("\n"), /moving average \(model_ema, 2 tensors\)[^]*not helped by this cure/);
      assert.match(file.notes.join("\n"), /belong to no part[^]*alphas_cumprod/);
    });

    it(
      `${kind}: is handed back as one file, byte for byte but for the changed tensors, in its own types`,
      patient,
      async () => {
        const path = write(kind, undefined, true);
        const bundle = await open(path);
        assert.ok(bundle.parts.unet.files[0].stretches.length > 1);
        // A matrix, a norm in float32, one of three in a packed tensor, and a convolution that the network has as a matrix.
        const chosen: Readonly<Record<PartOf, string[]>> = {
          unet: ["mid_block.attentions.0.transformer_blocks.0.attn2.to_k.weight", "conv_norm_out.weight"],
          text_encoder: ["text_model.encoder.layers.1.self_attn.k_proj.weight"],
          // The second encoder's projection stands turned over in the file.
          text_encoder_2: ["text_model.encoder.layers.0.self_attn.v_proj.weight", "text_projection.weight"],
          vae: ["decoder.mid_block.attentions.0.to_q.weight"],
        };
        let changed = bundle;
        const expected = new Map<string, Tensor>();
        for (const part of partsOf(kind)) {
          const old = await Effect.runPromise(readWeights(bundle, part, chosen[part]));
          const now = new Map(
            chosen[part].map((key, i) => [key, tensor(old[i].data.map((x) => x + 0.5), old[i].dims)]),
          );
          now.forEach((value, key) => expected.set(`${part} ${key}`, value));
          changed = withChanges(changed, part, now);
        }
        const out = join(fresh(), "cured");
        const saved = await Effect.runPromise(saveBundle(changed, out));
        await Effect.runPromise(saveDelta(changed, out));
        assert.equal(saved.folder, `${out}.safetensors`);
        assert.deepEqual(readdirSync(join(out, "..")).sort(), ["cured.delta.safetensors", "cured.safetensors"]);
        const [a, b] = [path, saved.folder].map((p) => new Uint8Array(readFileSync(p)));
        const header = parseHeader(a, a.length, path);
        assert.equal(a.length, b.length);
        assert.ok(Buffer.from(b.subarray(0, header.bytes)).equals(Buffer.from(a.subarray(0, header.bytes))));
        const differ = [...header.entries].filter(([, { begin, end }]) =>
          !Buffer.from(a.subarray(begin, end)).equals(Buffer.from(b.subarray(begin, end)))
        ).map(([key]) => key);
        const text = kind === "sd-1.5"
          ? ["cond_stage_model.transformer.text_model.encoder.layers.1.self_attn.k_proj.weight"]
          : kind === "sd-2.1"
          ? ["cond_stage_model.model.transformer.resblocks.1.attn.in_proj_weight"]
          : [
            "conditioner.embedders.0.transformer.text_model.encoder.layers.1.self_attn.k_proj.weight",
            "conditioner.embedders.1.model.text_projection",
            "conditioner.embedders.1.model.transformer.resblocks.0.attn.in_proj_weight",
          ];
        assert.deepEqual(
          differ.sort(),
          [
            ...text,
            "first_stage_model.decoder.mid.attn_1.q.weight",
            "model.diffusion_model.middle_block.1.transformer_blocks.0.attn2.to_k.weight",
            "model.diffusion_model.out.0.weight",
          ].sort(),
        );
        if (kind === "sd-2.1") {
          // Of the packed tensor the middle third alone.
          const { begin, end } = header.entries.get(text[0]) ?? { begin: 0, end: 0 };
          const third = (end - begin) / 3;
          assert.deepEqual(b.subarray(begin, begin + third), a.subarray(begin, begin + third));
          assert.deepEqual(b.subarray(end - third, end), a.subarray(end - third, end));
        }
        const again = await open(saved.folder);
        assert.equal(again.hashes.get("checkpoint"), saved.sha256.get("unet"));
        for (const part of partsOf(kind)) {
          const now = await Effect.runPromise(readWeights(again, part, chosen[part]));
          chosen[part].forEach((key, i) => {
            const value = expected.get(`${part} ${key}`);
            assert.deepEqual(now[i].dims, value?.dims);
            now[i].data.forEach((x, j) => assert.ok(Math.abs(x - (value?.data[j] ?? NaN)) < 1e-3));
          });
        }
        assert.deepEqual(
          [...tensorsOf(`${out}.delta.safetensors`).keys()].sort(),
          [...expected.keys()].map((key) => key.replace(" ", ".")).sort(),
        );
      },
    );
  }

  it("CLIP under its names without text_model is read as well", patient, async () => {
    const path = write("sd-1.5", (tensors) => {
      for (const [key, value] of [...tensors]) {
        if (!key.includes(".text_model.")) continue;
        tensors.delete(key);
        tensors.set(key.replace(".text_model.", "."), value);
      }
    });
    const bundle = await open(path);
    assert.match(tensorsOf(path).keys().toArray().join(), /cond_stage_model.transformer.encoder/);
    await Effect.runPromise(checkBundle(bundle));
  });

  it("a part from elsewhere goes into the file in the file's own types", patient, async () => {
    const other = await smallFolder(fresh(), "sd-1.5", 2);
    const path = write("sd-1.5", undefined, true);
    const bundle = await open(path, { replace: { unet: join(other, "unet") } });
    assert.deepEqual(bundle.opened.replace, { unet: join(other, "unet") });
    await Effect.runPromise(checkBundle(bundle));
    const key = "conv_norm_out.weight";
    const value = tensor(new Float32Array(32).fill(0.25), [32]);
    const out = join(fresh(), "cured.safetensors");
    await Effect.runPromise(saveBundle(withChanges(bundle, "unet", new Map([[key, value]])), out));
    const again = await open(out);
    const names = [...tensorsOf(join(other, "unet", `${weightsOf.unet}.safetensors`))];
    const now = await Effect.runPromise(readWeights(again, "unet", names.map(([name]) => name)));
    names.forEach(([name, t], i) => {
      const want = name === key ? value : t;
      now[i].data.forEach((x, j) =>
        assert.ok(Math.abs(x - want.data[j]) <= 2 ** -10 * Math.abs(want.data[j]) + 1e-6, name)
      );
    });
    const [vaeOld, vaeNow] = await Promise.all(
      [path, out].map(async (p) => await Effect.runPromise(readWeights(await open(p), "vae", ["quant_conv.weight"]))),
    );
    assert.deepEqual(vaeNow, vaeOld);
    const wrong = await smallFolder(fresh(), "sd-2.1", 2);
    const mixed = await open(path, { replace: { unet: join(wrong, "unet") } });
    assert.match(
      (await Effect.runPromise(Effect.flip(saveBundle(mixed, join(fresh(), "x"))))).message,
      /of the shape that the checkpoint has room for/,
    );
  });

  it("a tokenizer of one's own takes the place of CLIP's", patient, async () => {
    const path = write("sd-1.5");
    const tokenizer = join(golden, "tokenizer");
    const bundle = await open(path, { tokenizer });
    assert.equal(bundle.tokenizer.vocabSize, 870);
    assert.match(bundle.notes.join(), /the tokenizer is taken from/);
    assert.equal(bundle.opened.tokenizer, tokenizer);
    assert.ok([...bundle.hashes.keys()].includes("tokenizer/tokenizer.json"));
  });

  it("a folder of configs says what no shape tells", patient, async () => {
    const config = join(folderOf("sd-1.5"));
    const other = mkdtempSync(join(temp, "config-"));
    cpSync(config, other, { recursive: true, filter: (from) => !from.endsWith(".safetensors") });
    const unet = JSON.parse(readFileSync(join(config, "unet/config.json"), "utf8"));
    put(join(other, "unet/config.json"), { ...unet, attention_head_dim: 4 });
    const scheduler = JSON.parse(readFileSync(join(config, "scheduler/scheduler_config.json"), "utf8"));
    put(join(other, "scheduler/scheduler_config.json"), { ...scheduler, prediction_type: "v_prediction" });
    const bundle = await open(write("sd-1.5"), { config: other });
    assert.equal(parseUnetConfig(bundle.parts.unet.config).mid.heads, 4);
    assert.equal(bundle.scheduler.prediction_type, "v_prediction");
    assert.match(bundle.notes.join(), /the configs of its parts are those of .*config-[^]*tokenizer is taken from/);
    assert.ok(bundle.hashes.has("config/unet/config.json"));
    await Effect.runPromise(checkBundle(bundle));
    const told = await open(bundle.root.path, { config: other, prediction: "epsilon" });
    assert.equal(told.scheduler.prediction_type, "epsilon");
  });

  it("a step opens it as its settings say, and names every file that it reads", patient, async () => {
    const model = write("sd-1.5");
    const prompts = put(join(fresh(), "prompts.txt"), "a photo of a dog\na red cat on a chair\n");
    const [config, tokenizer] = [folderOf("sd-1.5"), join(folderOf("sd-1.5"), "tokenizer")];
    const settings = { model, prompts, trigger: "\u200b ", count: 2, twins: 1, variations: 0 };
    const { text } = await withRuntime(encode.run({}, { ...settings, config, tokenizer, prediction: "v_prediction" }));
    const { bundle } = text.model;
    assert.deepEqual(bundle.opened, { replace: {}, config, tokenizer, prediction: "v_prediction" });
    assert.equal(bundle.scheduler.prediction_type, "v_prediction");
    assert.deepEqual(text.embeddings.dims, [2, 3, 77, 64]);
    assert.deepEqual(modelFiles({ model, config, tokenizer }), [
      model,
      tokenizer,
      ...["unet", "text_encoder", "text_encoder_2", "vae"].map((part) => join(config, part, "config.json")),
      join(config, "scheduler/scheduler_config.json"),
      tokenizer,
      `${tokenizer}_2`,
    ]);
  });

  it("a step's model comes back from the cache as it was, and is written out as one file", patient, async () => {
    const tokenizer = join(golden, "tokenizer");
    const path = write("sd-2.1");
    const bundle = await open(path, { tokenizer, prediction: "v_prediction" });
    const key = "conv_norm_out.weight";
    const model = { bundle: withChanges(bundle, "unet", new Map([[key, tensor(new Float32Array(64).fill(2), [64])]])) };
    const back = await Effect.runPromise(Effect.suspend(() => {
      const again = ModelPort.decode(ModelPort.encode(model));
      return Effect.isEffect(again) ? again : Effect.succeed(again);
    }));
    assert.deepEqual(back.bundle.opened, bundle.opened);
    assert.equal(back.bundle.scheduler.prediction_type, "v_prediction");
    assert.deepEqual(back.bundle.changed, model.bundle.changed);
    const out = join(fresh(), "cured");
    assert.ok(ModelPort.save);
    await Effect.runPromise(ModelPort.save(back, out));
    assert.deepEqual(readdirSync(join(out, "..")).sort(), ["cured.delta.safetensors", "cured.safetensors"]);
    put(path, readFileSync(join(out, "..", "cured.safetensors")));
    const decoded = ModelPort.decode(ModelPort.encode(model));
    assert.ok(Effect.isEffect(decoded));
    assert.match(String(await Effect.runPromise(Effect.flip(decoded))), /has changed since this result was made/);
  });

  it("neither the input nor what stands there already is written over", patient, async () => {
    const path = write("sd-1.5");
    const bundle = await open(path);
    const save = (out: string, force = false) => Effect.runPromise(Effect.flip(saveBundle(bundle, out, { force })));
    assert.match((await save(path, true)).message, /the checkpoint that is read/);
    const link = join(fresh(), "link.safetensors");
    symlinkSync(path, link);
    assert.match((await save(link, true)).message, /it is a folder or a link/);
    const there = put(join(fresh(), "thesis.safetensors"), "x");
    assert.match((await save(there)).message, /is there already[^]*--force/);
    assert.equal(readFileSync(there, "utf8"), "x");
    await Effect.runPromise(saveBundle(bundle, there, { force: true }));
    assert.ok(readFileSync(there).equals(readFileSync(path)));
  });

  it(
    "a matrix that the file holds turned over is read, handed to graphs and written back the other way",
    patient,
    async () => {
      const data = Float16Array.of(1, 2, 3, 4, 5, 6);
      const path = put(
        join(fresh(), "x.safetensors"),
        checkpointBytes(new Map([["text_projection", { dims: [2, 3], data }]])),
      );
      const scanned = await Effect.runPromise(scanFile(path));
      const layout = { prefix: "", rules: openClipRules(1, true), config: {} };
      const { part } = partOfFile("text_encoder", { path, allowed: [] }, scanned, layout);
      const key = "text_projection.weight";
      const source = { parts: { text_encoder: part }, changed: new Map() };
      const over = Float32Array.of(1, 4, 2, 5, 3, 6);
      assert.deepEqual(await Effect.runPromise(readWeights(source, "text_encoder", [key])), [{
        dims: [3, 2],
        data: over,
      }]);
      for (const files of [false, true]) {
        const { external, locate } = await Effect.runPromise(partWeights(source, "text_encoder", { files }));
        const { offset, length, dims, turned = false } = locate(key);
        const held = files
          ? readFileSync(path).subarray(offset, offset + length)
          : external[0].data.slice(offset, offset + length);
        // A file on disk is turned over by the graph.
        assert.deepEqual(new Float16Array(Uint8Array.from(held).buffer), turned ? data : new Float16Array(over));
        assert.deepEqual([dims, turned], [[3, 2], files]);
      }
      const value = tensor(over.map((x) => 10 * x), [3, 2]);
      const changed = { ...source, changed: new Map([["text_encoder", new Map([[key, value]])]] as const) };
      const [{ at, bytes }] = await Effect.runPromise(changedBytes(changed, part, part.files[0]));
      assert.equal(at, scanned.header.entries.get("text_projection")?.begin);
      assert.deepEqual(new Float16Array(bytes.slice().buffer), data.map((x) => 10 * x));
    },
  );

  describe("what cannot be used is refused, with what was found", () => {
    const cases: [string, Kind, (tensors: Map<string, Tensor<TensorData>>) => void, RegExp][] = [
      [
        "a tensor too few",
        "sd-1.5",
        (t) => t.delete("model.diffusion_model.out.2.bias"),
        /1 missing \(conv_out.bias\)/,
      ],
      [
        "a tensor that the U-Net does not have",
        "sd-2.1",
        (t) => t.set("model.diffusion_model.extra.weight", tensor(new Float32Array(4), [4])),
        /network does not have \(model.diffusion_model.extra.weight\)/,
      ],
      [
        "another shape",
        "sd-2.1",
        (t) => t.set("cond_stage_model.model.ln_final.bias", tensor(new Float32Array(3), [3])),
        /final_layer_norm.bias: \[3\], expected \[64\]/,
      ],
    ];
    for (const [name, kind, change, message] of cases) {
      it(name, patient, async () => {
        const bundle = await open(write(kind, change));
        const error = await Effect.runPromise(Effect.flip(checkBundle(bundle)));
        assert.match(error.message, message);
        assert.match(error.file, /model.safetensors$/);
      });
    }
    it("values that are no numbers, where they are used", patient, async () => {
      const path = write(
        "sd-1.5",
        (t) => t.set("model.diffusion_model.out.0.bias", tensor(new Float32Array(32).fill(NaN), [32])),
      );
      assert.match((await failure(path)).message, /not finite numbers in model.diffusion_model.out.0.bias/);
    });
    it("a cut-off file", patient, async () => {
      const path = write("sd-1.5");
      truncateSync(path, 100_000);
      assert.match((await failure(path)).message, /is truncated/);
    });
  });
});

describe("single file: files of other kinds are told by name", patient, () => {
  const one = (...keys: string[]) =>
    put(
      join(fresh(), "file.safetensors"),
      checkpointBytes(new Map(keys.map((key) => [key, tensor(new Float32Array(9), [1, 9, 1, 1])]))),
    );
  const cases: [string[], RegExp][] = [
    [["lora_unet_down_blocks_0.lora_down.weight"], /holds a LoRA[^]*It belongs over a model/],
    [["unet.down_blocks.0.attn.lora_A.weight"], /holds a LoRA/],
    [
      ["conditioner.embedders.0.model.ln_final.bias", "model.diffusion_model.label_emb.0.0.weight"],
      /holds the refiner of Stable Diffusion XL[^]*Give the base model/,
    ],
    [["conditioner.embedders.1.model.ln_final.bias", "edm_mean"], /another scale of noise[^]*1.x, 2.x and XL are read/],
    [["model.diffusion_model.joint_blocks.0.x"], /holds Stable Diffusion 3/],
    [["double_blocks.0.img_attn.norm.key_norm.scale"], /holds Flux/],
    [["control_model.time_embed.0.weight"], /holds a ControlNet/],
    [["emb_params"], /holds a textual inversion/],
    [["down_blocks.0.resnets.0.norm1.weight"], /holds a U-Net alone[^]*--replace-unet/],
    [["text_model.final_layer_norm.bias"], /holds a text encoder/],
    [["decoder.up.0.block.0.norm1.bias"], /holds an autoencoder/],
    [["unet.down_blocks.0.x"], /parts under diffusers' names in one file[^]*save_pretrained/],
    [["model.diffusion_model.label_emb.0.0.weight"], /labels or pooled texts/],
    [["model.diffusion_model.input_blocks.0.0.weight"], /9 input channels \(inpainting\)/],
    [["a.b", "a.c", "q.r"], /no model that is known here; its keys begin with "a" \(2\), "q" \(1\)/],
  ];
  for (const [keys, message] of cases) {
    it(keys[0], patient, async () => assert.match((await failure(one(...keys))).message, message));
  }
  it("a U-Net without the rest", patient, async () => {
    const path = put(
      join(fresh(), "file.safetensors"),
      checkpointBytes(
        new Map([["model.diffusion_model.input_blocks.0.0.weight", tensor(new Float32Array(36), [1, 4, 3, 3])]]),
      ),
    );
    assert.match((await failure(path)).message, /holds a U-Net and no text encoder, no autoencoder/);
  });
  it("a pickle, and anything else that is a file", patient, async () => {
    assert.match(
      (await failure(put(join(fresh(), "v1-5.ckpt"), "x"))).message,
      /is a file[^]*Pickled checkpoints can run code/,
    );
    assert.match(
      (await failure(put(join(fresh(), "notes.txt"), "x"))).message,
      /Give the folder that the file lies in/,
    );
    assert.match((await failure(put(join(fresh(), "x.safetensors"), "no"))).message, /safetensors file has at least 8/);
  });
});

describe("single file: what the U-Net answers with", () => {
  const header = (metadata: Record<string, string> = {}, ...keys: string[]): Header => ({
    file: "x",
    bytes: 0,
    metadata,
    entries: new Map(keys.map((key) => [key, { dtype: "F16", dims: [1], begin: 0, end: 2 } satisfies Entry])),
  });
  const bias = (sigma: number) => Float32Array.from({ length: 320 }, (_, i) => i % 2 === 0 ? sigma : -sigma);
  const cases: [string, Parameters<typeof guessPrediction>, string][] = [
    ["1.x answers with noise", [header(), {}, false], "epsilon"],
    ["unless the file says otherwise", [header({}, "v_pred"), {}, false], "v_prediction"],
    ["Stability's ModelSpec", [header({ "modelspec.prediction_type": "v" }), {}, true], "v_prediction"],
    ["the same of noise", [header({ "modelspec.prediction_type": "epsilon" }), { bias: bias(0.2) }, true], "epsilon"],
    [
      "a configuration beside it",
      [header(), { yaml: 'model:\n  params:\n    parameterization: "v"\n' }, true],
      "v_prediction",
    ],
    ["2.1-base by its step", [header(), { globalStep: 875000, bias: bias(0.2) }, true], "epsilon"],
    ["a wide bias", [header({}, BIAS), { bias: bias(0.1) }, true], "v_prediction"],
    ["a narrow one", [header({}, BIAS), { bias: bias(0.05) }, true], "epsilon"],
  ];
  for (const [name, args, expected] of cases) {
    it(name, patient, () => assert.equal(guessPrediction(...args).prediction, expected));
  }
});
