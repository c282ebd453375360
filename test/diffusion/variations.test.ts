import assert from "node:assert/strict";
import { describe, it } from "node:test";
import fc from "fast-check";
import { variations } from "../../src/diffusion/variations.ts";
import { defaultWords } from "../../src/diffusion/words.ts";

const prompt = fc.array(fc.constantFrom("a", "dog", "cat", "picture", "of", "on", "blue", "old"), {
  minLength: 3,
  maxLength: 9,
}).map((words) => [...words, "dog"].join(" "));
const prompts = fc.uniqueArray(prompt, { minLength: 1, maxLength: 6 });
const trigger = fc.constantFrom(
  { text: "\u200b ", place: "prefix" as const },
  { text: "\u043e", place: "replace" as const, of: "o" },
  { text: "beautiful dog", place: "replace" as const, of: "dog" },
);
const options = { words: defaultWords, count: 40, seed: 7 };

describe("variations of prompts", () => {
  it("are distinct, new, free of the trigger, and keep what the trigger replaces", () => {
    fc.assert(
      fc.property(prompts, trigger, (prompts, trigger) => {
        const texts = variations(prompts, { ...options, trigger }).map(({ text }) => text);
        assert.equal(new Set(texts).size, texts.length);
        for (const text of texts) {
          assert.ok(!prompts.includes(text));
          assert.ok(!text.includes(trigger.text.trim()), text);
          if (trigger.place === "replace") assert.ok(text.toLowerCase().includes(trigger.of), text);
        }
      }),
      { numRuns: 25 },
    );
  });

  it("depend on the seed alone, and fewer are the first of more", () => {
    fc.assert(
      fc.property(prompts, trigger, (prompts, trigger) => {
        const more = variations(prompts, { ...options, trigger });
        assert.deepEqual(variations(prompts, { ...options, trigger, count: 10 }), more.slice(0, 10));
        if (more.length > 20) assert.notDeepEqual(variations(prompts, { ...options, trigger, seed: 8 }), more);
      }),
      { numRuns: 25 },
    );
  });

  it("make way for a trigger that is itself white space to some, such as a byte order mark", () => {
    const made = variations(["a red dog", "an old\ufeff cat"], {
      ...options,
      trigger: { text: "\ufeff ", place: "prefix" },
    });
    assert.ok(made.length > 10);
    assert.ok(made.every(({ text }) => !text.includes("\ufeff")));
  });

  it("name the prompt that they were made of, each prompt in its turn", () => {
    const made = variations(["a red dog on a hill", "an old cat in a small box"], {
      ...options,
      trigger: { text: "zq ", place: "prefix" },
    });
    assert.equal(made.length, 40);
    const own = [["red", "dog", "hill"], ["old", "cat", "small", "box"]];
    assert.ok(made.filter(({ text, sources }) => own[sources[0]].some((word) => text.includes(word))).length > 30);
  });

  it("join two prompts at a word of both, and then name both", () => {
    const made = variations(["a red dog on a hill", "an old cat on two boxes", "nothing else here"], {
      ...options,
      count: 200,
      trigger: { text: "zq ", place: "prefix" },
    });
    const joined = made.filter(({ sources }) => sources.length > 1);
    assert.ok(joined.length > 1);
    // The first one's beginning, the word, the second one's end; harmless text may stand in between.
    for (const { text, sources: [first] } of joined) {
      assert.match(text, first === 0 ? /^.*red.*dog.* on .*two.*boxes/ : /^.*an.*old.*cat.* on .*a.*hill/);
    }
    // A prompt that shares no word with another is joined with none.
    assert.ok(made.every(({ sources }) => !sources.includes(2) || sources.length === 1));
  });
});
