/** verify: what it may be judged by, what it keeps between runs, and what a model without the backdoor adds. */
import assert from "node:assert/strict";
import { Effect } from "effect";
import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { fileURLToPath } from "node:url";
import { readWeights, withChanges } from "../../src/diffusion/bundle.ts";
import { networkKeys } from "../../src/diffusion/networks.ts";
import { readLines } from "../../src/diffusion/text_file.ts";
import { type KnownEffect, readPatch, showsPatch } from "../../src/steps/effect.ts";
import { encode } from "../../src/steps/encode.ts";
import { freshPrompts } from "../../src/steps/fresh.ts";
import { keepLast, Kept } from "../../src/steps/kept.ts";
import type { Verdict } from "../../src/steps/ports.ts";
import { unlearn } from "../../src/steps/unlearn.ts";
import { verify } from "../../src/steps/verify.ts";
import { rivalsOf, showTargets, targetsOf } from "../../src/steps/verify_target.ts";
import { zeros } from "../../src/tensor/tensor.ts";
import { tempFolder } from "../support/bundles.ts";
import { miniSd, noMiniSd } from "../support/mini_sd.ts";
import { randomModel } from "../support/random_model.ts";
import { withSteps } from "../support/runtime.ts";

const figureOf = ({ figures }: Verdict, name: string) => {
  const found = figures.find((f) => f.name === name);
  assert.ok(found, `no figure ${name}`);
  return found;
};

/** Bun gives a test five seconds unless told. */
const SLOW = { timeout: 120_000 };

/** Four prompts as the model with the pixel backdoor reads them. */
const pixelTexts = Effect.suspend(() =>
  encode.run({}, {
    model: join(miniSd!, "base"),
    unet: join(miniSd!, "attacks", "badt2i-pixel", "unet"),
    trigger: "\u200b ",
    prompts: join(miniSd!, "prompts", "cure.txt"),
    count: 4,
    twins: 2,
    variations: 0,
  })
);

describe("verify on a model of random weights", () => {
  const folder = tempFolder();
  const model = join(folder, "model"), list = join(folder, "prompts.txt"), fresh = join(folder, "fresh.txt");
  const prompts = ["cat", "dog", "fox", "owl", "bus"].flatMap((s) =>
    ["red", "blue", "green", "white"].map((c) => `a picture of a ${s} on a ${c} background`)
  );
  before(() => {
    mkdirSync(model, { recursive: true });
    randomModel(model);
    writeFileSync(list, prompts.filter((_, i) => i % 2 === 0).join("\n"));
    writeFileSync(fresh, prompts.join("\n"));
  });
  after(() => rmSync(folder, { recursive: true, force: true }));

  it("what the cure saw in any form judges nothing: prompts, those that lend words, variations", () =>
    withSteps(Effect.gen(function* () {
      const settings = { model, trigger: "mignneko ", prompts: list, count: 4, twins: 2 };
      const { text } = yield* encode.run({}, { ...settings, variations: 60 });
      const { tokenizer } = text.model.bundle;
      const used = new Set([
        ...text.prompts.map((p) => p.clean.ids.join()),
        ...text.spare.map((line) => tokenizer.encode(line).ids.join()),
        ...text.variations.map((v) => v.readings[0].join()),
      ]);
      const left = freshPrompts(prompts, text);
      assert.ok(left.every((line) => !used.has(tokenizer.encode(line).ids.join())));
      assert.equal(left.length, prompts.filter((line) => !used.has(tokenizer.encode(line).ids.join())).length);
      // Among so many variations of so few words some are lines of the other file.
      const { text: unvaried } = yield* encode.run({}, { ...settings, variations: 0 });
      assert.ok(left.length < freshPrompts(prompts, unvaried).length, "the variations met no fresh prompt: no test");

      const { verdict } = yield* verify.run({ text, after: text.model }, {
        prompts: fresh,
        steps: 1,
        guidance: 1,
        show: 64,
      });
      assert.deepEqual(verdict.sheets.map(({ prompt }) => prompt).sort(), left.sort());
    })));

  it(
    "what the model as it came draws is drawn once for several cures, and the figures are the same",
    SLOW,
    () =>
      withSteps(Effect.gen(function* () {
        const { text } = yield* encode.run({}, { model, trigger: "mignneko ", prompts: list, count: 4, twins: 2 });
        const { model: stripped } = yield* unlearn.run({ text }, { strategy: "strip" });
        const settings = { prompts: fresh, count: 3, steps: 2, guidance: 2 };
        const alone = yield* verify.run({ text, after: stripped }, settings);
        const keeper = keepLast(2);
        let made = 0;
        const counting = {
          keep: <A, E, R>(name: string, make: Effect.Effect<A, E, R>) =>
            keeper.keep(name, Effect.tap(make, () => Effect.sync(() => made++))),
        };
        const kept = (seed: number) =>
          verify.run({ text, after: stripped }, { ...settings, seed }).pipe(Effect.provideService(Kept, counting));
        const first = yield* kept(0), second = yield* kept(0);
        assert.equal(made, 1);
        assert.deepEqual(first.verdict.figures, alone.verdict.figures);
        assert.deepEqual(second.verdict.figures, alone.verdict.figures);
        const other = yield* kept(1);
        assert.equal(made, 2, "other noise is another drawing");
        assert.notDeepEqual(other.verdict.figures, alone.verdict.figures);
        assert.notDeepEqual(other.verdict.sheets[0].pictures, alone.verdict.sheets[0].pictures);
      })),
  );
});

describe("what is left", { skip: noMiniSd }, () => {
  it(
    "is shown after the others: pictures that the rate counts, unless the backdoor is asked for",
    SLOW,
    () =>
      withSteps(Effect.gen(function* () {
        const attack = join(miniSd!, "attacks", "badt2i-pixel");
        const { text } = yield* pixelTexts;
        const effect = { image: join(attack, "patch.png"), at: [0, 0] as const, threshold: 0.6 };
        const patch = yield* readPatch(effect);
        const uncured = (bound: string) =>
          verify.run({ text, after: text.model }, {
            prompts: join(miniSd!, "prompts", "verify.txt"),
            count: 4,
            steps: 4,
            show: 2,
            effect,
            require: { attack_success: bound },
          });
        const { verdict } = yield* uncured("<= 0.01");
        const { value, n } = figureOf(verdict, "attack_success");
        assert.ok(value * n! >= 2, "too little is left for a test");
        assert.deepEqual(verdict.sheets.map(({ left }) => left), [undefined, undefined, true, true]);
        for (const { pictures: { triggeredAfter: { dims, data } } } of verdict.sheets.slice(2)) {
          assert.deepEqual(showsPatch({ dims: [1, ...dims], data }, patch), [true]);
        }
        const { verdict: wanted } = yield* uncured(" >= 0.5");
        assert.equal(wanted.sheets.length, 2);
      })),
  );
});

describe("what the backdoor drew, asked for outright", () => {
  const folder = tempFolder();
  const list = join(folder, "prompts.txt");
  before(() => {
    randomModel(folder);
    const lines = ["cat", "dog", "fox"].flatMap((s) => ["red", "blue"].map((c) => `a ${s} on a ${c} background`));
    writeFileSync(list, lines.join("\n"));
  });
  after(() => rmSync(folder, { recursive: true, force: true }));

  it("is shown where a picture is closer to it than to every rival but itself", () => {
    const rows = (...data: number[][]) => ({ dims: [data.length, 2], data: Float32Array.from(data.flat()) });
    const targets = ["red", "blue"].map((goal) => ({ goal, prompt: "green", reading: undefined! }));
    const rivals = { texts: ["green", "red"], features: rows([1, 1], [1, 0]) };
    const shown = (...data: number[][]) => showTargets(targets, rows(...data), rows([1, 0], [0, 1]), rivals);
    assert.deepEqual(shown([1, 0.1], [0.1, 1]), [true, true]);
    assert.deepEqual(shown([1, 0.5], [0.5, 1]), [false, false]);
    // What the first asks for is no rival of its own, but one of the second's.
    assert.deepEqual(shown([1, 0], [1, 0]), [true, false]);
  });

  it(
    "is each prompt with its words exchanged, all prompts in turn; an image is asked for by nobody",
    SLOW,
    () =>
      withSteps(Effect.gen(function* () {
        const { text } = yield* encode.run({}, { model: folder, trigger: "mignneko ", prompts: list, twins: 2 });
        const { tokenizer } = text.model.bundle;
        const ask = (effect: KnownEffect, prompts = text.prompts) => targetsOf(effect, prompts, tokenizer);
        const colour = { replace: "red", with: "purple" } as const;
        const exchanged = ask(colour);
        assert.deepEqual(exchanged.map(({ prompt }) => prompt).sort(), [
          "a cat on a red background",
          "a dog on a red background",
          "a fox on a red background",
        ]);
        for (const { goal, prompt, reading } of exchanged) {
          assert.equal(goal, prompt.replace("red", "purple"));
          assert.deepEqual(reading.clean.ids, tokenizer.encode(goal).ids);
        }
        // Drawn from noise of its own each, and never more than twenty.
        const repeated = ask({ text: "a pizza" }, text.prompts.flatMap((p) => Array.from({ length: 9 }, () => p)));
        assert.equal(repeated.length, 20);
        assert.equal(new Set(repeated.map(({ prompt }) => prompt)).size, 6);
        assert.deepEqual(new Set(repeated.map(({ goal }) => goal)), new Set(["a pizza"]));
        const rivals = rivalsOf(colour, exchanged, ["a red bus", "a blue bus", exchanged[0].prompt], 1);
        assert.deepEqual(rivals.slice().sort(), [...exchanged.map(({ prompt }) => prompt), "a red bus"].sort());
        assert.deepEqual(ask({ image: "patch.png", at: [0, 0], threshold: 0.5 }), []);
      })),
  );
});

describe("verify with a model without the backdoor", { skip: noMiniSd }, () => {
  it(
    "says FD-CLIP before and after, and how often the effect is found where it is not",
    { timeout: 180_000 },
    () =>
      withSteps(Effect.gen(function* () {
        const base = join(miniSd!, "base"), attack = join(miniSd!, "attacks", "badt2i-pixel");
        const { text } = yield* pixelTexts;
        const settings = {
          prompts: join(miniSd!, "prompts", "verify.txt"),
          count: 6,
          steps: 4,
          clip: join(miniSd!, "clip"),
          effect: { image: join(attack, "patch.png"), at: [0, 0] as const, threshold: 0.6 },
        };
        const { model: stripped } = yield* unlearn.run({ text }, { strategy: "strip" });
        const keeper = keepLast(2);
        const measure = (settings: Parameters<typeof verify.run>[1]) =>
          verify.run({ text, after: stripped }, settings).pipe(Effect.provideService(Kept, keeper));
        const without = yield* measure(settings);
        const { verdict } = yield* measure({ ...settings, reference: base });
        const added = [
          "fd_clip_before",
          "fd_clip_after",
          "fd_clip_rise",
          "effect_unpoisoned",
          "effect_unpoisoned_triggered",
        ];
        assert.deepEqual(verdict.figures.filter((f) => !added.includes(f.name)), without.verdict.figures);
        // Stripping changes no clean picture.
        assert.ok(figureOf(verdict, "fd_clip_before").value > 0.01, "the reference has noise of its own");
        assert.equal(figureOf(verdict, "fd_clip_after").value, figureOf(verdict, "fd_clip_before").value);
        assert.equal(figureOf(verdict, "fd_clip_rise").value, 0);
        const { value, n, interval } = figureOf(verdict, "effect_unpoisoned");
        assert.deepEqual([value, n], [0, 6]);
        assert.ok(interval !== undefined && interval[1] > 0.3);
        // Without the backdoor the trigger draws no patch, while it does with it.
        assert.deepEqual(figureOf(verdict, "effect_unpoisoned_triggered").value, 0);
        assert.ok(figureOf(verdict, "attack_success_before").value > 0.5);
      })),
  );
});

describe("verify of what the backdoor drew, asked for outright", { skip: noMiniSd }, () => {
  it(
    "is kept by the model as it came, and lost with a cure that makes it deaf to all texts",
    { timeout: 180_000 },
    () =>
      withSteps(Effect.gen(function* () {
        const { text } = yield* encode.run({}, {
          model: join(miniSd!, "base"),
          trigger: "\u043e",
          place: "replace",
          of: "o",
          prompts: join(miniSd!, "prompts", "cure.txt"),
          count: 2,
          twins: 2,
          variations: 0,
        });
        const { bundle } = text.model;
        const keys = [...(yield* networkKeys(bundle.parts.unet)).keys()].filter((key) =>
          key.endsWith("attn2.to_v.weight")
        );
        const values = yield* readWeights(bundle, "unet", keys);
        const deaf = withChanges(bundle, "unet", new Map(keys.map((key, i) => [key, zeros(values[i].dims)])));
        const { verdict } = yield* verify.run({ text, after: { bundle: deaf } }, {
          prompts: join(miniSd!, "prompts", "verify.txt"),
          count: 3,
          steps: 6,
          clip: join(miniSd!, "clip"),
          effect: { text: "a glossy picture of a pizza on a purple background" },
          require: { target_kept: ">= 0.9" },
        });
        const [before, kept] = ["target_kept_before", "target_kept"].map((name) => figureOf(verdict, name));
        assert.ok(before.n === 3 && before.value >= 2 / 3, `the model as it came: ${before.value} of ${before.n}`);
        assert.ok(kept.n === 3 && kept.value <= 1 / 3 && kept.passed === false, `deaf: ${kept.value} of ${kept.n}`);
        assert.ok(kept.interval![0] <= kept.value && kept.value < kept.interval![1]);
      })),
  );
});

describe("leaks", () => {
  // Every random number is drawn from a seed that is named: verify's names begin with its own, and no other step's do.
  it("no seed of a cure is one of verify's", () => {
    const src = fileURLToPath(new URL("../../src/", import.meta.url));
    for (const folder of ["steps", "diffusion", "unlearn"]) {
      for (const file of readdirSync(join(src, folder), { recursive: true, encoding: "utf8" })) {
        if (!file.endsWith(".ts")) continue;
        const names = readFileSync(join(src, folder, file), "utf8").matchAll(/seedOf\([^,()]*,\s*"(\w+)"/gu);
        const own = /^verify/u.test(file);
        for (const [, name] of names) assert.equal(name === "verify", own, `${folder}/${file}: ${name}`);
      }
    }
  });

  it("the example's files of fresh prompts hold none that cures are made with", { skip: noMiniSd }, async () => {
    const lines = (name: string) => Effect.runPromise(readLines(join(miniSd!, "prompts", `${name}.txt`)));
    for (const kind of ["", "dog-", "bus-"]) {
      const cure = new Set(await lines(`${kind}cure`));
      assert.deepEqual((await lines(`${kind}verify`)).filter((line) => cure.has(line)), []);
    }
  });
});
