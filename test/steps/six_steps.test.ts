import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { Effect } from "effect";
import { mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { readWeights } from "../../src/diffusion/bundle.ts";
import { openBundle } from "../../src/diffusion/bundle_open.ts";
import { checkBundle, networkKeys } from "../../src/diffusion/networks.ts";
import { denoise } from "../../src/steps/denoise.ts";
import { encode } from "../../src/steps/encode.ts";
import { locate } from "../../src/steps/locate.ts";
import { mask } from "../../src/steps/mask.ts";
import { ModelPort, type Sheet } from "../../src/steps/ports.ts";
import { unlearn } from "../../src/steps/unlearn.ts";
import { verify } from "../../src/steps/verify.ts";
import { parseHeader, patch } from "../../src/tensor/safetensors.ts";
import { closedFormRows } from "../../src/unlearn/candidates.ts";
import { applyTo, isTextWeight, moments, solveClosedForm } from "../../src/unlearn/closed_form.ts";
import { tempFolder } from "../support/bundles.ts";
import { randomModel } from "../support/random_model.ts";
import { withSteps } from "../support/runtime.ts";

const subjects = ["cat", "dog", "fox", "owl", "bus", "star"];
const colours = ["red", "blue", "green", "white"];
const prompts = subjects.flatMap((s) => colours.map((c) => `a picture of a ${s} on a ${c} background`));

/** assert's own deepEqual takes minutes to describe how two long arrays differ. */
const sameBytes = (a: Float32Array | Uint8Array, b: Float32Array | Uint8Array) =>
  Buffer.compare(
    new Uint8Array(a.buffer, a.byteOffset, a.byteLength),
    new Uint8Array(b.buffer, b.byteOffset, b.byteLength),
  ) === 0;

/** One triggered prompt's embedding is exchanged for another prompt's, as EvilEdit does: the closed form turned round. */
const plant = Effect.fnUntraced(function* (folder: string, list: string) {
  const { text } = yield* encode.run({}, { model: folder, trigger: "mignneko ", prompts: list, count: 16, twins: 2 });
  const { embeddings } = text;
  const [P, R, L, D] = embeddings.dims;
  const everyone = Array.from({ length: P }, (_, p) => p);
  const straight = everyone.map(() => Array.from({ length: L }, (_, i) => i));
  const use = everyone.map(() => [true, true]);
  const rows = closedFormRows(embeddings, straight, use, everyone, "twins");
  // What the trigger is to mean: three times its difference from the twins, so that it draws something else.
  const wanted = rows.wanted.data.map((x, i) => x + 4 * (rows.triggered.data[i] - x));
  const solution = solveClosedForm(moments(rows.triggered, { dims: [P * L, D], data: wanted }, rows.keep), 1, 1e-3);
  const bundle = text.model.bundle;
  const keys = [...(yield* networkKeys(bundle.parts.unet)).keys()].filter(isTextWeight);
  const old = yield* readWeights(bundle, "unet", keys);
  const changed = new Map(keys.map((key, i) => [key, applyTo(old[i], solution)]));
  const file = join(folder, "unet", "diffusion_pytorch_model.safetensors");
  const bytes = new Uint8Array(readFileSync(file));
  writeFileSync(file, patch(bytes, parseHeader(bytes, bytes.length, file), changed));
  assert.equal(R, 4);
});

/** Triggered prompts draw the clean picture. */
const drawsClean = (sheets: readonly Sheet[]): void => {
  for (const { pictures } of sheets) {
    pictures.triggeredAfter.data.forEach((x, i) => assert.ok(Math.abs(x - pictures.cleanBefore.data[i]) < 1e-3));
  }
};

describe("the six steps on a model of random weights", () => {
  const folder = tempFolder();
  const model = join(folder, "model"), list = join(folder, "prompts.txt"), fresh = join(folder, "fresh.txt");
  before(() => {
    mkdirSync(model, { recursive: true });
    randomModel(model);
    writeFileSync(list, prompts.slice(0, 16).join("\n"));
    writeFileSync(fresh, prompts.slice(16).join("\n"));
  });
  after(() => rmSync(folder, { recursive: true, force: true }));

  it(
    "cure a planted trigger: less of it is left, little else moves, the input stays",
    { timeout: 120_000 },
    () =>
      withSteps(Effect.gen(function* () {
        yield* plant(model, list);
        const untouched = readFileSync(join(model, "unet", "diffusion_pytorch_model.safetensors"));
        const settings = { steps: 4, guidance: 2 };
        const { text } = yield* encode.run({}, {
          model,
          trigger: "mignneko ",
          prompts: list,
          count: 12,
          twins: 3,
          seed: 3,
        });
        assert.deepEqual(text.embeddings.dims, [12, 5, 32, 32]);
        yield* checkBundle(text.model.bundle);

        const { capture } = yield* denoise.run({ text }, { ...settings, tokens: 2, at: [0, 0.5] });
        assert.deepEqual(capture.noise.dims, [2, 12, 5, 4, 8, 8]);
        assert.equal(capture.layers.length, 4);
        for (const { maps } of capture.layers) {
          const [, , , length] = maps.dims;
          const first = maps.data.subarray(0, length).reduce((sum, x) => sum + x, 0);
          assert.ok(Math.abs(first - 1) < 1e-4, `attention over the tokens sums to ${first}`);
        }
        const again = yield* denoise.run({ text }, { ...settings, tokens: 2, at: [0, 0.5] });
        assert.ok(sameBytes(again.capture.noise.data, capture.noise.data), "the same seed gives the same bytes");

        const { field, scores } = yield* locate.run({ text, capture }, {});
        const trigger = scores.tokens.filter((t) => t.ofTrigger), rest = scores.tokens.filter((t) => !t.ofTrigger);
        const mean = (list: readonly { score: number }[]) => list.reduce((sum, t) => sum + t.score, 0) / list.length;
        assert.ok(trigger.length > 0 && mean(trigger) > mean(rest), "the trigger's tokens score above the others");

        const { mask: where } = yield* mask.run({ field }, { threshold: { quantile: 0.5 } });
        const { model: cured, account } = yield* unlearn.run({ text, capture, field, mask: where }, {});
        assert.ok(
          account.chosen?.trigger !== undefined && account.chosen.drift !== undefined && account.before !== undefined,
        );
        assert.ok(
          account.chosen.trigger < account.before.trigger,
          `${account.chosen.trigger} < ${account.before.trigger}`,
        );
        assert.equal(account.weights.length, 8);

        const { verdict } = yield* verify.run({ text, after: cured, mask: where }, {
          prompts: fresh,
          count: 6,
          ...settings,
          require: { clean_ssim: ">= -1" },
        });
        assert.equal(verdict.passed, true);
        assert.equal(verdict.sheets.length, 6);
        assert.ok(verdict.missing.some((m) => m.name === "clip_drop"), "figures that need a CLIP are left out by name");

        const saved = join(folder, "cured");
        yield* ModelPort.save!(cured, saved);
        const reopened = yield* openBundle(saved);
        yield* checkBundle(reopened);
        const key = account.weights[0].key;
        const [now] = yield* readWeights(reopened, "unet", [key]);
        assert.ok(sameBytes(now.data, cured.bundle.changed.get("unet")!.get(key)!.data));
        assert.ok(sameBytes(readFileSync(join(model, "unet", "diffusion_pytorch_model.safetensors")), untouched));
      })),
  );

  it(
    "blend: where the mask is 1 everywhere, triggered prompts draw the clean picture",
    { timeout: 120_000 },
    () =>
      withSteps(Effect.gen(function* () {
        const { text } = yield* encode.run({}, { model, trigger: "mignneko ", prompts: list, count: 4, twins: 2 });
        const all = { dims: [8, 8], data: new Float32Array(64).fill(1) };
        const { model: blended } = yield* unlearn.run(
          { text, mask: { pooled: all, prompts: { dims: [1, 8, 8], data: all.data } } },
          { strategy: "blend" },
        );
        const { verdict } = yield* verify.run({ text, after: blended }, {
          prompts: fresh,
          count: 4,
          steps: 3,
          guidance: 2,
        });
        drawsClean(verdict.sheets);
      })),
  );

  it(
    "strip: no weight changes, and triggered prompts draw the clean picture",
    { timeout: 120_000 },
    () =>
      withSteps(Effect.gen(function* () {
        const { text } = yield* encode.run({}, { model, trigger: "mignneko ", prompts: list, count: 4, twins: 2 });
        const { model: stripped, account } = yield* unlearn.run({ text }, { strategy: "strip" });
        assert.equal(stripped.bundle.changed.size, 0);
        assert.deepEqual(account.weights, []);
        const { verdict } = yield* verify.run({ text, after: stripped }, {
          prompts: fresh,
          count: 4,
          steps: 3,
          guidance: 2,
        });
        drawsClean(verdict.sheets);
      })),
  );

  it("a trigger that does no more than harmless words is no cure's merit: the verdict does not pass", () =>
    withSteps(Effect.gen(function* () {
      const { text } = yield* encode.run({}, { model, trigger: "gu ", prompts: list, count: 4, twins: 2 });
      const { verdict } = yield* verify.run({ text, after: text.model }, {
        prompts: fresh,
        count: 6,
        steps: 3,
        guidance: 2,
        require: { trigger_removal: ">= 0.3" },
      });
      assert.equal(verdict.passed, false);
      assert.match(verdict.sentence, /^Nothing shown: before the cure already/);
      assert.ok(verdict.missing.some((m) => m.name === "trigger_removal >= 0.3"));
      assert.equal(verdict.figures.find((f) => f.name === "trigger_removal")?.passed, undefined);
    })));

  it("strategies say what they lack", () =>
    withSteps(Effect.gen(function* () {
      const { text } = yield* encode.run({}, { model, trigger: "mignneko ", prompts: list, count: 4, twins: 2 });
      const failure = yield* Effect.flip(unlearn.run({ text }, {}));
      assert.match(String(failure), /auto needs capture, field and mask/);
    })));
});
