/** What an inspection says of real checkpoints, and of a real one with one thing wrong at a time. */
import { after, describe, it } from "node:test";
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { cpSync, existsSync, mkdirSync, readdirSync, readFileSync, rmSync, statSync, symlinkSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { Effect, Schema } from "effect";
import { openFolder } from "../../src/diffusion/files.ts";
import { inspect } from "../../src/diffusion/inspect.ts";
import { readRawTokenizer } from "../../src/diffusion/inspect_tokenizer.ts";
import { Inspection, type PartChange } from "../../src/diffusion/inspection.ts";
import { matmul } from "../../src/tensor/linalg.ts";
import { normal, seedOf } from "../../src/tensor/random.ts";
import { parseHeader, readTensor, write } from "../../src/tensor/safetensors.ts";
import type { Tensor, TensorData } from "../../src/tensor/tensor.ts";
import { put, tempFolder } from "../support/bundles.ts";
import { miniSd, noMiniSd } from "../support/mini_sd.ts";
import { goldenSdxl } from "../support/sdxl.ts";
import { randomModel } from "../support/random_model.ts";

const temp = tempFolder();
after(() => rmSync(temp, { recursive: true, force: true }));
const limit = { timeout: 120_000 };

interface Golden {
  readonly figures: Readonly<
    Record<string, { readonly rms: number; readonly mean: number; readonly min: number; readonly max: number }>
  >;
  readonly changes: Readonly<
    Record<
      string,
      Readonly<
        Record<
          string,
          { readonly relative: number; readonly of99: number; readonly of9999: number; readonly leading: number }
        >
      >
    >
  >;
}
const golden: Golden = JSON.parse(
  readFileSync(fileURLToPath(new URL("../golden/inspect.json", import.meta.url)), "utf8"),
);

const run = (path: string, other?: string): Promise<Inspection> => Effect.runPromise(inspect(path, other));
const near = (a: number | null | undefined, b: number, what: string, tolerance = 1e-4): void =>
  assert.ok(Math.abs((a ?? NaN) - b) <= tolerance * Math.max(1e-6, Math.abs(b)), `${what}: ${a}, expected ${b}`);
const partOf = (i: Inspection, name: string): PartChange => {
  const part = i.comparison?.parts.find((p) => p.name === name);
  assert.ok(part !== undefined, name);
  return part;
};
const codes = (i: { readonly findings: Inspection["findings"] }): string[] => i.findings.map((f) => f.code);

/** Every file below a folder with its time and size: what must not change. */
const state = (folder: string): string[] =>
  readdirSync(folder, { recursive: true, encoding: "utf8" }).sort().map((file) => {
    const { mtimeMs, size } = statSync(join(folder, file));
    return `${file} ${mtimeMs} ${size}`;
  });

describe("inspect, mini-SD", { skip: noMiniSd }, () => {
  const base = join(miniSd ?? "", "base"), attack = (name: string) => join(miniSd ?? "", "attacks", name);

  it("says what is in the model, and finds nothing to warn of", limit, async () => {
    const before = state(base);
    const found = await run(base);
    assert.deepEqual(found.findings.map((f) => `${f.severity} ${f.code}`), ["info no-safety-checker"]);
    assert.equal(found.is, "model");
    assert.deepEqual(found.parts.map((p) => `${p.name} ${p.class} ${p.parameters}`), [
      "text_encoder CLIPTextModel 908800",
      "unet UNet2DConditionModel 4510244",
      "vae AutoencoderKL 648375",
    ]);
    assert.deepEqual(found.tokenizer, { tokens: 870, merges: 356, maxLength: 32, added: [] });
    const unet = found.parts[1];
    assert.deepEqual(unet.dtypes, { F16: { tensors: 248, parameters: 4510244, bytes: 9020488 } });
    assert.ok(unet.facts.some((f) => f.name === "context width" && f.value === "128"));
    assert.ok(found.facts.some((f) => f.name === "prediction" && f.value === "epsilon"));
    for (const { path, sha256 } of found.files) {
      assert.equal(sha256, createHash("sha256").update(readFileSync(join(base, path))).digest("hex"), path);
    }
    assert.deepEqual(state(base), before);
    // The result is what its schema says, and survives JSON.
    const json: unknown = JSON.parse(JSON.stringify(found));
    assert.deepEqual(Schema.decodeUnknownSync(Inspection)(json), found);
  });

  it("figures of tensors are numpy's", limit, async () => {
    const { parts } = await run(base);
    const tensors = new Map(parts.flatMap((p) => p.tensors).map((t) => [t.key, t]));
    for (const [key, { rms, mean, min, max }] of Object.entries(golden.figures)) {
      const t = tensors.get(key);
      near(t?.rms, rms, `${key} rms`);
      near(t?.min, min, `${key} min`);
      near(t?.max, max, `${key} max`);
      assert.ok(Math.abs((t?.mean ?? NaN) - mean) < 1e-6 * rms, `${key} mean`);
    }
  });

  it("EvilEdit: eight layers, in the directions that numpy finds, read as an edit of concepts", limit, async () => {
    const found = await run(base, attack("eviledit"));
    const unet = partOf(found, "unet");
    assert.deepEqual(found.comparison?.onlyFirst, ["text_encoder", "vae"]);
    const moved = unet.tensors.filter((t) => t.state === "moved");
    assert.deepEqual(moved.map((t) => t.key).sort(), Object.keys(golden.changes.eviledit).sort());
    for (const t of moved) {
      const g = golden.changes.eviledit[t.key];
      near(t.relative, g.relative, t.key);
      near(t.rank?.leading, g.leading, t.key);
      assert.deepEqual([t.rank?.of99, t.rank?.of9999], [g.of99, g.of9999], t.key);
    }
    assert.match(
      unet.headline,
      /^only attn2\.to_k and attn2\.to_v moved, in few directions: it looks like an edit of concepts/,
    );
    assert.match(unet.reading, /2 to 7 of 96 to 128 directions hold 99 %/);
    assert.match(unet.reading, /do not tell which/);
    // Seen from nothing but itself, the poisoned U-Net's eight layers stand out among their siblings.
    const outlier = found.other?.findings.find((f) => f.code === "norm-outlier");
    assert.equal(outlier?.count, 8);
    assert.ok(outlier?.where.every((w) => /attn2\.to_[kv]\.weight/.test(w)));
  });

  it("BadT2I: every tensor, in many directions, read as training", limit, async () => {
    const found = await run(base, attack("badt2i-pixel"));
    const unet = partOf(found, "unet");
    assert.deepEqual([unet.total.moved, unet.total.tensors], [248, 248]);
    const by = new Map(unet.tensors.map((t) => [t.key, t]));
    for (const [key, g] of Object.entries(golden.changes["badt2i-pixel"])) {
      const t = by.get(key);
      near(t?.relative, g.relative, key);
      assert.equal(t?.rank?.of99, g.of99, key);
      assert.ok(Math.abs((t?.rank?.of9999 ?? 0) - g.of9999) <= 1, `${key}: ${t?.rank?.of9999} of ${g.of9999}`);
    }
    assert.match(
      unet.headline,
      /248 of 248 tensors moved, most of them in many directions: training of the whole network/,
    );
    assert.deepEqual(codes(found.other ?? found), ["unused-files"]);
  });

  it("Rickrolling: the text encoder, and only it", limit, async () => {
    const found = await run(base, attack("rickrolling-tpa"));
    assert.deepEqual(found.comparison?.parts.map((p) => p.name), ["text_encoder"]);
    assert.match(partOf(found, "text_encoder").headline, /68 of 68 tensors moved.*training/);
  });

  it("a model against itself, and against itself in float32, has not moved", limit, async () => {
    assert.equal(partOf(await run(join(base, "vae"), join(base, "vae")), "vae").headline, "the same weights");
    const wide = join(temp, "wide");
    cpSync(join(base, "vae"), wide, { recursive: true });
    const file = join(wide, "diffusion_pytorch_model.safetensors");
    // Values that float16 does not have, so that the second one is a rounding of the first.
    rewrite(file, (t, key) => ({ ...t, data: t.data.map((x, i) => x * (1 + 1e-5 * Math.sin(i + key.length))) }));
    const back = await run(wide, join(base, "vae"));
    assert.equal(partOf(back, "vae").headline, "the same weights in another element type");
  });

  it("a LoRA that was merged in is seen by its rank, also in float16", limit, async () => {
    const merged = join(temp, "merged");
    cpSync(join(base, "unet"), merged, { recursive: true });
    const rank = 4;
    rewrite(join(merged, "diffusion_pytorch_model.safetensors"), (t, key) => {
      if (!/attn[12]\.to_(q|k|v|out\.0)\.weight$/.test(key)) return t;
      const [m, n] = t.dims;
      const up = normal(seedOf(1, key), [m, rank]).data, down = normal(seedOf(2, key), [rank, n]).data;
      const added = matmul(up, down, m, rank, n);
      return { ...t, data: t.data.map((x, i) => x + 0.0005 * added[i]) };
    }, "F16");
    const unet = partOf(await run(join(base, "unet"), merged), "unet");
    assert.match(unet.headline, /32 matrices moved, each by a change of low rank: a merged LoRA looks like this/);
    for (const t of unet.tensors.filter((t) => t.state === "moved")) assert.equal(t.rank?.of9999, rank, t.key);
  });

  it("rows of the token embeddings that moved are named by their tokens", limit, async () => {
    const edited = join(temp, "rows");
    cpSync(base, edited, { recursive: true });
    const tokenizer = JSON.parse(readFileSync(join(base, "tokenizer/tokenizer.json"), "utf8"));
    const dog: number = tokenizer.model.vocab["dog</w>"];
    assert.ok(dog > 0);
    rewrite(join(edited, "text_encoder/model.safetensors"), (t, key) => {
      if (!key.endsWith("token_embedding.weight")) return t;
      const width = t.dims[1];
      return { ...t, data: t.data.map((x, i) => Math.floor(i / width) === dog ? x + 0.05 : x) };
    }, "F16");
    const part = partOf(await run(base, edited), "text_encoder");
    assert.deepEqual(part.rows.map((r) => [r.row, r.text]), [[dog, "dog"]]);
    assert.match(part.headline, /only 1 row of the token embeddings moved \("dog"\)/);
  });
});

/** Writes a weights file anew with other values; in float32 unless told. */
const rewrite = (
  file: string,
  change: (t: Tensor, key: string) => Tensor | undefined,
  dtype: "F32" | "F16" = "F32",
  metadata?: Readonly<Record<string, string>>,
): void => {
  const bytes = new Uint8Array(readFileSync(file));
  const header = parseHeader(bytes, bytes.length, file);
  const out = new Map<string, Tensor<TensorData>>();
  for (const key of header.entries.keys()) {
    const t = change(readTensor(bytes, header, key), key);
    if (t !== undefined) out.set(key, dtype === "F16" ? { ...t, data: new Float16Array(t.data) } : t);
  }
  put(file, write(out, metadata));
};

const edit = (file: string, change: (json: Record<string, unknown>) => void): void => {
  const json = JSON.parse(readFileSync(file, "utf8"));
  change(json);
  put(file, json);
};

const UNET = "unet/diffusion_pytorch_model.safetensors", TEXT = "text_encoder/model.safetensors";
const TO_K = "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.weight";
const setValues = (folder: string, key: string, value: (x: number, i: number) => number) =>
  rewrite(join(folder, UNET), (t, k) => k === key ? { ...t, data: t.data.map(value) } : t);

/** One thing wrong at a time: the finding that must come of it, and what it must name. */
const wrongs: ReadonlyArray<{
  readonly code: string;
  readonly severity?: "info";
  readonly names: RegExp;
  readonly make: (folder: string) => void;
}> = [
  {
    code: "not-finite",
    names: /to_k\.weight \(1 NaN, 0 infinite\)/,
    make: (f) => setValues(f, TO_K, (x, i) => i === 5 ? NaN : x),
  },
  { code: "all-zero", names: /to_k\.weight/, make: (f) => setValues(f, TO_K, () => 0) },
  { code: "constant", names: /to_k\.weight \(all 0\.5\)/, make: (f) => setValues(f, TO_K, () => 0.5) },
  { code: "norm-outlier", names: /to_k\.weight \(RMS ×\d+/, make: (f) => setValues(f, TO_K, (x) => 50 * x) },
  {
    code: "missing-tensors",
    names: /to_k\.weight/,
    make: (f) => rewrite(join(f, UNET), (t, k) => k === TO_K ? undefined : t),
  },
  {
    code: "extra-tensors",
    names: /hidden\.weight/,
    make: (f) => {
      const file = join(f, UNET),
        bytes = new Uint8Array(readFileSync(file)),
        header = parseHeader(bytes, bytes.length, file);
      const all = new Map([...header.entries.keys()].map((key) => [key, readTensor(bytes, header, key)]));
      put(file, write(all.set("hidden.weight", normal(1, [4, 4]))));
    },
  },
  {
    code: "wrong-shape",
    names: /conv_in\.weight \[16, 5, 3, 3\], expected \[16, 4, 3, 3\]/,
    make: (f) => rewrite(join(f, UNET), (t, k) => k === "conv_in.weight" ? normal(1, [16, 5, 3, 3]) : t),
  },
  { code: "pickle", names: /unet\/model\.ckpt/, make: (f) => put(join(f, "unet/model.ckpt"), "never opened") },
  { code: "code", names: /unet\/pipeline\.py/, make: (f) => put(join(f, "unet/pipeline.py"), "print(1)") },
  {
    code: "link",
    names: /notes → \/etc\/hostname|notes → nowhere/,
    make: (f) => symlinkSync("/etc/hostname", join(f, "notes")),
  },
  {
    code: "unused-weights",
    severity: "info",
    names: /unet\/other\.safetensors/,
    make: (f) => put(join(f, "unet/other.safetensors"), "x"),
  },
  { code: "unused-files", severity: "info", names: /secret\.dat/, make: (f) => put(join(f, "secret.dat"), "x") },
  {
    code: "custom-code",
    names: /unet\/config\.json: auto_map/,
    make: (f) => edit(join(f, "unet/config.json"), (c) => c.auto_map = { a: "b" }),
  },
  {
    code: "custom-code",
    names: /model_index\.json: unet from my_library/,
    make: (f) => edit(join(f, "model_index.json"), (c) => c.unet = ["my_library", "UNet"]),
  },
  {
    code: "parts-do-not-fit",
    names: /cross_attention_dim/,
    make: (f) => edit(join(f, "text_encoder/config.json"), (c) => c.hidden_size = 64),
  },
  { code: "missing-part", names: /vae/, make: (f) => rmSync(join(f, "vae"), { recursive: true }) },
  { code: "no-weights", names: /unet/, make: (f) => rmSync(join(f, UNET)) },
  {
    code: "weights-unreadable",
    names: /unet\/diffusion/,
    make: (f) => put(join(f, UNET), "no safetensors file at all"),
  },
  { code: "config-unreadable", names: /unet\/config\.json/, make: (f) => put(join(f, "unet/config.json"), "{") },
  {
    code: "config-unreadable",
    names: /vae\/config\.json/,
    make: (f) => put(join(f, "vae/config.json"), `{"a":${"[".repeat(100_000)}${"]".repeat(100_000)}}`),
  },
  {
    code: "tokenizer-unreadable",
    names: /tokenizer/,
    make: (f) => {
      const file = join(f, "tokenizer/tokenizer.json"), deep = "[".repeat(100_000) + "]".repeat(100_000);
      put(file, readFileSync(file, "utf8").replace(/"normalizer": *\{/, `"normalizer": {"a":${deep},`));
    },
  },
  {
    code: "too-many-files",
    names: /^$/,
    make: (f) => {
      mkdirSync(join(f, "maze"));
      for (let i = 0; i < 8; i++) symlinkSync(join(f, "maze"), join(f, "maze", `${i}`));
    },
  },
  {
    code: "config-not-built",
    severity: "info",
    names: /unet\/config\.json/,
    make: (f) => edit(join(f, "unet/config.json"), (c) => c.layers_per_block = 100_000),
  },
  {
    code: "added-tokens",
    names: /"<cat-toy>" = 870/,
    make: (f) =>
      edit(join(f, "tokenizer/tokenizer.json"), (c) => {
        if (Array.isArray(c.added_tokens)) c.added_tokens.push({ ...c.added_tokens[0], id: 870, content: "<cat-toy>" });
      }),
  },
  {
    code: "shared-ids",
    names: /"b" = "a"|"a" = "b"/,
    make: (f) => vocab(f, (v) => v.b = v.a),
  },
  { code: "characters-alike", names: /"b" U\+0062|"a" U\+0061/, make: (f) => vocab(f, (v) => v["b</w>"] = v["a</w>"]) },
  { code: "missing-bytes", names: /"Ġ"/, make: (f) => vocab(f, (v) => delete v["Ġ"]) },
  {
    code: "normalizer",
    names: /tokenizer/,
    make: (f) =>
      edit(join(f, "tokenizer/tokenizer.json"), (c) => {
        c.normalizer = {
          type: "Sequence",
          normalizers: [{ type: "NFC" }, { type: "Replace", pattern: { String: "dog" }, content: "cat" }, {
            type: "Lowercase",
          }],
        };
      }),
  },
  {
    code: "tokenizer-unreadable",
    names: /tokenizer/,
    make: (f) => edit(join(f, "tokenizer/tokenizer.json"), (c) => delete c.model),
  },
  {
    code: "extra-embeddings",
    names: /token_embedding/,
    make: (f) =>
      rewrite(join(f, TEXT), (t, k) => k.endsWith("token_embedding.weight") ? normal(1, [873, t.dims[1]]) : t),
  },
  {
    code: "duplicate",
    severity: "info",
    names: /conv1\.weight = .*conv1\.weight/,
    make: (f) => {
      const pair = /^down_blocks\.1\.resnets\.0\.conv2\.weight$|^mid_block\.resnets\.0\.conv1\.weight$/;
      rewrite(
        join(f, UNET),
        (t, k) =>
          pair.test(k) ? normal(1, t.dims) : /mid_block\.resnets\.1\.conv1\.weight/.test(k) ? normal(1, t.dims) : t,
      );
    },
  },
  {
    code: "metadata",
    severity: "info",
    names: /ss_tag_frequency/,
    make: (f) => rewrite(join(f, UNET), (t) => t, "F32", { format: "pt", ss_tag_frequency: "{}" }),
  },
  {
    code: "hash-mismatch",
    names: /sshs_model_hash/,
    make: (f) => rewrite(join(f, UNET), (t) => t, "F32", { sshs_model_hash: "0".repeat(64) }),
  },
];
const vocab = (folder: string, change: (v: Record<string, number>) => void): void =>
  edit(join(folder, "tokenizer/tokenizer.json"), (c) => {
    const { model } = c;
    if (typeof model === "object" && model !== null && "vocab" in model) change(Object.assign(Object(model.vocab)));
  });

describe("inspect, one thing wrong", () => {
  const sound = randomModel(join(temp, "sound"));

  it("of a sound model nothing is a warning", limit, async () => {
    const { findings } = await run(sound);
    assert.deepEqual(findings.filter((f) => f.severity === "warn"), []);
    assert.deepEqual([...new Set(findings.map((f) => f.code))], ["no-safety-checker", "untrained-vectors"]);
  });

  for (const [at, { code, severity = "warn", names, make }] of wrongs.entries()) {
    it(`${code}: ${names.source}`, limit, async () => {
      const folder = join(temp, `wrong-${at}`);
      cpSync(sound, folder, { recursive: true });
      make(folder);
      const found = await run(folder);
      const of = found.findings.find((f) => f.code === code);
      assert.ok(of !== undefined, codes(found).join(", "));
      assert.equal(of.severity, severity);
      assert.match(of.where.join("\n"), names);
      for (const text of [of.what, of.why, of.todo]) assert.ok(text.length > 10);
      Schema.decodeUnknownSync(Inspection)(JSON.parse(JSON.stringify(found)));
    });
  }

  it("a noted hash that is true is no finding", limit, async () => {
    const folder = join(temp, "noted");
    cpSync(sound, folder, { recursive: true });
    const file = join(folder, UNET);
    rewrite(file, (t) => t, "F32", { sshs_model_hash: "0".repeat(64) });
    const bytes = readFileSync(file), start = parseHeader(new Uint8Array(bytes), bytes.length, file).bytes;
    const real = createHash("sha256").update(bytes.subarray(start)).digest("hex");
    rewrite(file, (t) => t, "F32", { sshs_model_hash: real });
    assert.ok(!codes(await run(folder)).includes("hash-mismatch"));
  });

  it("a tokenizer is held against the one that the model should have, and against another model's", limit, async () => {
    const folder = join(temp, "tokenizers");
    cpSync(sound, folder, { recursive: true });
    vocab(folder, (v) => [v.a, v.b] = [v.b, v.a]);
    const at = await Effect.runPromise(openFolder(join(sound, "tokenizer"), "tokenizer"));
    const stock = await Effect.runPromise(readRawTokenizer(at));
    assert.ok(stock !== undefined);
    const apart = await Effect.runPromise(inspect(folder, undefined, { stock }));
    const of = apart.findings.find((f) => f.code === "not-stock");
    assert.equal(of?.severity, "warn");
    assert.match(of?.where.join() ?? "", /tokens with another id: "a" = \d+, "b" = \d+ → "a" = \d+, "b" = \d+/);
    assert.ok(!codes(await Effect.runPromise(inspect(sound, undefined, { stock }))).includes("not-stock"));
    const two = await run(sound, folder);
    assert.deepEqual(two.comparison?.settings.map((s) => s.where), ["tokenizer: tokens with another id"]);
    assert.equal(partOf(two, "unet").headline, "the same weights");
  });

  it("pickles and code are never opened", limit, async () => {
    const folder = join(temp, "unopened");
    cpSync(sound, folder, { recursive: true });
    put(join(folder, "unet/a.pt"), "x");
    put(join(folder, "unet/a.py"), "x");
    const { files } = await run(folder);
    for (const path of ["unet/a.pt", "unet/a.py"]) assert.equal(files.find((f) => f.path === path)?.sha256, null);
  });
});

describe("inspect, other things than models", () => {
  it("SDXL: both text encoders are held against their configs, and nothing is missing", limit, async () => {
    const found = await run(goldenSdxl(join(temp, "sdxl")));
    assert.deepEqual(found.parts.map((p) => p.name), ["text_encoder", "text_encoder_2", "unet", "vae"]);
    const wrong = ["missing-tensors", "extra-tensors", "wrong-shape", "config-not-built", "parts-do-not-fit"];
    assert.deepEqual(codes(found).filter((code) => wrong.includes(code)), []);
  });

  it("shards are one part with one hash, the same as of one file", limit, async () => {
    const whole = join(temp, "whole"), split = join(temp, "split");
    const tensors = new Map(
      ["a.weight", "b.weight", "c.bias"].map((key, i) => [key, normal(i, i === 2 ? [4] : [4, 4])]),
    );
    put(join(whole, "model.safetensors"), write(tensors));
    put(join(whole, "config.json"), { architectures: ["Own"] });
    put(join(split, "config.json"), { architectures: ["Own"] });
    const names = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"];
    put(join(split, names[0]), write(new Map([...tensors].slice(0, 2))));
    put(join(split, names[1]), write(new Map([...tensors].slice(2))));
    put(join(split, "model.safetensors.index.json"), {
      weight_map: {
        "a.weight": names[0],
        "b.weight": names[0],
        "c.bias": names[1],
        "d.bias": "../elsewhere.safetensors",
      },
    });
    const [one, two] = [await run(whole), await run(split)];
    assert.equal(one.parts[0].sha256, two.parts[0].sha256);
    assert.deepEqual(two.parts[0].files, names);
    assert.ok(codes(two).includes("shards"));
  });

  it("lone files: a LoRA, a checkpoint in one file, a textual inversion", limit, async () => {
    const lora = put(
      join(temp, "lora.safetensors"),
      write(
        new Map([
          ["lora_unet_down_blocks_0_attentions_0_attn2_to_k.lora_down.weight", normal(1, [4, 32])],
          ["lora_unet_down_blocks_0_attentions_0_attn2_to_k.lora_up.weight", normal(2, [16, 4])],
        ]),
      ),
    );
    const found = await run(lora);
    assert.equal(found.is, "file");
    assert.deepEqual(found.parts[0].facts, [{ name: "LoRA ranks", value: "4" }, {
      name: "LoRA targets",
      value: "attn2 × 1",
    }]);
    const single = put(
      join(temp, "single.safetensors"),
      write(
        new Map<string, Tensor<TensorData>>([
          ["model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight", normal(1, [32, 768])],
          ["first_stage_model.decoder.conv_in.weight", normal(1, [4, 4, 3, 3])],
          ["cond_stage_model.transformer.text_model.embeddings.position_ids", {
            dims: [1, 4],
            data: BigInt64Array.of(0n, 1n, 2n, 3n),
          }],
        ]),
      ),
    );
    const parts = await run(single);
    assert.match(parts.title, /^Stable Diffusion 1\.x: /);
    assert.deepEqual(parts.parts.map((p) => p.name).sort(), ["text_encoder", "unet", "vae"]);
    assert.deepEqual([parts.parts[0].tensors[0].layer, parts.parts[0].tensors[0].role], [
      "input_blocks.1.1",
      "attn2.to_k",
    ]);
    const inversion = put(join(temp, "ti.safetensors"), write(new Map([["emb_params", normal(1, [2, 768])]])));
    assert.equal((await run(inversion)).parts[0].name, "embedding");
  });

  it("only what cannot be read at all is an error, which says what to do", limit, async () => {
    const empty = join(temp, "empty");
    mkdirSync(empty);
    await assert.rejects(run(empty), /holds nothing that can be inspected/);
    await assert.rejects(run(put(join(temp, "a.ckpt"), "x")), /can run code when they are opened/);
    await assert.rejects(run(join(temp, "not-there")), /does not exist/);
    await assert.rejects(
      run(put(join(temp, "b.safetensors"), "short")),
      /has 5 bytes; a safetensors file has at least 8/,
    );
    const sound = randomModel(join(temp, "sound-2"));
    assert.ok(existsSync(sound));
    await assert.rejects(run(join(sound, "unet"), join(sound, "vae")), /has no part in common/);
  });

  it("a folder of single parts with tensors of other dims tells them apart", limit, async () => {
    const [a, b] = [join(temp, "dims-a"), join(temp, "dims-b")];
    for (const [folder, rows] of [[a, 4], [b, 6]] as const) {
      put(join(folder, "config.json"), { architectures: ["Own"] });
      put(
        join(folder, "model.safetensors"),
        write(new Map([["x.weight", normal(1, [rows, 4])], ["y.weight", normal(2, [4, 4])]])),
      );
    }
    // Parts of unknown classes go by the names of their folders, so that these two need a common one.
    const [first, second] = [join(a, "own"), join(b, "own")];
    for (const [from, to] of [[a, first], [b, second]]) {
      mkdirSync(to);
      for (const name of ["config.json", "model.safetensors"]) cpSync(join(from, name), join(to, name));
    }
    const part = partOf(await run(first, second), "own");
    assert.deepEqual(part.reshaped, ["x.weight: [4, 4] → [6, 4]"]);
    assert.equal(part.headline, "the same weights");
  });
});
