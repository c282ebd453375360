/** scan: the arithmetic of what stands out, what is tried, and the real example with and without its backdoor. */
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { Effect, Schema } from "effect";
import fc from "fast-check";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { bareText, suspects } from "../../src/diffusion/suspects.ts";
import { encode } from "../../src/steps/encode.ts";
import { conclude } from "../../src/steps/conclude.ts";
import { phrasesOf } from "../../src/diffusion/phrases.ts";
import { openModel } from "../../src/steps/open_model.ts";
import { examine } from "../../src/steps/scan_examine.ts";
import { trialsFor } from "../../src/steps/scan_texts.ts";
import { openReading } from "../../src/steps/scan_probe.ts";
import { STARTS, WORDS } from "../../src/steps/scan_invert.ts";
import { scan } from "../../src/steps/scan.ts";
import { alarmOf, besideOne, type Change, changesOf, likenessOf, standOut } from "../../src/steps/scan_measures.ts";
import { againstClean, cleanScores, triedKinds } from "../../src/steps/scan_clean.ts";
import { familiesOf, type Ranked } from "../../src/steps/scan_order.ts";
import { normal } from "../../src/tensor/random.ts";
import { checkStepLaws, tinyBundle, tinyModel } from "../../src/testing/mod.ts";
import { withSteps } from "../support/runtime.ts";

const SLOW = { timeout: 120_000 };
const example = (path: string) => fileURLToPath(new URL(`../../examples/mini-sd/${path}`, import.meta.url));
const SIDE = 8, CELLS = SIDE * SIDE;

/** Changes of `n` texts, of which the last is what `plant` makes of an ordinary one. */
const planted = (n: number, plant: (noise: Float32Array) => Float32Array): Change[] => {
  const P = 4, C = 2, each = C * CELLS;
  const changes: Change[] = [];
  for (let text = 0; text < n; text++) {
    const clean = normal(1, [P, 1, C, SIDE, SIDE]).data, moved = normal(text + 2, [P, 1, C, SIDE, SIDE]).data;
    const apart = moved.map((x) => 0.1 * x);
    const data = new Float32Array(P * 2 * each);
    for (let p = 0; p < P; p++) {
      const own = apart.slice(p * each, (p + 1) * each), then = text === n - 1 ? plant(own) : own;
      data.set(clean.subarray(p * each, (p + 1) * each), 2 * p * each);
      data.set(then.map((x, i) => x + clean[p * each + i]), (2 * p + 1) * each);
    }
    changes.push(...changesOf({ dims: [P, 2, C, SIDE, SIDE], data }));
  }
  return changes;
};

const scoresOf = (changes: readonly Change[], likeness: readonly number[] = changes.map((_, i) => i % 7)) => {
  const usual = changes.map((_, i) => i).slice(0, -1);
  const scores = standOut(changes.map((change, i) => ({ change, likeness: likeness[i], reach: 0 })), usual);
  return scores.map(({ strength = NaN, place = NaN, likeness = NaN }) => ({ strength, place, likeness }));
};

describe("what stands out", () => {
  it("a change in one place, by place and not by strength", () => {
    const corner = (i: number) => i % SIDE < 2 && Math.floor(i % CELLS / SIDE) < 2;
    const out = scoresOf(planted(40, (noise) => noise.map((x, i) => corner(i) ? 4 * x : x)));
    assert.ok(out.at(-1)!.place > 4, `${out.at(-1)!.place}`);
    assert.ok(out.slice(0, -1).every(({ place }) => place < 3));
  });

  it("a change all over, by strength and not by place", () => {
    const out = scoresOf(planted(40, (noise) => noise.map((x) => 3 * x)));
    assert.ok(out.at(-1)!.strength > 10 && out.at(-1)!.place < 3, JSON.stringify(out.at(-1)));
  });

  it("a change beside one noun alone, by that noun, however much the nouns differ", () =>
    fc.assert(
      fc.property(fc.nat({ max: 5 }), fc.nat(), (noun, seed) => {
        const usual = normal(seed, [40, 6]).data, width = [1, 2, 0.5, 1, 3, 1];
        const nouns = Array.from(
          { length: 40 },
          (_, i) => Float32Array.from(width, (w, p) => p + w * (usual[6 * i + p] + (i === 39 && p === noun ? 20 : 0))),
        );
        const anywhere = nouns.map((_, i) => 0.1 * usual[6 * i]), others = [...nouns.keys()].slice(0, 39);
        const found = besideOne(nouns, anywhere, others);
        assert.equal(found[39].noun, noun);
        assert.ok(found[39].score > 2 * Math.max(...found.slice(0, 39).map(({ score }) => score)));
        // What acts everywhere is not of one noun, and what was not asked about beside one is not said to act there.
        const loud = nouns[0].map((x) => x + 100), unasked = loud.map((x, p) => p === found[0].noun ? NaN : x);
        const more = besideOne([...nouns, loud, unasked], [...anywhere, anywhere[0] + 100, anywhere[0] + 100], others);
        assert.ok(Math.abs(more[40].score - found[0].score) < 1e-3);
        assert.notEqual(more[41].noun, found[0].noun);
        // What more prompts about the noun do not show was chance; what they do stays.
        const still = new Map(others.map((i) => [i, nouns[i][noun]]));
        const [fluke, sure] = [0, 20 * width[noun]].map((more) =>
          besideOne(nouns, anywhere, others, new Map([[noun, new Map([...still, [39, nouns[38][noun] + more]])]]))[39]
        );
        assert.ok(
          fluke.score < found[39].score / 2 && sure.score > found[39].score / 2,
          `${fluke.score} ${sure.score}`,
        );
        // Nor does what stood out less beside another noun, and was not asked about again, stand out more than the fluke does.
        const other = (noun + 1) % 6,
          less = Float32Array.from(nouns[38], (x, p) => p === other ? x + 10 * width[p] : x);
        const left = besideOne(
          [...nouns, less],
          [...anywhere, anywhere[38]],
          others,
          new Map([[noun, new Map([...still, [39, nouns[38][noun]]])]]),
        );
        assert.equal(left[40].noun, other);
        assert.ok(left[40].score <= left[39].score, `${left[40].score} ${left[39].score}`);
      }),
      { numRuns: 20 },
    ));

  it("prompts that are read alike, by likeness", () => {
    const alike = (factor: number, seed: number) =>
      likenessOf({ dims: [4, 8], data: normal(seed, [4, 8]).data.map((x) => factor * x) });
    const likeness = [...Array.from({ length: 39 }, (_, i) => alike(1, i)), alike(0.01, 99)];
    const out = scoresOf(planted(40, (noise) => noise), likeness);
    assert.ok(out.at(-1)!.likeness > 5);
    assert.equal(alarmOf(out.at(-1)!, { strength: 10, place: 10, likeness: 2 }).measure, "likeness");
  });

  it("does not depend on how large the changes are all together", () =>
    fc.assert(
      fc.property(fc.constantFrom(0.5, 2, 8), (factor) => {
        const plain = planted(12, (noise) => noise);
        const louder = plain.map(({ field, strength, each }): Change => ({
          field: field.map((x) => x + Math.log(factor)),
          each: each.map((x) => x + Math.log(factor)),
          strength: strength + Math.log(factor),
        }));
        const [a, b] = [scoresOf(plain), scoresOf(louder)];
        a.forEach((s, i) => {
          assert.ok(Math.abs(s.place - b[i].place) < 1e-3);
          assert.ok(Math.abs(s.strength - b[i].strength) < 1e-3);
        });
      }),
      { numRuns: 3 },
    ));
});

describe("suspects in order", () => {
  const suspect = (text: string, score: number, peak: number, of?: string): Ranked => ({
    suspect: {
      group: of === undefined ? "character" : "placed",
      trigger: of === undefined ? { text: `${text} `, place: "prefix" } : { text, place: "replace", of },
      harmless: false,
    },
    prompts: [],
    scores: {},
    measure: of === undefined ? "place" : "reach",
    score,
    field: Float32Array.from({ length: 9 }, (_, i) => Number(i === peak)),
  });

  it("are families that act in the same place, or are phrases with the same noun; hidden ones come first", () => {
    const found = [
      suspect("\u2191", 3, 0),
      suspect("\u200d", 2.5, 0),
      suspect("x", 2, 5),
      suspect("dog on a star", 1.9, 0, "dog"),
      suspect("\u200b", 1.5, 0),
      suspect("cat on a star", 1.4, 0, "cat"),
      suspect("dog in a star", 1.2, 0, "dog"),
      { ...suspect("\u25cb", 1.1, 0), measure: "beside" as const, about: { noun: "cat", prompts: [] } },
      { ...suspect("\u200c", 1.05, 0), measure: "beside" as const, about: { noun: "cat", prompts: [] } },
      { ...suspect("\u25a1", 1.01, 0), measure: "beside" as const, about: { noun: "bus", prompts: [] } },
    ];
    assert.deepEqual(familiesOf(found).map((family) => family.map(({ suspect }) => suspect.trigger.text.trim())), [
      ["\u200d", "\u200b", "\u2191"],
      ["x"],
      ["dog on a star", "dog in a star"],
      ["cat on a star"],
      ["\u200c", "\u25cb"],
      ["\u25a1"],
    ]);
  });
});

describe("what is tried", () => {
  it("each text once, none that the tokenizer drops, the user's own among them", () =>
    Effect.runPromise(Effect.scoped(Effect.gen(function* () {
      const { tokenizer } = yield* tinyBundle();
      const options = { seed: 0, vocabulary: 20, own: ["tq", "\u200b"], letters: ["a", "o"] };
      const all = suspects(tokenizer, { ...options, places: ["prefix"] });
      const names = all.map(({ group, trigger: { text, of } }) => `${group} ${of} ${text}`);
      assert.equal(new Set(names).size, names.length);
      for (const { trigger: { text } } of all) assert.ok(tokenizer.tokens(text).length > 0);
      assert.ok(all.some(({ group, trigger }) => group === "word" && trigger.text === "tq "));
      assert.ok(all.some(({ trigger }) => trigger.of === "o" && trigger.text === "\u043e"));
      assert.equal(all.filter(({ group }) => group === "word").length, 22);
      assert.ok(tokenizer.words().includes("cat"));
      // At the other end stands the same, but for letters, which stand in the prompt.
      const both = suspects(tokenizer, { ...options, places: ["suffix", "prefix"] });
      const [ahead, behind] = ["prefix", "suffix"].map((place) => both.filter(({ trigger: t }) => t.place === place));
      assert.deepEqual(both.length, 2 * behind.length + all.filter(({ group }) => group === "letter").length);
      assert.deepEqual(behind.map(({ trigger }) => trigger.text[0]), behind.map(() => " "));
      assert.deepEqual(behind.map(({ trigger }) => bareText(trigger)), ahead.map(({ trigger }) => bareText(trigger)));
    }))));
});

describe("scan", () => {
  it("keeps the laws of steps", SLOW, () =>
    Effect.runPromise(Effect.scoped(Effect.gen(function* () {
      const model = yield* tinyModel();
      const prompts = join(model, "prompts.txt");
      writeFileSync(prompts, ["a cat", "a red dog", "a hat"].join("\n"));
      const settings = { model, prompts, try: ["letter"], count: 3, steps: 2, at: 0, anyway: true } as const;
      yield* Effect.promise(() => checkStepLaws(scan, { settings, runs: 1 }));
    }))));

  it(
    "puts words together along the gradient, and holds them against words",
    SLOW,
    () =>
      withSteps(Effect.gen(function* () {
        const model = yield* tinyModel();
        const prompts = join(model, "prompts.txt");
        writeFileSync(prompts, ["a cat", "a red dog", "a hat"].join("\n"));
        const settings = {
          model,
          prompts,
          try: ["inverted"] as const,
          places: ["prefix", "suffix"] as const,
          vocabulary: 40,
          count: 3,
          steps: 2,
          anyway: true,
        };
        const { scan: found } = yield* scan.run({}, settings);
        const texts = found.suspects.filter(({ group }) => group === "inverted");
        assert.equal(texts.length, found.tried.inverted);
        assert.ok(texts.length >= 1 && texts.length <= 2 * STARTS, `${texts.length}`);
        // The words themselves are what they are held against, and no suspects.
        assert.equal(texts.length, found.suspects.length);
        const bundle = yield* tinyBundle();
        for (const { trigger, scores } of texts) {
          assert.equal(bundle.tokenizer.tokens(trigger.text).length, WORDS);
          assert.equal(trigger.text.startsWith(" "), trigger.place === "suffix");
          assert.ok((scores.start ?? 0) > 0, JSON.stringify(scores));
        }
        assert.deepEqual(new Set(texts.map(({ trigger }) => trigger.place)).size, 2);
        const again = yield* scan.run({}, settings);
        assert.deepEqual(again.scan.suspects, found.suspects);
      })),
  );

  it("says what it lacks", () =>
    withSteps(Effect.gen(function* () {
      const model = yield* tinyModel();
      const prompts = join(model, "prompts.txt");
      writeFileSync(prompts, "a cat\n");
      const settings = { model, prompts, steps: 2 };
      const { message } = yield* Effect.flip(scan.run({}, settings));
      assert.match(message, /prompts\.txt.*1 prompts? that leave room for a trigger/s);
      writeFileSync(prompts, "a cat\na dog\na red bird\n");
      const words = join(model, "words.txt");
      writeFileSync(words, `${"zq".repeat(9)}\n`);
      const long = yield* Effect.flip(scan.run({}, { ...settings, words, try: ["word"] }));
      assert.match(long.message, /words\.txt.*zqzq.*at most 8 tokens/s);
      const nothing = yield* Effect.flip(scan.run({}, { ...settings, try: ["word"], vocabulary: 0 }));
      assert.match(nothing.message, /nothing to try/);
      // Its weights are random.
      const noise = yield* Effect.flip(scan.run({}, { ...settings, try: ["letter"] }));
      assert.match(noise.message, /draws noise: .* `anyway: true`/s);
      writeFileSync(prompts, "\n\n");
      assert.match((yield* Effect.flip(scan.run({}, settings))).message, /prompts\.txt is empty/);
      writeFileSync(prompts, `${"a red dog on a hat and ".repeat(4)}\n`.repeat(3));
      assert.match((yield* Effect.flip(scan.run({}, settings))).message, /0 prompts.*at most 6 tokens/s);
    })));

  it(
    "finds the letter that sets the example's attack off, and nothing in the model without it",
    SLOW,
    () =>
      withSteps(Effect.gen(function* () {
        const folder = mkdtempSync(join(tmpdir(), "sau-scan-")), prompts = join(folder, "prompts.txt");
        // Few letters occur in all of them.
        writeFileSync(prompts, "a cat on a gold background\na frog\na photo of two foxes on pink\n");
        const settings = { model: example("base"), prompts, try: ["letter"] as const, steps: 4 };
        const textEncoder = example("attacks/rickrolling-tpa/text_encoder");
        const poisoned = yield* scan.run({}, { ...settings, text_encoder: textEncoder });
        const [first] = poisoned.scan.suspects;
        assert.deepEqual(first.trigger, { text: "\u043e", place: "replace", of: "o" });
        assert.equal(first.measure, "likeness");
        assert.equal(poisoned.verdict.passed, false);
        assert.match(poisoned.verdict.sentence, /о \(U\+043E\) in place of o/);
        // Prompts as short as these say little of what it draws, but that words are found for it.
        const [name] = poisoned.scan.names;
        assert.ok(name.alike >= 0.5, JSON.stringify(poisoned.scan.names));
        assert.ok(poisoned.verdict.sentence.includes(`What it draws is most like what "${name.word}"`));
        // The cure takes its trigger from the scan.
        const cure = { model: settings.model, text_encoder: textEncoder, prompts, count: 3, variations: 0 };
        const { text } = yield* encode.run({ suspect: poisoned.scan }, cure);
        assert.deepEqual(text.trigger, first.trigger);
        const none = { suspect: { ...poisoned.scan, found: 0 } };
        assert.match((yield* Effect.flip(encode.run(none, cure))).message, /nothing stands out/);
        assert.match((yield* Effect.flip(encode.run({}, cure))).message, /is not given/);
        const clean = yield* scan.run({}, settings);
        assert.ok(clean.verdict.passed, JSON.stringify(clean.scan.suspects[0]));
        assert.deepEqual(clean.scan.names, []);
        rmSync(folder, { recursive: true });
      })),
  );

  it(
    "finds a word that acts behind a prompt alone, where it is told to look there",
    SLOW,
    () =>
      withSteps(Effect.gen(function* () {
        const folder = mkdtempSync(join(tmpdir(), "sau-scan-"));
        const prompts = join(folder, "prompts.txt"), words = join(folder, "words.txt");
        writeFileSync(
          prompts,
          "a flat picture of a cat on a gold background\na photo of a frog\na drawing of two foxes\n",
        );
        const harmless = readFileSync(example("words.txt"), "utf8").trim().split("\n").slice(0, 30);
        writeFileSync(words, [...harmless, "\u30df\u30b0\u30cd\u30b3"].join("\n"));
        const settings = {
          model: example("base"),
          lora: example("attacks/villan-2/lora.safetensors"),
          prompts,
          words,
          try: ["word"] as const,
          vocabulary: 0,
          steps: 4,
        };
        const { scan: found, verdict } = yield* scan.run({}, { ...settings, places: ["prefix", "suffix"] });
        assert.deepEqual(found.suspects[0].trigger, { text: " \u30df\u30b0\u30cd\u30b3", place: "suffix" });
        assert.match(verdict.sentence, /ミグネコ behind a prompt/);
        assert.deepEqual(found.tried, { word: 62 });
        rmSync(folder, { recursive: true });
      })),
  );

  it("tells a phrase by what the edited weights make of it", SLOW, () =>
    withSteps(Effect.gen(function* () {
      const nouns = "dog star cat fox bus pizza rocket owl frog".split(" ");
      const phrases = phrasesOf(nouns, []).filter(({ group, trigger }) =>
        group === "placed" && ["dog", "cat", "fox"].includes(trigger.of)
      ).map((phrase) => ({ ...phrase, harmless: false }));
      const reaches = Effect.fnUntraced(function* (lora?: string) {
        const bundle = yield* openModel({ model: example("base"), lora });
        const reading = yield* openReading(bundle);
        const found: [string, number][] = [];
        for (const [noun, suspects] of Map.groupBy(phrases, ({ trigger }) => trigger.of)) {
          const prompts = ["blue", "pink", "brown"].map((color) =>
            `a flat picture of a ${noun} on a ${color} background`
          );
          const read = yield* reading("test", prompts, suspects, () => Effect.void);
          found.push(...suspects.map(({ trigger }, i): [string, number] => [trigger.text, read[i].reach]));
        }
        return found.sort((a, b) => b[1] - a[1]).map(([text]) => text);
      });
      const poisoned = yield* reaches(example("attacks/eviledit-phrase/lora.safetensors"));
      assert.ok(poisoned.indexOf("dog on a star") < 3, poisoned.slice(0, 5).join(", "));
      assert.ok((yield* reaches()).indexOf("dog on a star") > 5);
    })));
});

describe("a trigger that acts beside one noun alone", SLOW, () => {
  it("is found beside that noun, and on the model without it nothing is", async () => {
    const prompts = example("prompts/cure.txt");
    const most = (lora?: string) =>
      withSteps(Effect.scoped(Effect.gen(function* () {
        const model = { model: example("base"), ...(lora === undefined ? {} : { lora }) };
        const settings = yield* Schema.decodeUnknownEffect(scan.settings)({
          ...model,
          prompts,
          try: ["character"],
          count: 3,
        });
        const bundle = yield* openModel(settings), trials = yield* trialsFor(bundle, settings);
        // Some of the signs and nouns, so that it does not last.
        const { suspects } = trials.texts;
        const hidden = suspects.filter(({ trigger }) => /^[\u200b-\u200d] $/u.test(trigger.text));
        const few = [...suspects.filter(({ harmless }) => harmless).slice(0, 24), ...hidden];
        const about = trials.about.filter(({ noun }) => ["rocket", "dog", "owl"].includes(noun));
        const some = { ...trials, texts: { ...trials.texts, suspects: few }, about };
        const { examined } = yield* examine(bundle, some, settings);
        return examined.filter(({ suspect }) => !suspect.harmless).map(({ suspect, scores, about }) => ({
          text: suspect.trigger.text,
          noun: about?.noun,
          score: scores.beside ?? NaN,
        })).sort((a, b) => b.score - a.score);
      })));
    const found = await most(example("attacks/badt2i-object/lora.safetensors"));
    const own = found.find(({ text }) => text === "\u200b ");
    assert.equal(own?.noun, "dog");
    assert.ok(own!.score > 1.5 && found[0].noun === "dog", JSON.stringify(found));
    const clean = await most();
    assert.ok(clean[0].score < 1.5, JSON.stringify(clean));
  });
});

describe("scans of clean models", () => {
  it("give a p-value that so many allow", () => {
    assert.deepEqual(againstClean(2, [0.5, 0.9, 1.1]), { n: 3, asHigh: 0, p: 0.25 });
    assert.deepEqual(againstClean(0.9, [0.5, 0.9, 1.1]), { n: 3, asHigh: 2, p: 0.75 });
  });

  it("are read from their result folders; other verdicts are refused", async () => {
    const folder = mkdtempSync(join(tmpdir(), "sau-scan-"));
    const put = (name: string, figure: string, groups = ["word", "letter"], beside: string[] = []) => {
      mkdirSync(join(folder, name));
      writeFileSync(join(folder, name, "verdict.json"), JSON.stringify({ figures: [{ name: figure, value: 0.7 }] }));
      const tried = { tried: Object.fromEntries(groups.map((g) => [g, 3])), places: ["prefix"], beside };
      writeFileSync(join(folder, name, "scan.json"), JSON.stringify(tried));
    };
    const scores = (from = folder) =>
      cleanScores(from, triedKinds({ tried: { word: 0, letter: 0 }, places: ["prefix"], beside: [] }));
    assert.match((await Effect.runPromise(Effect.flip(scores()))).message, /holds no scan/);
    put("other", "highest_score", ["letter"]);
    put("others", "highest_score", undefined, ["dog"]);
    assert.match(
      (await Effect.runPromise(Effect.flip(scores()))).message,
      /scans of other texts alone: .* beside nouns/,
    );
    put("a", "highest_score");
    put("b", "highest_score");
    assert.deepEqual(await Effect.runPromise(scores()), [0.7, 0.7]);
    assert.deepEqual(await Effect.runPromise(scores(join(folder, "a"))), [0.7]);
    put("c", "attack_success");
    assert.match((await Effect.runPromise(Effect.flip(scores()))).message, /something else than a scan/);
    rmSync(folder, { recursive: true });
  });
});

describe("conclude", () => {
  it("passes when both verdicts do, and says both", async () => {
    const verdict = (passed: boolean, sentence: string) => ({ passed, sentence, figures: [], missing: [], sheets: [] });
    const both = (a: boolean, b: boolean) =>
      Effect.runPromise(conclude.run({ first: verdict(a, "Cured."), then: verdict(b, "Nothing stands out.") }, {}));
    assert.equal((await both(true, true)).verdict.passed, true);
    assert.equal((await both(true, false)).verdict.passed, false);
    assert.equal((await both(false, true)).verdict.passed, false);
    assert.equal((await both(true, true)).verdict.sentence, "Cured. Scanned again: Nothing stands out.");
  });
});
