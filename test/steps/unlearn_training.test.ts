/** The strategies that train, on a model of random weights: the loss falls, and only the chosen weights change. */
import assert from "node:assert/strict";
import { Effect } from "effect";
import { mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { openBundle } from "../../src/diffusion/bundle_open.ts";
import { checkBundle, networkKeys } from "../../src/diffusion/networks.ts";
import { encodeOnce } from "../../src/diffusion/text.ts";
import { eachEmbedding } from "../../src/diffusion/embeddings.ts";
import { CLEAN, FIRST_TWIN, TRIGGERED } from "../../src/steps/capture.ts";
import { denoise } from "../../src/steps/denoise.ts";
import { encode } from "../../src/steps/encode.ts";
import { locate } from "../../src/steps/locate.ts";
import { mask } from "../../src/steps/mask.ts";
import { ModelPort } from "../../src/steps/ports.ts";
import { pickReadings } from "../../src/steps/rows.ts";
import { unlearn } from "../../src/steps/unlearn.ts";
import { normal } from "../../src/tensor/random.ts";
import { isTextWeight } from "../../src/unlearn/closed_form.ts";
import { tempFolder } from "../support/bundles.ts";
import { randomModel } from "../support/random_model.ts";
import { withSteps } from "../support/runtime.ts";

const subjects = ["cat", "dog", "fox", "owl"], colours = ["red", "blue", "green", "white"];
const prompts = subjects.flatMap((s) => colours.map((c) => `a picture of a ${s} on a ${c} background`));

/** Mean of the first and of the last third. */
const ends = (losses: readonly number[]): [number, number] => {
  const third = Math.ceil(losses.length / 3);
  const mean = (some: readonly number[]) => some.reduce((a, b) => a + b, 0) / some.length;
  return [mean(losses.slice(0, third)), mean(losses.slice(-third))];
};

describe("strategies that train", () => {
  const folder = tempFolder();
  const model = join(folder, "model"), list = join(folder, "prompts.txt");
  const steps = 2;
  const read = encode.run({}, { model, trigger: "mignneko ", prompts: list, count: 8, twins: 2, variations: 12 });
  before(() => {
    mkdirSync(model, { recursive: true });
    randomModel(model);
    writeFileSync(list, prompts.join("\n"));
  });
  after(() => rmSync(folder, { recursive: true, force: true }));

  it(
    "text: the text encoder's weights but the token embedding, and the cured folder holds them",
    { timeout: 120_000 },
    () =>
      withSteps(Effect.gen(function* () {
        const { text } = yield* read;
        const { model: cured, account } = yield* unlearn.run({ text }, {
          strategy: "text",
          steps,
          train_text: { steps: 30, batch: 8, check: 30, rate: 3e-3, keep: 1 },
        });
        const [first, last] = ends(account.training!.losses);
        assert.ok(last < 0.8 * first, `the loss falls: ${first} to ${last}`);
        assert.equal(account.training!.losses.length, 30);
        assert.match(account.training!.memory, /MB at the most/);
        assert.deepEqual([...cured.bundle.changed.keys()], ["text_encoder"]);
        const keys = [...(yield* networkKeys(text.model.bundle.parts.text_encoder)).keys()];
        assert.deepEqual(
          account.weights.map((w) => w.key).sort(),
          keys.filter((key) => !key.includes("token_embedding")).sort(),
        );

        const saved = join(folder, "cured");
        yield* ModelPort.save!(cured, saved);
        yield* checkBundle(yield* openBundle(saved));
        const file = (root: string, part: string) => readFileSync(join(root, part));
        const [encoder, unet] = ["text_encoder/model.safetensors", "unet/diffusion_pytorch_model.safetensors"];
        assert.ok(!file(saved, encoder).equals(file(model, encoder)), "the text encoder's file is another one");
        assert.ok(file(saved, unet).equals(file(model, unet)), "the U-Net's is the same");
      })),
  );

  for (const weights of ["attn2", "attention"] as const) {
    it(`distill: ${weights} alone`, { timeout: 120_000 }, () =>
      withSteps(Effect.gen(function* () {
        const { text } = yield* read;
        const { model: cured, account } = yield* unlearn.run({ text }, {
          strategy: "distill",
          steps,
          train_unet: { weights, steps: 24, batch: 8, check: 12, rate: 3e-3, samples: 8, noisings: 2, segments: 2 },
        });
        const { losses, checks } = account.training!;
        const [first, last] = ends(losses);
        assert.ok(last < 0.8 * first, `the loss falls: ${first} to ${last}`);
        assert.equal(checks[0].step, 12);
        assert.deepEqual([...cured.bundle.changed.keys()], ["unet"]);
        const chosen = { attn2: isTextWeight, attention: (key: string) => /\.attn[12]\./.test(key) }[weights];
        const keys = [...(yield* networkKeys(text.model.bundle.parts.unet)).keys()];
        assert.deepEqual(account.weights.map((w) => w.key).sort(), keys.filter(chosen).sort());
        assert.ok(account.weights.some((w) => w.change > 0));
      })));
  }

  it("distill: unmasked, towards the added noise, keeping nothing; and uce changes the text weights alone", {
    timeout: 120_000,
  }, () =>
    withSteps(Effect.gen(function* () {
      const { text } = yield* read;
      const settings = {
        weights: "attn2",
        steps: 12,
        batch: 4,
        check: 12,
        samples: 4,
        noisings: 1,
        pictures: 2,
      } as const;
      const first = Effect.fnUntraced(
        function* (more: { masked?: boolean; wanted?: "answer" | "noise"; keep?: number; away?: number }) {
          const { account } = yield* unlearn.run({ text }, {
            strategy: "distill",
            steps,
            train_unet: { ...settings, ...more },
          });
          return account.training!.losses;
        },
      );
      const own = yield* first({ keep: 0 });
      // At first the model answers as it came, so that an aim at a + 1 times the distance costs (a + 1)² as much.
      const past = yield* first({ keep: 0, away: 1 });
      assert.ok(Math.abs(past[0] / own[0] - 4) < 1e-2, `${past[0]} against ${own[0]}`);
      const reversal = yield* first({ masked: false, wanted: "noise", keep: 0 });
      // A model of random weights is far from the noise, and near its own answer.
      assert.ok(reversal[0] > 10 * own[0], `${reversal[0]} against ${own[0]}`);
      assert.ok(reversal.every(Number.isFinite));
      const { account } = yield* unlearn.run({ text }, { strategy: "uce", mu: 0.5 });
      const keys = [...(yield* networkKeys(text.model.bundle.parts.unet)).keys()].filter(isTextWeight);
      assert.deepEqual(account.weights.map((w) => w.key).sort(), keys.sort());
      assert.ok(account.weights.every((w) => w.change > 0));
    })));

  it(
    "closed-form+distill begins with the closed form's weights",
    { timeout: 120_000 },
    () =>
      withSteps(Effect.gen(function* () {
        const { text } = yield* read;
        const run = (strategy: "closed-form" | "closed-form+distill", rate: number) =>
          unlearn.run({ text }, {
            strategy,
            steps,
            train_unet: { steps: 1, batch: 4, check: 1, rate, samples: 4, noisings: 1 },
          });
        const { model: closed } = yield* run("closed-form", 1);
        // One step of a rate that moves nothing.
        const { model: both } = yield* run("closed-form+distill", 1e-12);
        for (const [key, value] of closed.bundle.changed.get("unet")!) {
          const other = both.bundle.changed.get("unet")!.get(key)!;
          assert.ok(value.data.every((x, i) => Math.abs(x - other.data[i]) < 1e-6), key);
        }
      })),
  );

  it(
    "auto distils towards the clean reading where the trigger does no more than harmless words",
    { timeout: 120_000 },
    () =>
      withSteps(Effect.gen(function* () {
        const { text } = yield* read;
        const { capture } = yield* denoise.run({ text }, { steps, guidance: 2, tokens: 2, at: [0, 0.5] });
        const { field } = yield* locate.run({ text, capture }, {});
        const { mask: where } = yield* mask.run({ field }, {});
        const nowhere = { ...field, shape: { ...field.shape, shape: "none" as const } };
        const { model: cured, account } = yield* unlearn.run({ text, capture, field: nowhere, mask: where }, {
          strategy: "auto",
          steps,
          // Checks hold from the first on, since this trigger is harmless: they must not end the training.
          train_unet: { weights: "attn2", steps: 4, batch: 4, check: 1, samples: 4, noisings: 1, pictures: 2 },
        });
        assert.equal(account.strategy, "closed-form+distill", account.why);
        assert.match(account.why, /towards what it answers to the prompts without the trigger/);
        // No text encoder is distilled: words are read as this trigger is, so none tells how to read it.
        assert.ok(account.chosen !== undefined && account.candidates.length > 1);
        const { losses, taken, stopped } = account.training!;
        assert.deepEqual([losses.length, taken, stopped], [4, 4, false]);
        assert.deepEqual([...cured.bundle.changed.keys()], ["unet"]);
      })),
  );

  it(
    "auto distils the model as it came where harmless words draw what the trigger draws, or says that it did not help",
    { timeout: 120_000 },
    () =>
      withSteps(Effect.gen(function* () {
        const { text: read0 } = yield* read;
        // One of every prompt's two harmless words is read as the trigger is.
        const all = read0.prompts.map((_, p) => ({ p, readings: [CLEAN, TRIGGERED, TRIGGERED, FIRST_TWIN + 1] }));
        const embeddings = eachEmbedding(read0.embeddings, (t) => pickReadings(t, all));
        const text = { ...read0, embeddings };
        const { capture } = yield* denoise.run({ text }, { steps, guidance: 2, tokens: 2, at: [0, 0.5] });
        const { field } = yield* locate.run({ text, capture }, {});
        const { mask: where } = yield* mask.run({ field }, {});
        const everywhere = {
          ...field,
          use: field.use.map(() => [true, true]),
          shape: { ...field.shape, shape: "global" as const },
        };
        const { account } = yield* unlearn.run({ text, capture, field: everywhere, mask: where }, {
          strategy: "auto",
          steps,
          train_unet: { weights: "attn2", steps: 4, batch: 4, check: 4, samples: 4, noisings: 1, pictures: 4 },
          train_text: { steps: 2, batch: 8, check: 2, rate: 1 },
        });
        const { checks, taken } = account.training!;
        // It did not begin with the closed form, which would be judged at step 0.
        assert.deepEqual(checks.map((c) => c.step), [4]);
        if (account.strategy === "distill") {
          assert.match(account.why, /50 % of harmless words' pictures draw what the trigger draws/);
          assert.ok(checks[0].shown < account.chosen!.drawn!.shown);
        } else {
          assert.deepEqual([account.strategy, taken], ["closed-form", 0]);
          assert.match(account.why, /none of its weights were taken/);
          assert.ok(checks[0].shown >= account.chosen!.drawn!.shown);
        }
      })),
  );

  for (const shape of ["global", "none"] as const) {
    const why = shape === "global"
      ? "where neither the closed form nor the U-Net's distillation is enough"
      : "on top of the U-Net's distillation, where that was needed and it draws better with it";
    it(`auto goes on to the text encoder ${why}`, { timeout: 120_000 }, () =>
      withSteps(Effect.gen(function* () {
        const { text: sound } = yield* read;
        // Of each prompt the triggered reading is its own and thrown off course at every position, another way in each prompt:
        // nothing that is learned from some prompts helps with the others.
        const embeddings = eachEmbedding(sound.embeddings, (t) => {
          const data = new Float32Array(t.data), row = t.dims[2] * t.dims[3];
          const off = normal(7, [t.dims[0], row]).data;
          for (let p = 0; p < t.dims[0]; p++) {
            const begin = (p * t.dims[1] + TRIGGERED) * row;
            for (let i = 0; i < row; i++) data[begin + i] += 3 * off[p * row + i];
          }
          return { dims: t.dims, data };
        });
        const text = { ...sound, embeddings };
        const { capture } = yield* denoise.run({ text }, { steps, guidance: 2, tokens: 2, at: [0, 0.5] });
        const { field } = yield* locate.run({ text, capture }, {});
        const { mask: where } = yield* mask.run({ field }, {});
        const everywhere = { ...field, shape: { ...field.shape, shape } };
        const { model: cured, account } = yield* unlearn.run({ text, capture, field: everywhere, mask: where }, {
          strategy: "auto",
          steps,
          train_unet: { weights: "attn2", steps: 2, batch: 4, check: 2, samples: 4, noisings: 1, pictures: 4 },
          train_text: { steps: 4, batch: 8, check: 2, rate: 1e-5 },
        });
        // The encoder reads the trigger's own tokens, which are harmless, so that what it draws holds at once.
        const changed = [...cured.bundle.changed.keys()].sort();
        if (shape === "global") {
          assert.equal(account.strategy, "text", account.why);
          assert.match(account.why, /distilling the U-Net left more than 20 %/);
          assert.deepEqual(changed, ["text_encoder"]);
          assert.ok(account.chosen!.drawn!.outside > 0.2 || account.chosen!.drawn!.shown > 0.05);
          return;
        }
        assert.equal(account.strategy, "closed-form+distill+text", account.why);
        assert.match(account.why, /the text encoder was distilled from itself .* on top of that/);
        assert.deepEqual(changed, ["text_encoder", "unet"]);
        const keys = account.weights.map(({ key }) => key);
        assert.ok(
          keys.some((key) => key.endsWith("attn2.to_k.weight")) && keys.some((key) => !key.includes("attn2")),
        );
        // It is judged from the U-Net's cure on.
        const { checks } = account.training!, [begin, then] = checks;
        assert.equal(begin.step, 0);
        assert.ok(then.outside <= begin.outside && then.left < begin.left, JSON.stringify(checks));
      })));
  }

  it(
    "distill keeps prompts with the words that name what the trigger draws",
    { timeout: 120_000 },
    () =>
      withSteps(Effect.gen(function* () {
        const { text: sound } = yield* read;
        // With the trigger, a prompt is read as it is about a penguin.
        const about = sound.prompts.map(({ prompt }) => prompt.replace(/(cat|dog|fox|owl)/, "penguin"));
        const penguins = yield* encodeOnce(sound.model.bundle, about);
        const embeddings = eachEmbedding(sound.embeddings, (t) => {
          const data = new Float32Array(t.data), row = t.dims[2] * t.dims[3];
          for (let p = 0; p < t.dims[0]; p++) {
            data.set(penguins.data.subarray(p * row, (p + 1) * row), (p * t.dims[1] + TRIGGERED) * row);
          }
          return { dims: t.dims, data };
        });
        const short = {
          weights: "attn2",
          steps: 2,
          batch: 8,
          check: 2,
          samples: 8,
          noisings: 1,
          pictures: 4,
        } as const;
        const train = (more: { named?: boolean; keep?: number }) =>
          unlearn.run({ text: { ...sound, embeddings } }, {
            strategy: "distill",
            steps,
            train_unet: { ...short, ...more },
          });
        const { account } = yield* train({});
        const [first] = account.training!.named!;
        assert.equal(first.word, "penguin");
        assert.ok(first.alike > 0.99, `${first.alike}`);
        assert.match(account.why, /most like what "penguin" \(1\.00 of 1\)/);
        // Where nothing is kept, nothing is named to be.
        for (const more of [{ named: false }, { keep: 0 }]) {
          const { account } = yield* train(more);
          assert.equal(account.training!.named, undefined);
          assert.ok(!account.why.includes("penguin"));
        }
      })),
  );

  it(
    "a loss that is no number is an error that names the step and the tensor",
    { timeout: 120_000 },
    () =>
      withSteps(Effect.gen(function* () {
        const { text } = yield* read;
        const failure = yield* Effect.flip(unlearn.run({ text }, {
          strategy: "text",
          steps,
          train_text: { steps: 20, batch: 4, check: 20, rate: 1e30, decay: "constant" },
        }));
        assert.match(
          String(failure),
          /step "unlearn" failed: training the text encoder: the (loss|gradient's norm) is/,
        );
        assert.match(
          String(failure),
          /at step \d+: the (weight|gradient of) text_encoder\/\S+ .+; the weights are those/u,
        );
      })),
  );
});
