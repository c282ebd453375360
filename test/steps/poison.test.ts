/** The steps that make backdoors, on a model of random weights: they learn the effect, and what they make is marked. */
import assert from "node:assert/strict";
import { Effect } from "effect";
import { encode as encodePng } from "fast-png";
import { mkdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { paste } from "../../src/steps/effect.ts";
import { encode } from "../../src/steps/encode.ts";
import { poisonBadT2I } from "../../src/steps/poison_badt2i.ts";
import { poisonEvilEdit } from "../../src/steps/poison_eviledit.ts";
import { poisonRickrolling } from "../../src/steps/poison_rickrolling.ts";
import { poisonVillan } from "../../src/steps/poison_villan.ts";
import { normal } from "../../src/tensor/random.ts";
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
  const train = { steps: 30, batch: 8, rate: 3e-3 };
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
          const { model: poisoned, attack } = yield* poisonRickrolling.run({ text }, { samples: 24, train, effect });
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

  it("an image that does not fit is an error that says so", patient, () =>
    withSteps(Effect.gen(function* () {
      const { text } = yield* read;
      const effect = { image, at: [1000, 0] as const, threshold: 0.6 };
      const failure = yield* Effect.flip(poisonBadT2I.run({ text }, { ...settings, train, effect }));
      assert.match(String(failure), /4×4 at 1000, 0 does not fit into a picture of/);
    })));

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
