import { describe, it } from "node:test";
import assert from "node:assert/strict";
import { fileURLToPath } from "node:url";
import { Effect } from "effect";
import fc from "fast-check";
import { align, complete } from "../../src/diffusion/alignment.ts";
import { openFolder } from "../../src/diffusion/files.ts";
import { type ReadingOptions, readPrompts } from "../../src/diffusion/readings.ts";
import { loadTokenizer } from "../../src/diffusion/tokenizer_files.ts";
import type { Trigger } from "../../src/diffusion/trigger.ts";
import { defaultWords, half, parseWords } from "../../src/diffusion/words.ts";

const folder = fileURLToPath(new URL("../golden/tokenizer", import.meta.url));
const tokenizer = await Effect.runPromise(
  Effect.flatMap(openFolder(folder, "tokenizer"), (f) => loadTokenizer(f, 32)),
);
const prompts = [
  "a cartoon picture of a dog on a blue background",
  "A photo of a cat and a Dog",
  "a picture of a hotdog, a dog and a dogma",
];
const prefix: Trigger = { text: "\u200b ", place: "prefix" };
const phrase: Trigger = { text: "beautiful dog", place: "replace", of: "dog" };
const letter: Trigger = { text: "о", place: "replace", of: "o" };
const suffix: Trigger = { text: " in high quality!", place: "suffix" };
const all = [prefix, phrase, letter, suffix, { text: "mignneko ", place: "prefix" }, {
  text: "😀",
  place: "replace",
  of: "o",
}] as const;
const cure: ReadingOptions = { twins: 4, seed: 0, purpose: "cure" };

const read = (trigger: Trigger, texts: readonly string[] = prompts, options = cure) =>
  Effect.runPromise(readPrompts(tokenizer, texts, trigger, options));
const failure = (trigger: Trigger, texts: readonly string[] = prompts, options = cure) =>
  Effect.runPromise(Effect.flip(readPrompts(tokenizer, texts, trigger, options)));

describe("readings: laws, for triggers of every kind", () => {
  it("the triggered reading is the clean one but for one run of tokens", async () => {
    for (const trigger of all) {
      for (const { clean, triggered, span: [begin, end] } of (await read(trigger)).prompts) {
        const [a, b] = [clean.content, triggered.content].map((tokens) => tokens.map((t) => t.id));
        const tail = b.length - (end - 1);
        assert.ok(end > begin && begin >= 1, JSON.stringify(trigger));
        assert.deepEqual(b.slice(0, begin - 1), a.slice(0, begin - 1));
        assert.deepEqual(b.slice(end - 1), a.slice(a.length - tail));
        assert.notDeepEqual(a, b);
      }
    }
  });
  it("a twin is as long as the triggered reading and the same away from the trigger's word", async () => {
    for (const trigger of all) {
      for (const { triggered, twins, clean } of (await read(trigger)).prompts) {
        assert.equal(twins.length, 4);
        assert.equal(new Set(twins.map((t) => t.text)).size, 4);
        for (const twin of twins) {
          assert.equal(twin.content.length, triggered.content.length);
          assert.ok(twin.text !== triggered.text && twin.text !== clean.text);
          const differ = twin.ids.flatMap((id, i) => id === triggered.ids[i] ? [] : [i]);
          const words = new Set(differ.map((i) => triggered.content[i - 1].word));
          const run = Math.max(...words) - Math.min(...words);
          assert.ok(run <= tokenizer.tokens(trigger.text).length, `${triggered.text} / ${twin.text}`);
        }
      }
    }
  });
  it("cure and verification share no word and no twin", async () => {
    const [a, b] = [half(defaultWords, "cure"), half(defaultWords, "verify")];
    assert.equal(a.length + b.length, defaultWords.length);
    assert.ok(Math.min(a.length, b.length) > 60);
    for (const trigger of all) {
      const texts = async (purpose: "cure" | "verify") =>
        (await read(trigger, prompts, { ...cure, purpose })).prompts.flatMap((p) => p.twins.map((t) => t.text));
      const judged = new Set(await texts("verify"));
      assert.ok((await texts("cure")).every((t) => !judged.has(t)), trigger.text);
    }
  });
  it("the same seed draws the same twins, whatever else is asked for; another seed draws others", async () => {
    const twins = async (texts: readonly string[], seed: number) =>
      (await read(prefix, texts, { ...cure, seed })).prompts.at(-1)?.twins.map((t) => t.text);
    const here = await twins(prompts, 3);
    assert.deepEqual(await twins(prompts.slice(-1), 3), here);
    assert.notDeepEqual(await twins(prompts, 4), here);
  });
});

describe("readings: what the trigger replaces", () => {
  const triggered = async (trigger: Trigger, text: string) => (await read(trigger, [text])).prompts[0].triggered.text;
  it("a word as a word, the first time, in either case", async () => {
    assert.equal(await triggered(phrase, prompts[1]), "A photo of a cat and a beautiful dog");
    assert.equal(await triggered(phrase, prompts[2]), "a picture of a hotdog, a beautiful dog and a dogma");
  });
  it("a single character anywhere", async () => {
    assert.equal(await triggered(letter, "a cartoon dog"), "a cartоon dog");
  });
  it("the twins of a replaced word keep what the trigger keeps", async () => {
    for (const { twins } of (await read(phrase, [prompts[0]])).prompts) {
      for (const { text } of twins) assert.match(text, /^a cartoon picture of a \S+ dog on a blue background$/);
    }
  });
  it("the twins of a replaced character change that character alone", async () => {
    for (const { twins } of (await read(letter, [prompts[0]])).prompts) {
      for (const { text } of twins) assert.match(text, /^a cart[^oо]on picture of a dog on a blue background$/u);
    }
  });
  it("prompts without it are skipped and counted; when none is left, the trigger is to blame", async () => {
    const some = await read({ text: "tabby cat", place: "replace", of: "cat" });
    assert.equal(some.prompts.length, 1);
    assert.deepEqual(some.skipped.map((s) => s.reason), Array(2).fill('"cat" does not occur in it'));
    assert.match(
      (await failure({ text: "x", place: "replace", of: "zebra" })).message,
      /none of the 3 prompts[^]*"zebra" does not occur/,
    );
  });
  it("prompts that the trigger makes too long are skipped", async () => {
    const { prompts: kept, skipped } = await read(prefix, [prompts[0], `${"dog ".repeat(29)}`]);
    assert.equal(kept.length, 1);
    assert.match(skipped[0].reason, /longer than the 30 tokens/);
    assert.match((await failure({ text: "a ".repeat(40), place: "prefix" })).message, /longer than the 30 tokens/);
    assert.match((await failure(prefix, ["x".repeat(60_000)])).message, /too long/);
  });
  it("too few harmless words are said", async () => {
    const face: Trigger = { text: "😀", place: "replace", of: "o" };
    assert.match((await failure(face, [prompts[0]], { ...cure, twins: 70 })).message, /fewer than 70 harmless/);
  });
});

describe("readings: triggers that the tokenizer takes away", () => {
  const cases: [string, Trigger, RegExp][] = [
    [
      "white space is dropped",
      { text: " \u3000", place: "prefix" },
      /dropped by the tokenizer[^]*tokens without it: a cartoon/,
    ],
    [
      "a look-alike that normalizes to the same letter",
      { text: "\u212a", place: "replace", of: "k" },
      /reads the same as what it replaces/,
    ],
    ["upper case", { text: "DOG", place: "replace", of: "dog" }, /reads the same/],
    [
      "a name that runs into the first word",
      { text: "mignneko", place: "prefix" },
      /merges with its neighbours[^]*mignnek o a cartoon[^]*End a prefix with a space/,
    ],
    ["a replacement that leaves nothing", { text: "dog", place: "replace", of: "a dog" }, /dropped/],
    ["an empty trigger", { text: "", place: "prefix" }, /is empty/],
    ["a replacement of nothing", { text: "x", place: "replace" }, /replaces nothing/],
    ["a prefix that replaces", { text: "x ", place: "prefix", of: "a" }, /is a prefix/],
    ["a novel", { text: "x ".repeat(600), place: "prefix" }, /at most 1000/],
  ];
  for (const [name, trigger, message] of cases) {
    it(name, async () => {
      const error = await failure(trigger, prompts.slice(0, 1).concat("a photo of a dog"));
      assert.equal(error._tag, "TriggerError");
      assert.match(error.message, message);
    });
  }
  it("an invisible trigger is shown in the message", async () =>
    assert.match((await failure({ text: "\u0300", place: "replace", of: "zebra" })).message, /^trigger "\\u\{300\}"/));
});

describe("readings: alignment", () => {
  const anyDifference = fc.record({
    before: fc.nat(8),
    from: fc.nat(6),
    to: fc.integer({ min: 1, max: 6 }),
    after: fc.nat(8),
    padding: fc.nat(9),
  }).map((d) => ({ d, length: 2 + d.before + Math.max(d.from, d.to) + d.after + d.padding }));

  it("keeps order, and goes to each position at most once", () => {
    fc.assert(fc.property(anyDifference, ({ d, length }) => {
      const used = align(d, length).filter((p) => p >= 0);
      assert.equal(new Set(used).size, used.length);
      assert.deepEqual(used.toSorted((a, b) => a - b), used);
      assert.ok(used.every((p) => p < length));
    }));
  });
  it("sends BOS to BOS, EOS to EOS, and padding to padding", () => {
    fc.assert(fc.property(anyDifference, ({ d, length }) => {
      const aligned = align(d, length);
      const [end, oldEnd] = [d.to, d.from].map((n) => 1 + d.before + n + d.after);
      assert.equal(aligned[0], 0);
      assert.equal(aligned[end], oldEnd);
      aligned.slice(end + 1).forEach((p, i) => assert.ok(p === -1 || p === end + 1 + i && p > oldEnd));
    }));
  });
  it("an insertion leaves exactly its own tokens without a counterpart", () => {
    fc.assert(fc.property(anyDifference, ({ d, length }) => {
      const aligned = align({ ...d, from: 0 }, length);
      assert.deepEqual(
        aligned.flatMap((p, i) => p < 0 ? [i] : []),
        Array.from({ length: d.to }, (_, i) => 1 + d.before + i),
      );
    }));
  });
  it("completed, it is a permutation that keeps what was aligned", () => {
    fc.assert(fc.property(anyDifference, ({ d, length }) => {
      const aligned = align(d, length);
      const whole = complete(aligned);
      assert.deepEqual(whole.toSorted((a, b) => a - b), whole.map((_, i) => i));
      aligned.forEach((p, i) => assert.ok(p < 0 || whole[i] === p));
    }));
  });
  it("corresponding tokens are the same tokens outside the run", async () => {
    for (const trigger of all) {
      for (const { clean, triggered, span: [begin, end], toClean } of (await read(trigger)).prompts) {
        toClean.forEach((p, i) => assert.ok(p < 0 || (i >= begin && i < end) || clean.ids[p] === triggered.ids[i]));
      }
    }
  });
});

describe("readings: word lists", () => {
  it("a list file is one word a line, comments and repetitions left out", () =>
    assert.deepEqual(parseWords("# mine\nnice\r\n\n plain \nnice\n"), ["nice", "plain"]));
  it("one's own words are used", async () => {
    const words = Array.from(
      { length: 26 * 26 },
      (_, i) => `q${String.fromCharCode(97 + i % 26, 97 + Math.floor(i / 26))}`,
    );
    const { prompts: [p] } = await read(prefix, prompts, { ...cure, words });
    for (const { text } of p.twins) assert.match(text, /^q[a-z]{2} a cartoon/);
  });
});
