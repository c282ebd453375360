/** The steps on a small SDXL of random weights: the pooled texts go all the way, and the encoder that is poisoned is the one cured. */
import assert from "node:assert/strict";
import { Effect } from "effect";
import { readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { openBundle } from "../../src/diffusion/bundle_open.ts";
import { checkBundle } from "../../src/diffusion/networks.ts";
import { denoise } from "../../src/steps/denoise.ts";
import { encode } from "../../src/steps/encode.ts";
import { locate } from "../../src/steps/locate.ts";
import { mask } from "../../src/steps/mask.ts";
import { poisonBadT2I } from "../../src/steps/poison_badt2i.ts";
import { poisonEvilEdit } from "../../src/steps/poison_eviledit.ts";
import { poisonRickrolling } from "../../src/steps/poison_rickrolling.ts";
import { ModelPort, TextPort } from "../../src/steps/ports.ts";
import { scan } from "../../src/steps/scan.ts";
import { unlearn } from "../../src/steps/unlearn.ts";
import { verify } from "../../src/steps/verify.ts";
import { isTextWeight } from "../../src/unlearn/closed_form.ts";
import { tempFolder } from "../support/bundles.ts";
import { goldenSdxl } from "../support/sdxl.ts";
import { withSteps } from "../support/runtime.ts";

const subjects = ["cat", "dog", "fox", "owl", "bus", "star"], colours = ["red", "blue", "green", "white"];
const prompts = subjects.flatMap((s) => colours.map((c) => `a picture of a ${s} on a ${c} background`));
const patient = { timeout: 900_000 };
const drawn = { steps: 2, guidance: 2 };

describe("the steps on a small SDXL", () => {
  const folder = tempFolder();
  const model = join(folder, "model"), list = join(folder, "prompts.txt"), fresh = join(folder, "fresh.txt");
  const read = { model, trigger: "mignneko ", prompts: list, count: 6, twins: 2, variations: 6 };
  before(() => {
    goldenSdxl(model);
    writeFileSync(list, prompts.slice(0, 12).join("\n"));
    writeFileSync(fresh, prompts.slice(12).join("\n"));
  });
  after(() => rmSync(folder, { recursive: true, force: true }));

  it(
    "encode: both encoders side by side, pooled, also as the cache keeps them",
    patient,
    () =>
      withSteps(Effect.gen(function* () {
        const { text } = yield* encode.run({}, read);
        assert.deepEqual(text.embeddings.dims, [6, 4, 32, 28]);
        assert.deepEqual(text.embeddings.pooled?.dims, [6, 4, 10]);
        assert.ok(text.empty.data.every((x) => x === 0) && text.empty.pooled?.data.every((x) => x === 0));
        // As the cache keeps it.
        const stored = TextPort.encode(text);
        const again = TextPort.decode({ json: JSON.parse(JSON.stringify(stored.json)), tensors: stored.tensors });
        assert.ok(Effect.isEffect(again));
        const opened = yield* again;
        assert.deepEqual(opened.embeddings, text.embeddings);
        assert.deepEqual(opened.empty, text.empty);
        assert.deepEqual(Object.keys(opened.model.bundle.parts).sort(), [
          "text_encoder",
          "text_encoder_2",
          "unet",
          "vae",
        ]);
      })),
  );

  it(
    "denoise, locate, mask, unlearn and verify go through; the cured folder opens",
    patient,
    () =>
      withSteps(Effect.gen(function* () {
        const { text } = yield* encode.run({}, read);
        const { capture } = yield* denoise.run({ text }, { ...drawn, tokens: 1, at: [0, 0.5] });
        assert.deepEqual(capture.noise.dims, [2, 6, 4, 4, 8, 8]);
        assert.equal(capture.layers.length, 8);
        assert.ok(capture.tokens.length > 0);
        const { field } = yield* locate.run({ text, capture }, {});
        const { mask: where } = yield* mask.run({ field }, {});
        const { model: cured, account } = yield* unlearn.run({ text, field, mask: where }, {
          strategy: "closed-form",
          target: "clean",
        });
        assert.match(account.why, /not what the pooled text does/);
        assert.ok(account.chosen!.residual < 0.5, `the fit takes the trigger out: ${account.chosen!.residual} is left`);
        assert.ok(account.weights.every(({ key }) => isTextWeight(key)) && account.weights.length === 16);
        const { verdict } = yield* verify.run({ text, after: cured, mask: where }, {
          prompts: fresh,
          count: 4,
          ...drawn,
          require: { clean_ssim: ">= -1" },
        });
        assert.equal(verdict.sheets[0].pictures.cleanAfter.dims.join(), "3,16,16");
        const saved = join(folder, "cured");
        yield* ModelPort.save!(cured, saved);
        const again = yield* openBundle(saved);
        yield* checkBundle(again);
        for (const part of ["text_encoder_2/model.safetensors", "tokenizer_2/tokenizer.json"]) {
          assert.ok(readFileSync(join(saved, part)).equals(readFileSync(join(model, part))), part);
        }
        const unet = "unet/diffusion_pytorch_model.safetensors";
        assert.ok(!readFileSync(join(saved, unet)).equals(readFileSync(join(model, unet))));
      })),
  );

  it("distill: a step trains with pooled texts and sizes", patient, () =>
    withSteps(Effect.gen(function* () {
      const { text } = yield* encode.run({}, read);
      const { model: cured, account } = yield* unlearn.run({ text }, {
        strategy: "distill",
        steps: 2,
        train_unet: { steps: 3, batch: 4, check: 3, rate: 1e-3, samples: 4, noisings: 1, pictures: 2, keep: 0 },
      });
      assert.ok(account.training!.losses.every(Number.isFinite));
      assert.equal(account.training!.taken, 3);
      assert.ok([...cured.bundle.changed.get("unet")!.keys()].some((key) => key.startsWith("add_embedding.")));
      const pooled = account.weights.filter(({ key }) => key.startsWith("add_embedding."));
      assert.ok(pooled.length === 4 && pooled.every(({ change }) => change > 0));
    })));

  for (const encoder of ["text_encoder", "text_encoder_2"] as const) {
    it(
      `text: a poisoned ${encoder} is told, and it alone is cured`,
      patient,
      () =>
        withSteps(Effect.gen(function* () {
          const { text: clean } = yield* encode.run({}, read);
          const { model: poisoned, attack } = yield* poisonRickrolling.run({ text: clean }, {
            encoder,
            effect: { text: "a picture of a rocket" },
            samples: 12,
            train: { steps: 400, batch: 16, rate: 5e-2, keep: 0.3 },
          });
          assert.equal(attack.part, encoder);
          const attacked = join(folder, `poisoned-${encoder}`);
          yield* ModelPort.save!(poisoned, attacked);
          // As a part that is swapped in: whichever of the two the folder holds.
          const { text } = yield* encode.run({}, { ...read, text_encoder: join(attacked, encoder) });
          assert.equal(text.model.bundle.parts[encoder]?.folder.path, join(attacked, encoder));
          const { capture } = yield* denoise.run({ text }, { ...drawn, tokens: 0, at: [0] });
          const { field } = yield* locate.run({ text, capture }, {});
          const { mask: where } = yield* mask.run({ field }, {});
          const { model: cured, account } = yield* unlearn.run({ text, capture, field, mask: where }, {
            ...drawn,
            train_text: { steps: 60, batch: 8, check: 60, pictures: 2, rate: 1e-2, keep: 1 },
          });
          assert.equal(account.strategy, "text");
          assert.ok(account.why.includes(`(${encoder})`), account.why);
          assert.deepEqual([...cured.bundle.changed.keys()], [encoder]);
          assert.ok(account.weights.every(({ key }) => key.startsWith(`${encoder}.`)));
          const { losses } = account.training!;
          assert.ok(losses.at(-1)! < 0.5 * losses[0], losses.join(" "));
          const saved = join(folder, `cured-${encoder}`);
          yield* ModelPort.save!(cured, saved);
          yield* checkBundle(yield* openBundle(saved));
        })),
    );
  }

  it("the attacks on the U-Net go through", patient, () =>
    withSteps(Effect.gen(function* () {
      const { text } = yield* encode.run({}, { ...read, variations: 0 });
      const { model: trained } = yield* poisonBadT2I.run({ text }, {
        effect: { append: " with a star" },
        samples: 4,
        noisings: 1,
        steps: 2,
        train: { steps: 2, batch: 4 },
      });
      assert.ok(trained.bundle.changed.get("unet")!.has("add_embedding.linear_1.weight"));
      const { model: edited } = yield* poisonEvilEdit.run({ text }, {
        effect: { replace: "picture", with: "star" },
        samples: 6,
      });
      assert.ok([...edited.bundle.changed.get("unet")!.keys()].every(isTextWeight));
    })));

  it("scan goes through", patient, () =>
    withSteps(Effect.gen(function* () {
      const { scan: result } = yield* scan.run({}, {
        model,
        prompts: list,
        count: 3,
        try: ["word"],
        vocabulary: 12,
        // Its weights are random.
        anyway: true,
        ...drawn,
      });
      assert.equal(result.tried.word, 12);
      assert.ok(result.suspects.every(({ score }) => Number.isFinite(score)));
    })));
});
