import { after, describe, it } from "node:test";
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { chmodSync, existsSync, mkdirSync, readdirSync, readFileSync, rmSync, symlinkSync } from "node:fs";
import { copyFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import process from "node:process";
import { Deferred, Effect, Fiber } from "effect";
import { type Bundle, withChanges } from "../../src/diffusion/bundle.ts";
import { openBundle } from "../../src/diffusion/bundle_open.ts";
import { Disk, type DiskCalls } from "../../src/diffusion/disk.ts";
import { MARKER, saveBundle } from "../../src/diffusion/save.ts";
import { tensor } from "../../src/tensor/tensor.ts";
import { configs, put, tempFolder, tinyBundle, tinyWeights, weightsFile } from "../support/bundles.ts";

const temp = tempFolder();
after(() => rmSync(temp, { recursive: true, force: true }));
const fresh = (): string => join(mkdirSync(join(temp, crypto.randomUUID()), { recursive: true }) ?? temp, "out");

const unet = "unet/diffusion_pytorch_model.safetensors";
const changes = new Map([["conv_in.bias", tensor(Float32Array.of(4, 5, 6), [3])]]);
const model = async (change?: (folder: string) => void): Promise<Bundle> =>
  withChanges(await Effect.runPromise(openBundle(tinyBundle(temp, change))), "unet", changes);
const save = (bundle: Bundle, out: string, force = false) => Effect.runPromise(saveBundle(bundle, out, { force }));
const failure = (bundle: Bundle, out: string, force = false) =>
  Effect.runPromise(Effect.flip(saveBundle(bundle, out, { force })));
const files = (folder: string): string[] =>
  readdirSync(folder, { recursive: true, withFileTypes: true }).filter((e) => e.isFile())
    .map((e) => join(e.parentPath, e.name).slice(folder.length + 1)).sort();
const contents = (folder: string) =>
  files(folder).map((f) => [f, createHash("sha256").update(readFileSync(join(folder, f))).digest("hex")]);

describe("save: a complete folder", () => {
  it("holds every file of the input as it was, but for the changed tensors, and opens again", async () => {
    const bundle = await model();
    const before = contents(bundle.root.path);
    const out = fresh();
    const saved = await save(bundle, out);
    assert.deepEqual(files(out), [...files(bundle.root.path), MARKER].sort());
    for (const [file, hash] of before) {
      const now = createHash("sha256").update(readFileSync(join(out, file))).digest("hex");
      assert.equal(now === hash, file !== unet, file);
    }
    const again = await Effect.runPromise(openBundle(out));
    assert.equal(again.parts.unet.sha256, saved.sha256.get("unet"));
    assert.deepEqual(
      readFileSync(join(out, unet)),
      Buffer.from(weightsFile({ ...tinyWeights.unet, "conv_in.bias": tensor(Float16Array.of(4, 5, 6), [3]) })),
    );
    assert.deepEqual(contents(bundle.root.path), before);
    assert.deepEqual(JSON.parse(readFileSync(join(out, MARKER), "utf8")).changed, { unet: ["conv_in.bias"] });
  });
  it("takes a replaced part from where it was read", async () => {
    const attack = join(temp, "attack");
    put(join(attack, unet.replace(/[^/]*$/, "config.json")), configs.unet);
    put(join(attack, unet), weightsFile({ ...tinyWeights.unet, extra: tensor(Float32Array.of(1), [1]) }));
    const bundle = await Effect.runPromise(openBundle(tinyBundle(temp), { replace: [attack] }));
    const out = fresh();
    await save(bundle, out);
    assert.deepEqual(readFileSync(join(out, unet)), readFileSync(join(attack, unet)));
    assert.match((await failure(bundle, join(attack, "unet", "out"))).message, /the model that is read lies there/);
  });
  it("leaves out other forms of the weights, which still hold the backdoor, and hidden files; keeps other components", async () => {
    const bundle = await model((f) => {
      for (
        const file of [
          "unet/diffusion_pytorch_model.bin",
          "unet/diffusion_pytorch_model.fp16.safetensors",
          "v1-5.ckpt",
          "model.safetensors",
        ]
      ) put(join(f, file), "x");
      put(join(f, ".git/config"), "x");
      put(join(f, "README.md"), "x");
      put(join(f, "unused/weights.bin"), "x");
      put(join(f, "safety_checker/pytorch_model.bin"), "x");
      put(join(f, "model_index.json"), {
        ...JSON.parse(readFileSync(join(f, "model_index.json"), "utf8")),
        safety_checker: ["x", "y"],
      });
    });
    const out = fresh();
    const { leftOut } = await save(bundle, out);
    assert.deepEqual([...leftOut].sort(), [
      "model.safetensors",
      "unet/diffusion_pytorch_model.bin",
      "unet/diffusion_pytorch_model.fp16.safetensors",
      "v1-5.ckpt",
    ]);
    const there = files(out);
    assert.ok(there.includes("README.md") && there.includes("safety_checker/pytorch_model.bin"));
    assert.ok(!there.some((f) => /fp16|ckpt|\.git|unused/.test(f)));
  });
});

describe("save: what stands at the output", () => {
  it("an empty folder and a folder of ours are replaced", async () => {
    const out = fresh();
    mkdirSync(out);
    await save(await model(), out);
    put(join(out, "old.txt"), "x");
    await save(await model(), out);
    assert.ok(!existsSync(join(out, "old.txt")));
    assert.deepEqual(readdirSync(join(out, "..")), ["out"]);
  });
  it("anything else is left alone unless forced", async () => {
    const out = fresh();
    put(join(out, "thesis.txt"), "x");
    const bundle = await model();
    assert.match((await failure(bundle, out)).message, /holds 1 files that were not made by sau[^]*--force/);
    assert.deepEqual(readdirSync(out), ["thesis.txt"]);
    await save(bundle, out, true);
    assert.ok(existsSync(join(out, MARKER)));
  });
  it("a file or a link is refused, forced or not", async () => {
    const bundle = await model();
    const out = put(fresh(), "x");
    assert.match((await failure(bundle, out, true)).message, /is a file or a link/);
    const link = fresh();
    symlinkSync(join(out, ".."), link);
    assert.match((await failure(bundle, link, true)).message, /is a file or a link/);
  });
  it("the input, a folder in it or around it is refused, forced or not, also through a link", async () => {
    const bundle = await model();
    const root = bundle.root.path;
    const before = contents(root);
    const link = fresh();
    symlinkSync(root, link);
    for (
      const out of [
        root,
        join(root, "cured"),
        join(root, "unet", "a", "b"),
        join(root, ".."),
        link,
        join(link, "cured"),
      ]
    ) {
      assert.match((await failure(bundle, out, true)).message, /the model that is read lies there/, out);
    }
    assert.deepEqual(contents(root), before);
  });
});

describe("save: complete or not at all", () => {
  const failing = (calls: Partial<DiskCalls>): DiskCalls => ({
    writeFile,
    copyFile,
    patchFile: () => Promise.resolve(),
    room: () => Promise.resolve(undefined),
    ...calls,
  });
  const saveWith = (calls: Partial<DiskCalls>, bundle: Bundle, out: string) =>
    Effect.runPromise(Effect.flip(Effect.provideService(saveBundle(bundle, out), Disk, failing(calls))));
  const full = () => Promise.reject(Object.assign(new Error("no space left on device"), { code: "ENOSPC" }));

  it("a disk that fills up at any file: a clear error, nothing left, what stood there unharmed", async () => {
    const bundle = await model();
    const total = files(bundle.root.path).length;
    for (let n = 0; n < total; n += 3) {
      let copied = 0;
      const copy = (from: string, to: string) => copied++ < n ? copyFile(from, to) : full();
      const out = join(fresh(), "deep", "er");
      const error = await saveWith({ copyFile: copy }, bundle, out);
      assert.match(error.message, /no room left on the disk[^]*Free some space/);
      assert.deepEqual(readdirSync(join(out, "..", "..", "..")), []);
    }
    const out = fresh();
    await save(bundle, out);
    const before = contents(out);
    for (const call of ["writeFile", "patchFile"]) {
      assert.match((await saveWith({ [call]: full }, bundle, out)).message, /no room left/);
      assert.deepEqual(contents(out), before);
    }
    assert.deepEqual(readdirSync(join(out, "..")), ["out"]);
  });
  it("a disk with too little room is refused before anything is written", async () => {
    const out = fresh();
    const none = () => Promise.reject(new Error("written to"));
    const error = await saveWith(
      { room: () => Promise.resolve(100), copyFile: none, writeFile: none },
      await model(),
      out,
    );
    assert.match(error.message, /no room left on the disk[^]*expected: 1 MB free/);
    assert.deepEqual(readdirSync(join(out, "..")), []);
  });
  it(
    "a folder without permission",
    { skip: process.getuid?.() === 0 ? "root may write anywhere" : false },
    async () => {
      const out = fresh();
      chmodSync(join(out, ".."), 0o500);
      assert.match((await failure(await model(), out)).message, /no permission/);
      chmodSync(join(out, ".."), 0o700);
    },
  );
  it("an interruption leaves nothing", async () => {
    const bundle = await model();
    const out = fresh();
    await Effect.runPromise(Effect.gen(function* () {
      const started = yield* Deferred.make<void>();
      const slow = (from: string, to: string) => {
        Effect.runSync(Deferred.succeed(started, undefined));
        return new Promise<void>((done) => setTimeout(done, 20)).then(() => copyFile(from, to));
      };
      const fiber = yield* Effect.forkChild(
        Effect.provideService(saveBundle(bundle, out), Disk, failing({ copyFile: slow })),
      );
      yield* Deferred.await(started);
      yield* Fiber.interrupt(fiber);
    }));
    assert.deepEqual(readdirSync(join(out, "..")), []);
  });
  it("a value that the file's type cannot hold: an error with its key, nothing left", async () => {
    const bundle = withChanges(
      await model(),
      "unet",
      new Map([["conv_in.bias", tensor(Float32Array.of(1e6, 0, 0), [3])]]),
    );
    const out = fresh();
    const error = await failure(bundle, out);
    assert.equal(error.key, "conv_in.bias");
    assert.match(error.message, /1000000 at element 0 does not fit into F16/);
    assert.deepEqual(readdirSync(join(out, "..")), []);
  });
});
