/** Two tokenizers as one: a row of ids for each encoder, and what cannot be told for both at once. */
import assert from "node:assert/strict";
import { Effect } from "effect";
import { rmSync } from "node:fs";
import { join } from "node:path";
import { after, describe, it } from "node:test";
import { openFolder } from "../../src/diffusion/files.ts";
import { readPrompts } from "../../src/diffusion/readings.ts";
import { loadTokenizer } from "../../src/diffusion/tokenizer_files.ts";
import { idsOf, pairTokenizers, withToken } from "../../src/diffusion/tokenizer_pair.ts";
import { tinyTokenizer } from "../../src/testing/tiny_model.ts";
import { put, tempFolder } from "../support/bundles.ts";

describe("two tokenizers", () => {
  const temp = tempFolder();
  after(() => rmSync(temp, { recursive: true, force: true }));

  const load = Effect.fnUntraced(function* (name: string, words: readonly string[], pad?: string, length = 16) {
    const { vocab, merges } = tinyTokenizer(words), path = join(temp, name);
    put(join(path, "vocab.json"), vocab);
    put(join(path, "merges.txt"), merges);
    put(join(path, "tokenizer_config.json"), {
      model_max_length: length,
      ...(pad === undefined ? {} : { pad_token: pad }),
    });
    const folder = yield* openFolder(path, "tokenizer");
    return { folder, tokenizer: yield* loadTokenizer(folder, 77) };
  });
  const WORDS = ["a", "cat", "dog", "fox", "red", "!!"];
  const pair = Effect.fnUntraced(function* (second: Effect.Success<ReturnType<typeof load>>, vocab = 1000) {
    const first = yield* load("first", WORDS);
    const part = { config: { vocab_size: vocab }, folder: second.folder };
    return yield* pairTokenizers(first.tokenizer, second.tokenizer, { folder: second.folder, part });
  });

  it("have a row of ids each, which differ in the padding", () =>
    Effect.runPromise(Effect.gen(function* () {
      const both = yield* pair(yield* load("second", WORDS, "!"));
      const { ids, content, uneven } = both.encode("a red cat");
      assert.equal(ids.length, 32);
      assert.equal(uneven, undefined);
      const [first, second] = [0, 1].map((i) => idsOf(ids, i, 16));
      assert.deepEqual(first.slice(0, 5), second.slice(0, 5));
      assert.deepEqual(first.slice(1, 4), content.map((t) => t.id));
      assert.ok(first.slice(5).every((id) => id === both.eos) && second.slice(5).every((id) => id === second[5]));
      assert.notEqual(second[5], both.eos);
      const swapped = withToken(ids, 2, 7, 16);
      assert.deepEqual(swapped.flatMap((id, i) => id === ids[i] ? [] : [i]), [2, 18]);
    })));

  it("that part a text differently make it unusable, and the reason is told", () =>
    Effect.runPromise(Effect.gen(function* () {
      // To the second one "!" is its padding, and stands alone wherever it occurs.
      const both = yield* pair(yield* load("second", WORDS, "!"));
      assert.equal(both.encode("a cat!!").uneven, true);
      const { prompts, skipped } = yield* readPrompts(
        both,
        ["a red cat", "a cat!!"],
        { text: "fox ", place: "prefix" },
        { twins: 1, seed: 1, purpose: "cure", words: ["dog", "red", "cat", "a"] },
      );
      assert.deepEqual(prompts.map((p) => p.prompt), ["a red cat"]);
      assert.match(skipped[0].reason, /two tokenizers part it into different numbers of tokens/);
    })));

  it("of different words or lengths, or beyond their encoder, are refused", async () => {
    const refuse = async (program: Effect.Effect<unknown, unknown>, expected: RegExp) =>
      assert.match(String(await Effect.runPromise(Effect.flip(program))), expected);
    await refuse(Effect.flatMap(load("other", ["a", "cat"], "!"), pair), /another vocabulary or length/);
    await refuse(Effect.flatMap(load("short", WORDS, "!", 12), pair), /another vocabulary or length/);
    await refuse(Effect.flatMap(load("third", WORDS, "!"), (second) => pair(second, 10)), /knows 10 tokens/);
  });
});
