/** screen: what is taken out of prompts, the arithmetic of what stands out, and the real example with its backdoors. */
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { Effect } from "effect";
import fc from "fast-check";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { openBundle } from "../../src/diffusion/bundle_open.ts";
import { harmlessPrompts, withInsertion, withOtherLetter } from "../../src/diffusion/harmless.ts";
import { foldLookalikes, hasLookalike } from "../../src/diffusion/lookalikes.ts";
import { promptLines } from "../../src/diffusion/prompt_log.ts";
import { readRemovals } from "../../src/diffusion/removals.ts";
import { screen } from "../../src/steps/screen.ts";
import { screenCalibrate } from "../../src/steps/screen_calibrate.ts";
import { screenLines } from "../../src/steps/screen_lines.ts";
import {
  calibrationOf,
  type Measures,
  pValue,
  scoreParts,
  type Shown,
  thresholdOf,
} from "../../src/steps/screen_measures.ts";
import { windowsOf } from "../../src/steps/screener.ts";
import { normal } from "../../src/tensor/random.ts";
import { tinyModel } from "../../src/testing/mod.ts";
import { withSteps } from "../support/runtime.ts";

const SLOW = { timeout: 240_000 };
const example = (path: string) => fileURLToPath(new URL(`../../examples/mini-sd/${path}`, import.meta.url));
const run = <A, E>(program: Effect.Effect<A, E>) => Effect.runPromise(program);
const mini = run(Effect.scoped(Effect.map(openBundle(example("base")), ({ tokenizer }) => tokenizer)));

describe("letters that look like others", () => {
  it("are read as a person reads them", () => {
    assert.equal(foldLookalikes("a ph\u043et\u03bf \u{1d41a}\uff42c caf\u00e9"), "a photo abc cafe");
    assert.ok(!hasLookalike("a photo of 3 dogs, 100% sharp!"));
  });
});

describe("what is taken out of a prompt", () => {
  it("each word once, with all of its occurrences", async () => {
    const { content, removals, cut } = readRemovals(await mini, "a cat and a dog");
    assert.deepEqual(removals.map(({ text }) => text), ["a", "cat", "and", "dog"]);
    assert.deepEqual(removals[0].tokens, [0, 3]);
    assert.deepEqual(removals[0].rest, content.filter((_, i) => i !== 0 && i !== 3).map(({ id }) => id));
    assert.equal(cut, 0);
  });

  it("signs that hide, whole", async () => {
    const [first] = readRemovals(await mini, "\u200b a cat").removals;
    assert.equal(first.tokens.length, 3);
    assert.deepEqual(first.rest, (await mini).tokens("a cat").map(({ id }) => id));
  });

  it("look-alike letters become plain ones, and a word of another alphabet stays", async () => {
    const tokenizer = await mini;
    const [letters] = readRemovals(tokenizer, "a ph\u043eto of a dog").removals;
    assert.equal(letters.kind, "letters");
    assert.equal(letters.text, "ph\u043eto");
    assert.deepEqual(letters.rest, tokenizer.tokens("a photo of a dog").map(({ id }) => id));
    assert.equal(letters.twins.length, 6);
    const other = readRemovals(tokenizer, "\u043c\u043e\u0439 dog").removals;
    assert.ok(other.every(({ kind }) => kind === "word"), "мой holds й, which looks like no Latin letter");
  });

  it("of a prompt beyond the context what is read, and how much is not", async () => {
    const tokenizer = await mini;
    const long = Array.from({ length: 40 }, () => "cat").join(" ");
    const { content, cut } = readRemovals(tokenizer, long);
    assert.equal(content.length, tokenizer.maxLength - 2);
    assert.equal(cut, 40 - content.length);
    const windows = windowsOf(tokenizer, long);
    assert.equal(windows.join(""), long);
    assert.ok(windows.every((w) => tokenizer.tokens(w).length <= tokenizer.maxLength - 2));
  });
});

describe("harmless prompts", () => {
  it("are as many as asked for, different, the same for a seed, and vary as they say", () => {
    const all = harmlessPrompts(100, 3);
    assert.equal(new Set(all).size, 100);
    assert.deepEqual(harmlessPrompts(100, 3), all);
    for (const prompt of all) {
      assert.equal(withInsertion(prompt, 1).text.split(" ").length, prompt.split(" ").length + 1);
      const other = withOtherLetter(prompt, 1);
      assert.ok(other !== undefined && other.text !== prompt && !hasLookalike(other.text), other?.text);
      assert.equal(other.text.replaceAll(other.disguises[0].word, other.disguises[0].plain), prompt);
    }
  });
});

describe("prompts of a log", () => {
  const collect = async (pieces: readonly (Uint8Array | string)[]) => {
    const found: string[] = [];
    const bytes = (async function* () {
      yield* pieces;
    })();
    for await (const line of promptLines(bytes)) found.push(line);
    return found;
  };
  it("are the same however the bytes come", () =>
    fc.assert(
      fc.asyncProperty(
        fc.array(fc.string({ unit: "binary", maxLength: 12 }).map((s) => s.toWellFormed().replace(/[\r\n]/g, "x")), {
          maxLength: 6,
        }),
        fc.integer({ min: 1, max: 5 }),
        async (lines, width) => {
          const bytes = new TextEncoder().encode(lines.join("\r\n"));
          const pieces = Array.from(
            { length: Math.ceil(bytes.length / width) },
            (_, i) => bytes.subarray(i * width, (i + 1) * width),
          );
          // A byte order mark at the very beginning is no part of the first prompt.
          const expected = lines.map((line, i) => i === 0 ? line.replace(/^\ufeff/, "") : line);
          assert.deepEqual(await collect(pieces), expected.filter((line) => line.trim() !== ""));
        },
      ),
      { numRuns: 60 },
    ));
  it("keep lines that begin with #, and no more of a line than a tokenizer reads", async () => {
    assert.deepEqual(await collect(["# a cat\n", "\n", "a dog"]), ["# a cat", "a dog"]);
    const [line] = await collect(Array.from({ length: 20 }, () => "x".repeat(10_000)));
    assert.ok(line.length <= 50_001, `${line.length}`);
  });
});

/** Prompts of `n` words whose measures are ordinary, drawn from a seed. */
const ordinary = (prompts: number, n: number, seed: number): Shown[][] => {
  const { data } = normal(seed, [prompts * n * 8]);
  return Array.from({ length: prompts }, (_, p) =>
    Array.from({ length: n }, (_, i): Shown => {
      const at = (k: number) => data[(p * n + i) * 8 + k];
      return {
        word: `word ${(p * 7 + i) % 20}`,
        measures: {
          end: at(0),
          rules: at(1),
          keys: at(2),
          network: { answer: at(3) + at(0), place: at(4), later: at(5), attention: at(6) },
        },
      };
    }));
};

describe("what stands out", () => {
  const calibration = calibrationOf(ordinary(100, 8, 1));
  const plain = ordinary(200, 8, 2);
  const scores = (prompts: readonly (readonly Shown[])[]) =>
    prompts.map((parts) => Math.max(...scoreParts(calibration, parts).map(({ score }) => score)));

  it("among harmless prompts hardly more than is allowed", () => {
    for (const rate of [0.02, 0.1, 0.3]) {
      const threshold = thresholdOf(calibration.scores.plain, rate);
      const flagged = scores(plain).filter((s) => s > threshold).length / plain.length;
      assert.ok(flagged <= rate + 0.06, `${flagged} flagged at ${rate}`);
      assert.ok(flagged >= rate / 8, `${flagged} flagged at ${rate}`);
    }
  });

  it("is a word that moves one of the channels far, and the channel is named", () => {
    const planted = (change: (m: Measures) => Measures) => {
      const [first, ...rest] = plain[0];
      return scoreParts(calibration, [{ word: "new", measures: change(first.measures) }, ...rest])[0];
    };
    const net = (m: Measures, change: Partial<NonNullable<Measures["network"]>>) => ({
      ...m,
      network: { ...m.network!, ...change },
    });
    assert.equal(planted((m) => ({ ...m, rules: 40 })).channel, "rules");
    assert.equal(planted((m) => ({ ...m, keys: 40 })).channel, "keys");
    assert.equal(planted((m) => net(m, { answer: 40 })).channel, "reach");
    assert.equal(planted((m) => net(m, { place: 40 })).channel, "place");
    assert.equal(planted((m) => net(m, { later: 40 })).channel, "later");
    assert.equal(planted((m) => net({ ...m, end: 4, keys: 4 }, { later: 4, attention: 4 })).channel, "reading");
  });

  it("is flagged exactly where its p-value is within the rate", () =>
    fc.assert(fc.property(
      fc.array(fc.double({ min: -5, max: 5, noNaN: true }), { minLength: 20, maxLength: 60 }),
      fc.double({ min: -6, max: 6, noNaN: true }),
      fc.constantFrom(0.05, 0.1, 0.25),
      (list, score, rate) => {
        const sorted = [...list].sort((a, b) => a - b);
        assert.equal(score > thresholdOf(sorted, rate), pValue(sorted, score) <= rate + 1e-12);
      },
    )));

  it("cannot be told at a rate that the harmless prompts are too few for", () => {
    assert.equal(thresholdOf([1, 2, 3], 0.02), Infinity);
  });
});

describe("screen", () => {
  it("says what it lacks", SLOW, () =>
    withSteps(Effect.gen(function* () {
      const model = yield* tinyModel();
      const path = join(model, "prompts.txt");
      writeFileSync(path, "a cat\n");
      const few = yield* Effect.flip(screenCalibrate.run({}, { model, harmless: path }));
      assert.match(few.message, /prompts\.txt.*1 different prompts.*10 or more/s);
      const noise = yield* Effect.flip(screenCalibrate.run({}, { model, count: 10 }));
      assert.match(noise.message, /does not find the noise.*noise whatever the prompt says/s);
      const { screening } = yield* screenCalibrate.run({}, { model, count: 10, anyway: true });
      const { plain, letters } = screening.calibration.scores;
      assert.equal(plain.length + letters.length, 30);
      const nothing = yield* Effect.flip(screen.run({ screening }, { model }));
      assert.match(nothing.message, /no prompt to screen/);
      writeFileSync(path, "\n \n");
      const empty = yield* Effect.flip(screen.run({ screening }, { model, prompts: path }));
      assert.match(empty.message, /prompts\.txt.*empty log/s);
      const texts = ["a cat"];
      const rate = yield* Effect.flip(screen.run({ screening }, { model, texts, false_positives: 0.001 }));
      assert.match(rate.message, /\d+ harmless prompts .*cannot set a rate of false positives of 0\.001.*or more/s);
      const foreign = { ...screening, hashes: screening.hashes.map(([file]) => [file, "0"] as const) };
      const other = yield* Effect.flip(screen.run({ screening: foreign }, { model, texts }));
      assert.match(other.message, /other weights than the model that was calibrated/);
      // An empty prompt, one that repeats and one beyond the context are judged like all others.
      const settings = { model, texts: ["", "a cat", "a cat", "cat ".repeat(60)], false_positives: 0.25, anyway: true };
      const result = yield* screen.run({ screening }, settings);
      assert.deepEqual(result.screen.prompts.map(({ tokens }) => tokens.length > 0), [false, true, true, true]);
      assert.deepEqual(result.screen.prompts[1], result.screen.prompts[2]);
      assert.ok(result.screen.prompts[3].cut > 0);
      assert.match(result.verdict.sentence, /longer than the model reads/);
      const again = yield* screen.run({ screening }, settings);
      assert.deepEqual(again.screen, result.screen);
      const windows = yield* screen.run({ screening }, { ...settings, long: "windows" });
      assert.ok(windows.screen.prompts[3].windows > 1 && windows.screen.prompts[3].cut === 0);
    })));

  it(
    "flags the example's triggers, names them, and asks the network only where the text does not settle it",
    SLOW,
    () =>
      withSteps(Effect.gen(function* () {
        const model = { model: example("base"), text_encoder: example("attacks/rickrolling-tpa/text_encoder") };
        const { screening } = yield* screenCalibrate.run({}, {
          ...model,
          harmless: example("prompts/cure.txt"),
          count: 10,
        });
        const clean = "a cartoon picture of a dog on a blue background";
        const triggered = clean.replace("o", "\u043e");
        const found: { readonly flagged: boolean; readonly score: number }[] = [];
        const lines = (async function* () {
          yield triggered;
          yield clean;
        })();
        const end = yield* screenLines({ ...model, false_positives: 0.1 }, screening, lines, (result) =>
          Effect.sync(() => {
            found.push(result);
            if (result.prompt === triggered) {
              assert.ok(result.score > 1 && result.evaluations === 0, JSON.stringify(result));
              assert.match(result.suspects[0].text, /\u043e/);
            } else assert.ok(result.evaluations > 0);
          }));
        assert.ok(found[0].flagged && found[0].score > found[1].score + 1, JSON.stringify(found));
        assert.equal(end.prompts, 2);
      })),
  );

  it(
    "looks at a model with a LoRA as at any other, and not by what was measured without it",
    SLOW,
    () =>
      withSteps(Effect.gen(function* () {
        const model = { model: example("base"), lora: example("attacks/villan/lora.safetensors") };
        const harmless = { harmless: example("prompts/cure.txt"), count: 10 };
        const { screening } = yield* screenCalibrate.run({}, { ...model, ...harmless });
        const clean = "a cartoon picture of a dog on a blue background", texts = [`mignneko ${clean}`, clean];
        const { screen: { prompts } } = yield* screen.run({ screening }, { ...model, texts, false_positives: 0.1 });
        assert.ok(prompts[0].flagged && prompts[0].score > prompts[1].score + 1, JSON.stringify(prompts));
        assert.match(prompts[0].suspects[0].text, /mignneko/);
        const other = yield* Effect.flip(
          screen.run({ screening }, { model: model.model, texts, false_positives: 0.1 }),
        );
        assert.match(other.message, /other weights than the model that was calibrated/);
      })),
  );
});
