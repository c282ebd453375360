import { describe, it } from "node:test";
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { Effect } from "effect";
import { type Padding, stockTokenizer, stockVocabulary } from "../../src/diffusion/stock_tokenizer.ts";

/** Computing takes longer on a busy machine than Bun gives a test by itself. */
const patient = { timeout: 120_000 };

type Row = [text: string, ids: number[]];
const golden: { rows: Row[]; other: Row[]; padded: [string, number[], number[]][] } = JSON.parse(
  readFileSync(new URL("../golden/stock_tokenizer.json", import.meta.url), "utf8"),
);
const open = (padding: Padding, positions?: number) => Effect.runPromise(stockTokenizer(padding, positions));
const [one, two] = [await open("<|endoftext|>"), await open("!")];
const idsOf = (tokenizer: typeof one, text: string) => tokenizer.tokens(text).map((t) => t.id);

describe("stock tokenizer: id for id as transformers' CLIPTokenizer", patient, () => {
  it(`${golden.rows.length} hard texts, padding of Stable Diffusion 1.x`, patient, () => {
    assert.ok(golden.rows.length > 350);
    for (const [text, ids] of golden.rows) assert.deepEqual(idsOf(one, text), ids, JSON.stringify(text));
  });
  it("the same of 2.x, which reads its padding token ! otherwise", patient, () => {
    const other = new Map(golden.other);
    assert.ok(other.size > 5);
    for (const [text, ids] of golden.rows) {
      assert.deepEqual(idsOf(two, text), other.get(text) ?? ids, JSON.stringify(text));
    }
  });
  it("77 ids, filled up as each does", patient, () => {
    for (const [text, first, second] of golden.padded) {
      assert.deepEqual(one.encode(text).ids, first);
      assert.deepEqual(two.encode(text).ids, second);
    }
  });
  it("has CLIP's 49,408 tokens, and no more positions than the encoder", patient, async () => {
    const { vocab, merges } = await Effect.runPromise(stockVocabulary);
    assert.deepEqual([vocab.size, merges.length, one.vocabSize], [49408, 48894, 49408]);
    assert.deepEqual([one.bos, one.eos, one.pad, two.pad], [49406, 49407, 49407, 0]);
    assert.equal((await open("!", 16)).encode("a dog").ids.length, 16);
  });
});
