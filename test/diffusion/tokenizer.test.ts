import { after, describe, it } from "node:test";
import assert from "node:assert/strict";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { Effect } from "effect";
import fc from "fast-check";
import type { BundleError } from "../../src/diffusion/errors.ts";
import { openFolder } from "../../src/diffusion/files.ts";
import { MAX_TEXT, type Tokenizer } from "../../src/diffusion/tokenizer.ts";
import { loadTokenizer } from "../../src/diffusion/tokenizer_files.ts";

interface Row {
  readonly text: string;
  readonly content: number[];
  readonly padded: number[];
}
const goldenFolder = fileURLToPath(new URL("../golden/", import.meta.url));
const golden: { rows: Row[]; older: { config: object; rows: Row[] }[] } = JSON.parse(
  readFileSync(join(goldenFolder, "tokenizer.json"), "utf8"),
);
const source = JSON.parse(readFileSync(join(goldenFolder, "tokenizer/tokenizer.json"), "utf8"));

const temp = mkdtempSync(join(tmpdir(), "sau-tokenizer-"));
after(() => rmSync(temp, { recursive: true }));
const folderOf = (files: Record<string, unknown>): string => {
  const folder = mkdtempSync(join(temp, "t-"));
  for (const [name, value] of Object.entries(files)) {
    writeFileSync(join(folder, name), typeof value === "string" ? value : JSON.stringify(value));
  }
  return folder;
};

const load = (path: string, positions = 77): Promise<Tokenizer> =>
  Effect.runPromise(Effect.flatMap(openFolder(path, "tokenizer"), (f) => loadTokenizer(f, positions)));
const failure = (path: string): Promise<BundleError> =>
  Effect.runPromise(Effect.flip(Effect.flatMap(openFolder(path, "tokenizer"), (f) => loadTokenizer(f, 77))));

const mini = await load(join(goldenFolder, "tokenizer"));
const agrees = (tokenizer: Tokenizer, rows: readonly Row[]) => {
  for (const { text, content, padded } of rows) {
    const got = tokenizer.encode(text);
    assert.deepEqual(got.content.map((t) => t.id), content, JSON.stringify(text));
    assert.deepEqual(got.ids, padded, JSON.stringify(text));
    assert.equal(got.truncated, content.length > 30);
  }
};
const merges: [string, string][] = source.model.merges;
const older = (config: object) =>
  folderOf({
    "vocab.json": source.model.vocab,
    "merges.txt": `#version: 0.2\n${merges.map((m) => m.join(" ")).join("\n")}\n`,
    "tokenizer_config.json": config,
  });

describe("tokenizer: id for id as transformers' CLIPTokenizer", () => {
  it(`${golden.rows.length} hard texts, read from tokenizer.json`, () => {
    assert.ok(golden.rows.length >= 200);
    agrees(mini, golden.rows);
  });
  it("the same from vocab.json and merges.txt, with the padding of Stable Diffusion 1 and 2", async () => {
    for (const { config, rows } of golden.older) agrees(await load(older(config)), rows);
  });
  it("merges written as strings, as older tokenizer.json files have them", async () => {
    const model = { ...source.model, merges: merges.map((m) => m.join(" ")) };
    agrees(await load(folderOf({ "tokenizer.json": { ...source, model } }), 32), golden.rows);
  });
});

describe("tokenizer: laws", () => {
  const anyText = fc.oneof(fc.string(), fc.string({ unit: "binary" }));
  it("ids are BOS, content, EOS, padding: maxLength of them, all in the vocabulary", () => {
    fc.assert(fc.property(anyText, (text) => {
      const { ids, content } = mini.encode(text);
      const kept = content.slice(0, mini.maxLength - 2).map((t) => t.id);
      assert.equal(ids.length, mini.maxLength);
      assert.deepEqual(ids.slice(0, kept.length + 2), [mini.bos, ...kept, mini.eos]);
      assert.ok(ids.slice(kept.length + 2).every((id) => id === mini.pad));
      assert.ok(ids.every((id) => Number.isInteger(id) && id >= 0 && id < mini.vocabSize));
    }));
  });
  it("white space around a text and between its words counts for nothing", () => {
    const word = fc.stringMatching(/^[a-zé狗😀!]{1,6}$/);
    const space = fc.constantFrom(" ", "\t", "\n", "  ", "\u3000", "\u00a0");
    fc.assert(fc.property(fc.array(word), space, space, (words, a, b) => {
      const ids = (text: string) => mini.encode(text).ids;
      assert.deepEqual(ids(a + words.join(b) + a), ids(words.join(" ")));
    }));
  });
  it("the pieces of a plain text spell it", () => {
    const shown = mini.encode("A Photo of a DOG, please!").content;
    const words = Map.groupBy(shown, (t) => t.word);
    const spelt = [...words.values()].map((w) => w.map((t) => t.text).join(""));
    assert.deepEqual(spelt, ["a", "photo", "of", "a", "dog", ",", "please", "!"]);
  });
  it("parts of a character are shown as bytes", () => {
    assert.deepEqual(mini.encode("о").content.map((t) => t.text), ["\\xD0", "\\xBE"]);
  });
});

describe("tokenizer: added tokens", () => {
  it("are found whatever signs they hold", async () => {
    const content = "<cat-toy/[a|b]^{2}\\\\.$*+?()>";
    const added_tokens = [...source.added_tokens, { ...source.added_tokens[0], id: 870, content }];
    const tokenizer = await load(folderOf({ "tokenizer.json": { ...source, added_tokens } }), 32);
    assert.deepEqual(tokenizer.tokens(`a ${content} dog`).map((t) => t.text), ["a", content, "dog"]);
  });
});

describe("tokenizer: bounds", () => {
  it("a text beyond the limit is refused, one at the limit is read in a moment", () => {
    assert.throws(() => mini.encode("a".repeat(MAX_TEXT + 1)), RangeError);
    assert.equal(mini.encode("о".repeat(MAX_TEXT)).ids.length, 32);
  });
  it("no more positions than the encoder has", async () =>
    assert.equal((await load(join(goldenFolder, "tokenizer"), 16)).encode("a dog").ids.length, 16));
});

describe("tokenizer: folders that hold none", () => {
  const model = source.model;
  const cases: [string, Record<string, unknown>, RegExp][] = [
    ["an empty folder", {}, /tokenizer.json, or vocab.json and merges.txt/],
    [
      "another model's tokenizer",
      { "tokenizer_config.json": { tokenizer_class: "T5Tokenizer" } },
      /T5Tokenizer[^]*expected: a CLIP/,
    ],
    ["broken JSON", { "tokenizer.json": "{" }, /tokenizer.json is not JSON/],
    ["a word list that is not whole numbers", {
      "tokenizer.json": { ...source, model: { ...model, vocab: { a: 1.5 } } },
    }, /integer[^]*"vocab"/],
    [
      "merges of unknown symbols",
      { "tokenizer.json": { ...source, model: { ...model, merges: [["q", "☃"]] } } },
      /joins q \+ ☃/,
    ],
    ["no special tokens", { "vocab.json": { a: 0 }, "merges.txt": "" }, /lacks its special token <\|startoftext\|>/],
    [
      "another kind of model",
      { "tokenizer.json": { ...source, model: { ...model, type: "Unigram" } } },
      /no byte-pair encoding/,
    ],
    ["other preparation", { "tokenizer.json": { ...source, normalizer: { type: "NFKC" } } }, /prepares texts by/],
  ];
  for (const [name, files, message] of cases) {
    it(name, async () => assert.match((await failure(folderOf(files))).message, message));
  }
});
