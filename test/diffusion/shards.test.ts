import { after, describe, it } from "node:test";
import assert from "node:assert/strict";
import { mkdtempSync, readdirSync, readFileSync, renameSync, rmSync, symlinkSync, truncateSync } from "node:fs";
import { join } from "node:path";
import { Effect } from "effect";
import { partWeights, readWeights, weightsBytes, withChanges } from "../../src/diffusion/bundle.ts";
import { openBundle } from "../../src/diffusion/bundle_open.ts";
import { checkBundle } from "../../src/diffusion/networks.ts";
import { saveBundle } from "../../src/diffusion/save.ts";
import { openTextEncoder } from "../../src/diffusion/text.ts";
import { readTensor } from "../../src/tensor/safetensors.ts";
import { tensor } from "../../src/tensor/tensor.ts";
import { put, tempFolder, tinyBundle, tinyWeights, weightsFile } from "../support/bundles.ts";
import { narrow, shard, tensorsOf } from "../support/forms.ts";
import { randomModel } from "../support/random_model.ts";
import { withRuntime } from "../support/runtime.ts";

/** Computing takes longer on a busy machine than Bun gives a test by itself. */
const patient = { timeout: 120_000 };

const temp = tempFolder();
after(() => rmSync(temp, { recursive: true, force: true }));
const model = (change: (folder: string) => void = () => {}): string => {
  const folder = randomModel(mkdtempSync(join(temp, "model-")));
  change(folder);
  return folder;
};
const open = (folder: string) => Effect.runPromise(openBundle(folder));
const failure = (folder: string) => Effect.runPromise(Effect.flip(openBundle(folder)));
const unet = (folder: string) => join(folder, "unet");
const STEM = "diffusion_pytorch_model";
const INDEX = `${STEM}.safetensors.index.json`;
/** A folder whose U-Net is spread over three files. */
const sharded = (change: (folder: string, shards: string[]) => void = () => {}) =>
  model((f) => change(unet(f), shard(unet(f), STEM, 3)));
const rewriteIndex = (folder: string, change: (map: Record<string, string>) => Record<string, string>) => {
  const index = JSON.parse(readFileSync(join(folder, INDEX), "utf8"));
  put(join(folder, INDEX), { ...index, weight_map: change(index.weight_map) });
};

const embed = (folder: string) =>
  withRuntime(Effect.gen(function* () {
    const bundle = yield* openBundle(folder);
    yield* checkBundle(bundle);
    const encode = yield* openTextEncoder(bundle);
    return (yield* encode([bundle.tokenizer.encode("a photo of a dog").ids])).data;
  }));

describe("sharded weights", patient, () => {
  it("hold the tensors of the one file, and compute the same", patient, async () => {
    const whole = await open(model());
    const folder = sharded();
    const bundle = await open(folder);
    assert.equal(bundle.parts.unet.files.length, 3);
    await Effect.runPromise(checkBundle(bundle));
    assert.deepEqual(new Set(bundle.parts.unet.header.entries.keys()), new Set(whole.parts.unet.header.entries.keys()));
    const keys = [...whole.parts.unet.header.entries.keys()];
    const read = (b: typeof bundle) => Effect.runPromise(readWeights(b, "unet", keys));
    const [ours, theirs] = [await read(bundle), await read(whole)];
    keys.forEach((key, i) => assert.ok(ours[i].data.every((x, j) => x === theirs[i].data[j]), key));
    const bytes = await Effect.runPromise(weightsBytes(bundle, "unet"));
    assert.deepEqual(
      readTensor(bytes, bundle.parts.unet.header, keys[7]),
      (await read(whole))[7],
    );
    const { external, locate } = await Effect.runPromise(partWeights(bundle, "unet"));
    assert.equal(external.length, 3);
    const place = locate(keys[7]);
    const data = external.find(({ path }) => path === place.path)?.data.slice(
      place.offset,
      place.offset + place.length,
    );
    assert.deepEqual(new Float32Array(data?.buffer ?? new ArrayBuffer(0)), (await read(whole))[7].data);
    assert.deepEqual(bundle.notes, whole.notes);
    const text = model((f) => shard(join(f, "text_encoder"), "model", 2));
    assert.deepEqual(await embed(text), await embed(model()));
  });

  it("are saved with the same shards and index; only a shard with a change differs", patient, async () => {
    const folder = sharded();
    const before = await open(folder);
    const key = "conv_in.bias";
    const [old] = await Effect.runPromise(readWeights(before, "unet", [key]));
    const changed = withChanges(before, "unet", new Map([[key, tensor(old.data.map((x) => x + 1), old.dims)]]));
    const out = join(mkdtempSync(join(temp, "out-")), "cured");
    const saved = await Effect.runPromise(saveBundle(changed, out));
    assert.deepEqual(saved.leftOut, []);
    const files = readdirSync(unet(folder)).sort();
    assert.deepEqual(readdirSync(unet(out)).sort(), files);
    const differ = files.filter((f) => !readFileSync(join(unet(folder), f)).equals(readFileSync(join(unet(out), f))));
    assert.equal(differ.length, 1);
    assert.ok(tensorsOf(join(unet(out), differ[0])).has(key));
    const again = await open(out);
    assert.equal(again.parts.unet.sha256, saved.sha256.get("unet"));
    assert.notEqual(again.parts.unet.sha256, before.parts.unet.sha256);
    assert.deepEqual((await Effect.runPromise(readWeights(again, "unet", [key])))[0].data, old.data.map((x) => x + 1));
  });

  const cases: [string, (folder: string, shards: string[]) => void, RegExp][] = [
    ["a missing shard", (f, [a]) => rmSync(join(f, a)), /00001-of-00003.safetensors is missing[^]*holds \d+ tensors/],
    ["a truncated shard", (f, [a]) => truncateSync(join(f, a), 3000), /00001-of-00003.safetensors is truncated/],
    [
      "a tensor that no shard holds",
      (f, [a]) => rewriteIndex(f, (map) => ({ ...map, "more.weight": a })),
      /does not hold more.weight, which .*index.json puts there/,
    ],
    [
      "a tensor that the index does not name",
      (f) => rewriteIndex(f, (map) => Object.fromEntries(Object.entries(map).slice(1))),
      /holds .*, which .*index.json does not name/,
    ],
    [
      "a tensor in another shard than the index says",
      (f, [a, b]) => rewriteIndex(f, (map) => ({ ...map, "conv_in.bias": map["conv_in.bias"] === a ? b : a })),
      /holds conv_in.bias, which .*index.json puts into/,
    ],
    [
      "a tensor in two shards",
      (f, [a, b]) => {
        const both = new Map([...tensorsOf(join(f, a)), ...tensorsOf(join(f, b))]);
        put(join(f, b), weightsFile(Object.fromEntries(both)));
      },
      /holds .*, and so does .*00001-of-00003/,
    ],
    [
      "an index that points elsewhere",
      (f) => rewriteIndex(f, (map) => ({ ...map, "conv_in.bias": "../../vae/diffusion_pytorch_model.safetensors" })),
      /names "..\/..\/vae\/diffusion_pytorch_model.safetensors" as a file of weights[^]*do not trust/,
    ],
    [
      "an absolute path",
      (f) => rewriteIndex(f, (map) => ({ ...map, "conv_in.bias": "/etc/passwd.safetensors" })),
      /as a file of weights/,
    ],
    [
      "a shard that is a link out of the folder",
      (f, [a]) => {
        const target = join(temp, `${crypto.randomUUID()}.safetensors`);
        renameSync(join(f, a), target);
        symlinkSync(target, join(f, a));
      },
      /is a link that leaves its folder/,
    ],
    [
      "an index without a map",
      (f) => put(join(f, INDEX), { metadata: {} }),
      /does not hold what it should[^]*weight_map/,
    ],
    ["an empty map", (f) => rewriteIndex(f, () => ({})), /names 0 files/],
    [
      "values that are no numbers",
      (f, [a]) => {
        const [[key, { dims, data }], ...rest] = [...tensorsOf(join(f, a))];
        put(join(f, a), weightsFile(Object.fromEntries([[key, tensor(data.map(() => NaN), dims)], ...rest])));
      },
      /values that are not finite numbers/,
    ],
  ];
  for (const [name, change, message] of cases) {
    it(`${name} is refused`, patient, async () => assert.match((await failure(sharded(change))).message, message));
  }
  it("a total that the files do not hold is said", patient, async () => {
    const folder = sharded((f) => {
      const index = JSON.parse(readFileSync(join(f, INDEX), "utf8"));
      put(join(f, INDEX), { ...index, metadata: { total_size: 7 } });
    });
    assert.match((await open(folder)).notes.join(), /speaks of 7 bytes of weights, its files hold \d+/);
  });
});

describe("variants", patient, () => {
  const rename = (to: string) => (f: string) => renameSync(join(unet(f), `${STEM}.safetensors`), join(unet(f), to));
  it("are read where the plain file is absent, and said", patient, async () => {
    const bundle = await open(model(rename(`${STEM}.fp16.safetensors`)));
    assert.match(bundle.notes.join(), /unet has no diffusion_pytorch_model.safetensors; its variant fp16 is read/);
    assert.match((await open(model(rename(`${STEM}.ema.safetensors`)))).notes.join(), /variant ema/);
  });
  it("the plain file goes first, then fp16, bf16 and others; what is not read is named", patient, async () => {
    const add = (...names: string[]) =>
      tinyBundle(temp, (f) => {
        for (const name of names) put(join(unet(f), name), weightsFile(tinyWeights.vae));
      });
    assert.deepEqual((await open(add(`${STEM}.fp16.safetensors`))).notes, []);
    const folder = add(`${STEM}.non_ema.safetensors`, `${STEM}.bf16.safetensors`, `${STEM}.fp16.safetensors`);
    rmSync(join(unet(folder), `${STEM}.safetensors`));
    const bundle = await open(folder);
    assert.match(bundle.parts.unet.file, /fp16.safetensors$/);
    assert.match(bundle.notes.join(), /not diffusion_pytorch_model.bf16.safetensors, diffusion_pytorch_model.non_ema/);
    const { leftOut } = await Effect.runPromise(saveBundle(bundle, join(mkdtempSync(join(temp, "v-")), "out")));
    assert.deepEqual(leftOut.map((name) => name.split(".").at(-2)).sort(), ["bf16", "non_ema"]);
  });
  it("sharded variants have an index in either spelling", patient, async () => {
    for (const name of [`${STEM}.safetensors.index.fp16.json`, `${STEM}.fp16.safetensors.index.json`]) {
      const bundle = await open(sharded((f) => renameSync(join(f, INDEX), join(f, name))));
      assert.equal(bundle.parts.unet.files.length, 3);
      const out = join(mkdtempSync(join(temp, "v-")), "out");
      await Effect.runPromise(saveBundle(bundle, out));
      assert.deepEqual(readdirSync(unet(out)).sort(), readdirSync(unet(bundle.root.path)).sort());
    }
  });
});

describe("half precision and bfloat16", patient, () => {
  for (const [dtype, precision] of [["F16", 2 ** -10], ["BF16", 2 ** -7]] as const) {
    it(`${dtype}: opens, computes, is changed and saved as ${dtype}`, patient, async () => {
      const folder = model((f) => {
        for (const part of ["unet", "vae"]) narrow(join(f, part, `${STEM}.safetensors`), dtype);
        narrow(join(f, "text_encoder", "model.safetensors"), dtype);
      });
      const [exact, narrowed] = await Promise.all([embed(model()), embed(folder)]);
      const most = Math.max(...exact.map(Math.abs));
      const off = Math.max(...exact.map((x, i) => Math.abs(x - narrowed[i]))) / most;
      assert.ok(off > 0 && off < 40 * precision, `${off}`);
      const bundle = await open(folder);
      const key = "mid_block.attentions.0.transformer_blocks.0.attn2.to_k.weight";
      const [old] = await Effect.runPromise(readWeights(bundle, "unet", [key]));
      const value = tensor(old.data.map((x) => 1.1 * x + 0.01), old.dims);
      const out = join(mkdtempSync(join(temp, "half-")), "cured");
      await Effect.runPromise(saveBundle(withChanges(bundle, "unet", new Map([[key, value]])), out));
      const again = await open(out);
      const entry = again.parts.unet.header.entries.get(key);
      assert.equal(entry?.dtype, dtype);
      const [now] = await Effect.runPromise(readWeights(again, "unet", [key]));
      now.data.forEach((x, i) =>
        assert.ok(Math.abs(x - value.data[i]) <= precision / 2 * Math.abs(value.data[i]) + 1e-7)
      );
      const [a, b] = [folder, out].map((f) => readFileSync(join(unet(f), `${STEM}.safetensors`)));
      assert.equal(a.length, b.length);
      const { begin, end } = entry ?? { begin: 0, end: 0 };
      assert.ok(a.subarray(0, begin).equals(b.subarray(0, begin)) && a.subarray(end).equals(b.subarray(end)));
    });
  }
});
