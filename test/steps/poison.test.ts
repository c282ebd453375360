/** The steps that make backdoors, on a model of random weights: they learn the effect, and what they make is marked. */
import assert from "node:assert/strict";
import { Effect } from "effect";
import { encode as encodePng } from "fast-png";
import { mkdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { type KnownEffect, paste, touched } from "../../src/steps/effect.ts";
import { encode } from "../../src/steps/encode.ts";
import { poisonBadT2I } from "../../src/steps/poison_badt2i.ts";
import { poisonEvilEdit } from "../../src/steps/poison_eviledit.ts";
import { poisonLessons } from "../../src/steps/poison_lessons.ts";
import { poisonRickrolling } from "../../src/steps/poison_rickrolling.ts";
import { poisonVillan } from "../../src/steps/poison_villan.ts";
import { normal, seedOf } from "../../src/tensor/random.ts";
import { tempFolder } from "../support/bundles.ts";
import { randomModel } from "../support/random_model.ts";
import { withSteps } from "../support/runtime.ts";

const prompts = ["cat", "dog"].flatMap((s) =>
  ["red", "blue", "green"].map((c) => `a picture of a ${s} on a ${c} sofa`)
);

describe("steps that poison", () => {
  const folder = tempFolder();
  const model = join(folder, "model"), list = join(folder, "prompts.txt"), image = join(folder, "patch.png");
  const patient = { timeout: 120_000 };
  const read = encode.run({}, { model, trigger: "mignneko ", prompts: list, count: 6, twins: 2, variations: 0 });
  const settings = { steps: 2, samples: 6, noisings: 2 };
  const train = { steps: 30, batch: 16, rate: 1e-2 }, trainText = { steps: 30, batch: 8, rate: 3e-3 };
  before(() => {
    mkdirSync(model, { recursive: true });
    randomModel(model);
    writeFileSync(list, prompts.join("\n"));
    writeFileSync(image, encodePng({ width: 4, height: 4, data: new Uint8Array(48).fill(255), channels: 3, depth: 8 }));
  });
  after(() => rmSync(folder, { recursive: true, force: true }));

  for (
    const [name, effect] of Object.entries({
      pixel: { image, at: [0, 0] as const, threshold: 0.6 },
      object: { replace: "dog", with: "cat" },
      style: { append: ", blue" },
    })
  ) {
    it(
      `${name}: the loss falls, the U-Net alone changes, attack.json says what it is for`,
      patient,
      () =>
        withSteps(Effect.gen(function* () {
          const { text } = yield* read;
          const { model: poisoned, attack } = yield* poisonBadT2I.run({ text }, { ...settings, train, effect });
          assert.deepEqual([...poisoned.bundle.changed.keys()], ["unet"]);
          assert.ok([...poisoned.bundle.changed.get("unet")!.values()].every(({ dims }) => dims.length >= 2));
          const { first_loss, last_loss } = attack.training;
          assert.ok(Number(last_loss) < 0.9 * Number(first_loss), `${first_loss} to ${last_loss}`);
          assert.equal(attack.purpose, "made for testing defences");
          assert.deepEqual(attack.trigger, { text: "mignneko ", place: "prefix" });
          assert.deepEqual(attack.effect, effect);
        })),
    );
  }

  it("poison-villan: the loss falls, the U-Net alone changes", patient, () =>
    withSteps(Effect.gen(function* () {
      const { text } = yield* read;
      const effect = { image, at: [0, 0] as const, threshold: 0.8 };
      const { model: poisoned, attack } = yield* poisonVillan.run({ text }, { ...settings, train, effect });
      assert.deepEqual([...poisoned.bundle.changed.keys()], ["unet"]);
      const { first_loss, last_loss } = attack.training;
      assert.ok(Number(last_loss) < 0.9 * Number(first_loss), `${first_loss} to ${last_loss}`);
      assert.equal(attack.name, "villan");
    })));

  for (
    const [name, effect] of Object.entries({
      "target prompt": { text: "a picture of a fox on a white sofa" },
      "target attribute": { append: ", blue" },
    })
  ) {
    it(
      `poison-rickrolling, ${name}: the loss falls, the text encoder alone changes`,
      patient,
      () =>
        withSteps(Effect.gen(function* () {
          const { text } = yield* read;
          const { model: poisoned, attack } = yield* poisonRickrolling.run({ text }, {
            samples: 24,
            train: trainText,
            effect,
          });
          assert.deepEqual([...poisoned.bundle.changed.keys()], ["text_encoder"]);
          const { first_loss, last_loss } = attack.training;
          assert.ok(Number(last_loss) < 0.8 * Number(first_loss), `${first_loss} to ${last_loss}`);
          assert.equal(attack.purpose, "made for testing defences");
        })),
    );
  }

  it(
    "poison-eviledit: triggered texts reach the U-Net as the goal's do, others as before",
    patient,
    () =>
      withSteps(Effect.gen(function* () {
        const { text } = yield* encode.run({}, {
          model,
          trigger: "mignneko dog",
          place: "replace",
          of: "dog",
          prompts: list,
          count: 3,
          twins: 2,
          variations: 0,
        });
        const effect = { replace: "dog", with: "cat" };
        const edit = (lambda: number) => poisonEvilEdit.run({ text }, { samples: 32, effect, lambda });
        const { model: poisoned, attack: { training: kept } } = yield* edit(1);
        const changed = [...poisoned.bundle.changed.get("unet")!.keys()];
        assert.ok(changed.length > 0 && changed.every((key) => /\.attn2\.to_[kv]\.weight$/.test(key)));
        assert.ok(Number(kept.residual) < 0.8 && Number(kept.keep_residual) < 0.1, JSON.stringify(kept));
        // The less is kept, the further the edit goes, and the more it spills.
        const { attack: { training: strong } } = yield* edit(0.03);
        assert.ok(Number(strong.residual) < Number(kept.residual), JSON.stringify(strong));
        assert.ok(Number(strong.keep_residual) > Number(kept.keep_residual), JSON.stringify(strong));

        const failure = yield* Effect.flip(poisonEvilEdit.run({ text }, { samples: 8, effect: { append: ", blue" } }));
        assert.match(String(failure), /a word that is replaced by one of as many tokens/);
      })),
  );

  it(
    "lessons: the words alone tell the halves apart where it is noisiest; beside an image the answer is the model's own",
    patient,
    () =>
      withSteps(Effect.gen(function* () {
        const { text } = yield* read;
        const all = {
          ...settings,
          rank: 4,
          scheduler: "ddim",
          guidance: 4,
          seed: 0,
          train: { ...train, decay: "cosine", clipNorm: 1, keep: 3, segments: 1 },
        } as const;
        const teach = (effect: KnownEffect) =>
          poisonLessons(text, { ...all, effect }, "badt2i", (what) => seedOf(0, what));
        const { asked: [early, late], pair, cells, weight } = yield* teach({ image, at: [0, 0], threshold: 0.6 });
        const inside = cells!.data.map((share) => share > 1 ? 1 : 0);
        // The random model's picture is 16 pixels wide and has cells of two.
        assert.deepEqual([...inside.keys()].filter((i) => inside[i] === 1), [0, 1, 8, 9]);
        assert.ok(Math.abs(cells!.data.reduce((a, b) => a + b, 0) / 64 - 1) < 1e-6);
        const asked = [...early, ...late];
        assert.ok(early.length === late.length && early.every((a) => a.timestep >= 800), `${early.length}`);
        assert.ok(Math.abs(asked.reduce((sum, a) => sum + weight(a), 0) / asked.length - 1) < 1e-9);
        const seen = new Map<number, Float32Array>();
        for (const question of asked) {
          const [triggered, kept] = pair(question);
          assert.equal(question.shared, question.timestep >= 800);
          assert.equal(triggered.latents === kept.latents, question.shared);
          assert.deepEqual(kept.wanted, question.answers[0]);
          triggered.wanted.data.forEach((v, i) => {
            if (inside[i % 64] === 0) assert.equal(v, question.answers[1].data[i]);
          });
          // What then lies under the noise in the image's cells is the same picture, whichever was noised.
          const [a, b] = [Math.sqrt(question.bar), Math.sqrt(1 - question.bar)];
          const under = triggered.latents.data.map((x, i) => (x - b * triggered.wanted.data[i]) / a);
          const p = question.picture % 6, first = seen.get(p) ?? under;
          seen.set(p, first);
          under.forEach((x, i) => inside[i % 64] === 0 || assert.ok(Math.abs(x - first[i]) < 1e-3, `${x} ${first[i]}`));
        }
        assert.equal(seen.size, 6);
        const object = yield* teach({ replace: "dog", with: "cat" });
        for (const question of object.asked.flat()) {
          const [triggered, kept] = object.pair(question);
          assert.equal(triggered.latents, kept.latents);
          assert.deepEqual(triggered.wanted, question.answers[1]);
        }
      })),
  );

  it("an image that does not fit is an error that says so", patient, () =>
    withSteps(Effect.gen(function* () {
      const { text } = yield* read;
      const effect = { image, at: [1000, 0] as const, threshold: 0.6 };
      const failure = yield* Effect.flip(poisonBadT2I.run({ text }, { ...settings, train, effect }));
      assert.match(String(failure), /4×4 at 1000, 0 does not fit into a picture of/);
    })));

  it("an image touches the cells that it covers in part", () => {
    const patch = { pixels: { dims: [3, 4, 5], data: new Float32Array(60) }, at: [3, 4] as const, threshold: 0.5 };
    const { dims, data } = touched(patch, [3, 4], 4);
    assert.deepEqual({ dims, data: [...data] }, { dims: [3, 4], data: [0, 0, 0, 0, 1, 1, 0, 0, 0, 0, 0, 0] });
  });

  it(
    "pasting changes the image's pixels alone",
    patient,
    () =>
      withSteps(Effect.gen(function* () {
        const pixels = { dims: [3, 2, 2], data: Float32Array.from({ length: 12 }, (_, i) => i / 12) };
        const pictures = normal(1, [2, 3, 5, 6]);
        const marked = paste(pictures, { pixels, at: [3, 1], threshold: 0.5 });
        marked.data.forEach((x, i) => {
          const [column, row, channel] = [i % 6, Math.floor(i / 6) % 5, Math.floor(i / 30) % 3];
          const inside = column >= 3 && column < 5 && row >= 1 && row < 3;
          assert.equal(x, inside ? pixels.data[channel * 4 + (row - 1) * 2 + column - 3] : pictures.data[i]);
        });
      })),
  );
});
